# SPDX-License-Identifier: Apache-2.0
"""Programs for CV18xx chips beside those of the vendor's compiler, on one meter.

    GADL_SUITE=path/to/suite python benchmarks/cv18xx.py [--chips cv181x,cv180x] [--no-model] [NAME …]

All times are estimates (`targets/cv18xx/cost.py`). "vendor µs" is the vendor's own estimator, which adds both engines up; "overlap" runs
them at once at a bandwidth of DDR. "differ" are bytes in which the vendor's functional model, where it is set up, differs from our
interpreter. In parentheses: the ratio to the best option of the vendor's compiler (`PEERS`). The last four networks have random weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
RATES = (7544, 3772, 2640)
#: Rows and columns that shapes are fixed to.
SIZES = {"ppocr_rec": (48, 320), "ppocr_det": (320, 320), "u2netp": (320, 320)}
SUITE = ("mobilenet_v2", "ppocr_det", "ppocr_rec", "u2netp", "fashion_cnn", "pulsevad_81k")


class Figures(NamedTuple):
    """Of one program: the vendor's estimate, the overlap model at `RATES`, busy TIU (all µs), KiB that transfers ask for in DDR."""

    vendor: float
    overlap: tuple[float, float, float]
    tiu: float
    kib: float


#: TPU-MLIR 1.30.2, int8, the better of its two valid options in each figure, on the same meter, from files that it made. Its pulsevad_81k
#: computes something else than its own interpreter, and is there for orientation.
PEERS = {
    ("mobilenet_v2", "cv181x"): Figures(4699.7, (4698.6, 5449.9, 6099.8), 3963.4, 7253),
    ("mobilenet_v2", "cv180x"): Figures(18384.0, (17177.9, 17974.4, 18828.4), 16551.8, 16462),
    ("fashion_cnn", "cv181x"): Figures(31.6, (30.9, 45.0, 57.2), 16.6, 108),
    ("fashion_cnn", "cv180x"): Figures(72.6, (66.4, 80.8, 93.2), 57.4, 108),
    ("pulsevad_81k", "cv181x"): Figures(42.6, (33.9, 44.8, 56.1), 28.1, 100),
    ("pulsevad_81k", "cv180x"): Figures(120.6, (110.6, 115.2, 119.9), 105.0, 100),
    ("u2netp", "cv181x"): Figures(196510.8, (212547.6, 248896.8, 285413.2), 180716.9, 390126),
    ("ppocr_rec", "cv181x"): Figures(24966.2, (33153.6, 47907.8, 61044.4), 18393.5, 103705),
    ("ppocr_det", "cv181x"): Figures(19664.6, (24900.2, 36344.7, 46672.7), 14819.2, 74850),
    ("resnet18", "cv181x"): Figures(18033.0, (16540.4, 17049.1, 17534.3), 16127.5, 16609),
    ("resnet18", "cv180x"): Figures(74791.3, (67220.5, 67629.8, 68226.6), 66992.3, 54049),
    ("resnet50", "cv181x"): Figures(44502.0, (38942.1, 42169.8, 46686.4), 37391.4, 63627),
    ("yolov8n", "cv181x"): Figures(42286.9, (42726.6, 44723.8, 47114.5), 40267.4, 35557),
    ("yolov8s", "cv181x"): Figures(132252.1, (129670.4, 136741.2, 143805.8), 123901.3, 115502),
}


def random_networks() -> Mapping[str, Callable[[], Any]]:
    """Networks with random weights; ResNet-50 with the stride in the 3x3, as the vendor's compiler got it."""
    from tests.networks import resnet18, resnet50, yolov8

    return {
        "resnet18": resnet18, "resnet50": lambda: resnet50(stride_in_3x3=True), "yolov8n": lambda: yolov8(0.25), "yolov8s": lambda: yolov8(0.5),
    }  # fmt: skip


def model_of(name: str) -> tuple[Any, dict[str, tuple[int, ...]], list[dict[str, np.ndarray]]]:
    """A model, its input shapes, and samples to calibrate with."""
    made = random_networks().get(name)
    if made is not None:
        model = made()
        shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
        return model, {}, [{"x": np.random.default_rng(0).standard_normal(shape, np.float32)}]
    import suite

    case = suite.load(name)
    shapes = {i.name: tuple(i.shape) for i in case.inputs}
    if name in SIZES:
        shapes = {key: (1, 3, *SIZES[name]) for key in shapes}
    samples = [{k: fitted(v, shapes[k]) for k, v in sample.items()} for sample in case.calibration(4)]
    return case.onnx, shapes, samples


def fitted(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An image cut at the right and below, or repeated there."""
    pads = [(0, max(0, want - have)) for want, have in zip(shape, array.shape)]
    return np.pad(array, pads, mode="wrap")[tuple(slice(0, want) for want in shape)]


class Quantised(NamedTuple):
    """A network in the chips' numbers, and the interpreter's values for the first sample."""

    graph: Any
    values: Mapping[str, np.ndarray]


def quantised(name: str) -> Quantised:
    """Imported, calibrated, quantised: the same for both chips."""
    from gadl.compiler.driver import CompileOptions, import_model
    from gadl.compiler.ir.interpret import interpret_values
    from gadl.passes.pipeline import float_pipeline
    from gadl.passes.quant.calibrate import calibrate
    from gadl.passes.quant.quantize import Precision, quantize_graph, rules_for
    from gadl.targets.cv18xx.quant_rules import QUANT_RULES

    model, shapes, samples = model_of(name)
    graph = import_model(model, CompileOptions(shapes=shapes), lambda item: None)
    for item in float_pipeline(QUANT_RULES.residuals, QUANT_RULES.decomposed):
        item.run(graph)
    graph = quantize_graph(graph, calibrate(graph, samples), rules_for(QUANT_RULES, Precision.INT8)).graph
    return Quantised(graph, interpret_values(graph, samples[0]))


def differing(segment: Any, code: bytes, values: Mapping[str, np.ndarray]) -> int:
    """Bytes in which the vendor's functional model differs from the interpreter."""
    from gadl.compiler.session import open_session
    from gadl.runtime import cv18xx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.cvimodel"
        path.write_bytes(code)
        feeds = {v.name: np.ascontiguousarray(values[v.name]) for v in segment.inputs}
        got = open_session(path, cv18xx.DEVICE, timeout_s=3600).run(feeds, raw=True)
    return sum(int((got[v.name].reshape(-1) != values[v.name].reshape(-1)).sum()) for v in segment.outputs)


def row(name: str, chip_name: str, network: Quantised, functional: bool) -> str:
    """Compile for a chip, and the line of the table."""
    from gadl.compiler.diag import GadlError
    from gadl.compiler.ir.types import DType
    from gadl.passes.layout.choose_layouts import choose_layouts
    from gadl.passes.plan.partition import partition
    from gadl.targets.base import segments_of
    from gadl.targets.cv18xx.backend import CviBackend
    from gadl.targets.cv18xx.chip import CHIPS
    from gadl.targets.cv18xx.cost import overlap, serial_us, tdma_bytes, tiu_macs
    from gadl.targets.cv18xx.cvimodel import SectionKind, decode
    from gadl.targets.cv18xx.isa import Direction, Engine
    from gadl.targets.cv18xx.target import TARGETS

    chip, target = CHIPS[chip_name], next(t for t in TARGETS if t.name == chip_name)
    graph = network.graph.clone()
    start = time.process_time()
    partition(graph, chip_name, lambda op: reason.en if (reason := target.refuse(op, chip)) else None)
    choose_layouts(graph, target.channels_last)
    segments = segments_of(graph.ops, graph.outputs)
    try:
        codes = [CviBackend(chip).compile(segment).code for segment in segments]
    except GadlError as error:
        return f"| {name} | {chip_name} | {str(error).splitlines()[0]} |"
    seconds = time.process_time() - start
    models = [decode(code) for code in codes]
    streams = [m.commands(i) for m in models for i, s in enumerate(m.model.sections) if s.kind == SectionKind.COMMANDS]
    moved: Counter[Direction] = Counter()
    counts: Counter[Engine] = Counter()
    macs = 0
    for command in (c for stream in streams for c in stream):
        counts[command.engine] += 1
        if command.engine is Engine.TIU:
            macs += tiu_macs(command.fields)
        else:
            cost = tdma_bytes(command.fields)
            moved[cost.direction] += cost.useful
            # What goes from memory to memory passes DDR twice.
            moved[Direction.STORE] += cost.useful if cost.direction is Direction.DDR else 0
    loads, stores = (moved[Direction.LOAD] + moved[Direction.DDR]) / 1024, moved[Direction.STORE] / 1024
    runs = [[overlap(stream, chip, rate) for stream in streams] for rate in RATES]
    times = tuple(sum(run.total_us for run in rate) for rate in runs)
    found = Figures(sum(serial_us(s, chip) for s in streams), times, sum(run.tiu_us for run in runs[0]), loads + stores)
    peer = PEERS.get((name, chip_name))
    bad = str(sum(differing(s, code, network.values) for s, code in zip(segments, codes, strict=True))) if functional else "-"
    host = Counter(
        op.name for op in graph.ops
        if (op.placement is None or op.placement.segment is None) and op.name not in ("quantize", "dequantize") and op.results[0].dtype is not DType.BOOL
    )  # fmt: skip
    cells = [
        name, chip_name, _with(found.vendor, peer and peer.vendor), *(_with(a, peer and peer.overlap[i]) for i, a in enumerate(times)),
        _with(found.tiu, peer and peer.tiu), f"{loads:,.0f} / {stores:,.0f}{_ratio(found.kib, peer and peer.kib)}", f"{macs / 1e6:,.1f}",
        f"{counts[Engine.TIU]:,} / {counts[Engine.TDMA]:,}", f"{sum(map(len, codes)):,}", f"{seconds:.1f}", bad,
        f"{len(segments)}" + (": " + ", ".join(f"{n} {op}" if n > 1 else op for op, n in host.items()) if host else ""),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _with(value: float, peer: float | None) -> str:
    return f"{value:,.1f}{_ratio(value, peer)}" if value < 1000 else f"{value:,.0f}{_ratio(value, peer)}"


def _ratio(value: float, peer: float | None) -> str:
    return f" ({value / peer:.3f})" if peer else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--chips", default="cv181x,cv180x")
    parser.add_argument("--no-model", action="store_true", help="do not run the vendor's functional model")
    options = parser.parse_args()
    sys.path[:0] = [os.environ["GADL_SUITE"], str(ROOT), str(ROOT / "src")]
    sys.setrecursionlimit(100_000)
    from gadl.runtime import cv18xx

    columns = [
        "model", "chip", "vendor µs", *(f"overlap {rate}" for rate in RATES), "TIU µs", "DDR KiB loaded / stored", "MMAC", "TIU / TDMA",
        "file B", "compile CPU s", "differ", "segments: ops on the host",
    ]  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for name in options.names or [*SUITE, *random_networks()]:
        network = quantised(name)
        for chip in options.chips.split(","):
            print(row(name, chip, network, not options.no_model and cv18xx.missing() is None), flush=True)


if __name__ == "__main__":
    main()
