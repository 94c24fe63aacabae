# SPDX-License-Identifier: Apache-2.0
"""Quantisers side by side: the suite's models in int8 by this compiler and by ONNX Runtime, on the same graph, samples and evaluation.

    GADL_SUITE=path/to/suite python benchmarks/quant.py [--tracks full,core] [--effort default] [--target npu] [--out docs/results.md] [NAME …]
    GADL_SUITE=path/to/suite python benchmarks/quant.py --ablation [NAME …]

Track `full`: all ops that have an integer form; its peer is the suite's `ort-int8`. Track `core`: convolutions and products only; its peer
is `ort-int8-core`. Peers run their quantise and dequantise nodes as written, so that no kernel saturates. Ours runs in exact integers on
the host, which equal the simulator's bit for bit (`benchmarks/suite_scores.py`). `--ablation`: what each algorithm brings, on the calibration
samples that were held out. SQNR is the mean over the evaluation's inputs and the
model's outputs, against ONNX Runtime in float. Each quantiser runs in a process of its own, for its CPU seconds and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("fashion_cnn", "mobilenet_v2", "pulsevad_81k", "hey_jarvis", "ppocr_det", "ppocr_rec", "layout_picodet", "u2netp")
PEERS = {"full": "ort-int8", "core": "ort-int8-core"}
BEGIN, END = "<!-- quant: begin -->", "<!-- quant: end -->"
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class Compared:
    """Runs two functions on every input and remembers how far the second is from the first."""

    def __init__(self, wanted: Run, run: Run) -> None:
        self.wanted, self.run = wanted, run
        self.ratios: list[float] = []

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        from gadl.passes.quant.measure import sqnr_db

        found = self.run(feeds)
        self.ratios.append(sqnr_db(self.wanted(feeds), found))
        return found


def one(name: str, track: str, who: str, effort: str, target: str) -> dict[str, Any]:
    """Quantise one model and score it."""
    import suite
    from suite.engines import ort_float, quantize, session_run

    case = suite.load(name)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time(), time.perf_counter()
        if who == "peer":
            path = Path(folder) / "peer.onnx"
            quantize(case, path, ["Conv", "ConvTranspose", "Gemm", "MatMul"] if track == "core" else None)
            took, detail = (time.process_time() - start[0], time.perf_counter() - start[1]), coverage_of(path)
            run: Run = session_run(path, fuse_quantised=False)
        else:
            run, took, detail = ours(case, track, effort, target, Path(folder))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        compared = Compared(ort_float(case), run)
        result = case.evaluate(compared)
    return {
        "score": result["score"], "agreement": result.get("agreement"), "metric": result["metric"], "sqnr": float(np.mean(compared.ratios)),
        "cpu": took[0], "wall": took[1], "memory": memory, "detail": detail, "float": case.float_score,
    }  # fmt: skip


def ours(case: Any, track: str, effort: str, target: str, folder: Path) -> tuple[Run, tuple[float, float], str]:
    """The compiler's integers, run by the host's kernels."""
    import gadl
    from gadl.compiler.ir.printer import save_gir
    from gadl.compiler.registry import target as find_target
    from gadl.passes.quant.quantize import Precision, rules_for
    from gadl.passes.quant.recipe import Coverage, Effort
    from gadl.passes.quant.search import Search
    from gadl.runtime.session import Session

    shapes = {i.name: i.shape for i in case.inputs}
    graph = gadl.compile(case.onnx, target="cpu", shapes=shapes, self_check=False).float_graph
    found = find_target(target)
    rules = rules_for(found.quant_rules(found.load_machine(found.default_machine)), Precision.INT8, Coverage(track))
    start = time.process_time(), time.perf_counter()
    made = Search(graph, rules, list(case.calibration(64)), Effort(effort)).run()
    took = time.process_time() - start[0], time.perf_counter() - start[1]
    save_gir(made.graph, folder / "quantised.gir")
    gadl.compile(folder / "quantised.gir", target="cpu", self_check=False).save(folder / "quantised.gadl")
    counts = f"{made.report['integer_ops']}/{made.report['ops']}; {made.report['search']['recipe']}"
    return Session(folder / "quantised.gadl", check=False).run, took, counts


def ablation(name: str, target: str) -> list[float]:
    """SQNR of the recipes of `steps` on held-out samples."""
    import suite

    import gadl
    from gadl.compiler.ir.interpret import interpret
    from gadl.compiler.registry import target as find_target
    from gadl.passes.quant.calibrate import calibrate
    from gadl.passes.quant.measure import sqnr_db
    from gadl.passes.quant.observers import ByChannel, MinMax
    from gadl.passes.quant.quantize import Precision, quantize_graph, rules_for
    from gadl.passes.quant.search import Search

    case, found = suite.load(name), find_target(target)
    graph = gadl.compile(case.onnx, target="cpu", shapes={i.name: i.shape for i in case.inputs}, self_check=False).float_graph
    rules = rules_for(found.quant_rules(found.load_machine(found.default_machine)), Precision.INT8)
    search = Search(graph, rules, list(case.calibration(64)))
    ranges = calibrate(graph, search.feeds, lambda: ByChannel(MinMax()))
    ratios = []
    for recipe in steps().values():
        made = quantize_graph(graph, ranges, rules, recipe, search._seen).graph
        ratios.append(float(np.mean([sqnr_db(interpret(graph, f), interpret(made, f)) for f in search.held])))
    return ratios


def steps() -> dict[str, Any]:
    """One algorithm more each, and everything without one of them."""
    from gadl.passes.quant.fit_weights import RoundingKind
    from gadl.passes.quant.recipe import Recipe

    whole = Recipe(fit_ranges=True, equalize=0.5, rounding=RoundingKind.REGRESSION)
    return {
        "min-max": Recipe(),
        "+ bias correction": Recipe(rounding=RoundingKind.NEAREST),
        "+ second-order rounding": Recipe(rounding=RoundingKind.SECOND_ORDER),
        "+ regression": Recipe(rounding=RoundingKind.REGRESSION),
        "+ fitted ranges": replace(whole, equalize=0.0),
        "+ equalisation 0.5": whole,
        "all, no bias correction": replace(whole, correct_bias=False),
        "all, nearest": replace(whole, rounding=RoundingKind.NEAREST),
        "fitted ranges alone": Recipe(fit_ranges=True),
        "equalisation alone": Recipe(equalize=0.5),
    }


def coverage_of(path: Path) -> str:
    """How many of a peer's ops read dequantised tensors."""
    import onnx

    nodes = onnx.load(path).graph.node
    made = {o for n in nodes if n.op_type == "DequantizeLinear" for o in n.output}
    real = [n for n in nodes if n.op_type not in ("QuantizeLinear", "DequantizeLinear", "Constant")]
    return f"{sum(any(i in made for i in n.input) for n in real)}/{len(real)}"


def apart(*arguments: str) -> dict[str, Any]:
    """`one` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--tracks", default="full,core")
    parser.add_argument("--effort", default="default")
    parser.add_argument("--target", default="npu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, os.environ["GADL_SUITE"])
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    if options.ablation:
        print(f"| model | {' | '.join(steps())} |\n|{'---|' * (1 + len(steps()))}")
        for name in options.names:
            print(f"| {name} | {' | '.join(f'{r:.1f}' for r in ablation(name, options.target))} |", flush=True)
        return
    head = ["model", "track", "metric", "float", "ours", "peer", "SQNR dB: ours", "peer", "", "CPU s (wall)", "peer", "MB", "peer", "integer ops; recipe", "peer"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    print("\n".join(lines), flush=True)
    for name in options.names:
        for track in options.tracks.split(","):
            mine, peer = (apart(name, track, who, options.effort, options.target) for who in ("ours", "peer"))
            scores = [f"{r['score']:.4f}" + (f" (agrees {r['agreement']:.3f})" if r["agreement"] is not None else "") for r in (mine, peer)]
            row = [
                name, track, mine["metric"], f"{mine['float']:.4f}", *scores, f"{mine['sqnr']:.1f}", f"{peer['sqnr']:.1f}",
                f"{mine['sqnr'] - peer['sqnr']:+.1f}", *(f"{r['cpu']:.0f} ({r['wall']:.0f})" for r in (mine, peer)),
                *(f"{r['memory']:.0f}" for r in (mine, peer)), mine["detail"], peer["detail"],
            ]  # fmt: skip
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    if options.out:
        text = options.out.read_text(encoding="utf-8")
        body = "\n".join(lines)
        options.out.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{body}\n{END}{text.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
