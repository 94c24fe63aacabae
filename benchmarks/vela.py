# SPDX-License-Identifier: Apache-2.0
"""Simulated programs for `ethos-u85-1024` beside the estimates of Arm's compiler Vela 5.2.0 for ethos-u85-1024.

    [GADL_SUITE=path/to/suite] python benchmarks/vela.py [NAME …]

The second table repeats it with DRAM no faster than Vela's estimate lets it be (its bytes over its DRAM cycles), and with no more
SRAM than Vela uses. Weights are random, except those of `mobilenet_v2`, the suite's. docs/results.md says what the comparison
can mean.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MACHINE = ROOT / "targets" / "npu" / "machines" / "ethos-u85-1024.toml"


@dataclass(frozen=True)
class Estimate:
    """Vela's row for ethos-u85-1024; `macs` is the model's own count, which Vela reports for ethos-u55."""

    macs: float
    cycles: int
    npu: int
    dram: int
    dram_mb: float
    sram_kib: float


VELA = {
    "mobilenet_v2": Estimate(300.99e6, 2_089_439, 965_906, 1_928_265, 3.81, 1474.9),
    "resnet50": Estimate(3859.91e6, 7_755_103, 5_344_527, 5_775_148, 33.76, 1815.9),
    "vww": Estimate(7.49e6, 131_615, 56_687, 122_047, 0.37, 73.0),
    "kws": Estimate(2.66e6, 32_588, 21_010, 26_594, 0.05, 21.8),
    "resnet8": Estimate(12.51e6, 34_710, 33_639, 19_918, 0.12, 55.8),
    "ad01": Estimate(0.26e6, 44_765, 33_517, 43_309, 0.21, 13.8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(VELA), help=", ".join(VELA))
    options = parser.parse_args()
    sys.path[:0] = [*filter(None, [os.environ.get("GADL_SUITE")]), str(ROOT / "src"), str(ROOT)]

    heads = ["model", "M MACs", "Vela's", "cycles", "Vela", "ratio", "DRAM MB", "Vela", "SRAM KiB", "Vela", "array alone", "Vela", "/ LBgeo"]
    print(row(heads) + "\n" + "|---" * len(heads) + "|")
    rows = []
    for name in options.names:
        vela, work = VELA[name], segment_of(name)
        plan = planned(work, {})
        assert plan is not None
        print(
            row([
                name, f"{plan['macs'] / 1e6:.2f}", f"{vela.macs / 1e6:.2f}", *compared(plan, vela),
                f"{plan['moved'] / 1e6:.2f}", f"{vela.dram_mb:.2f}", f"{plan['sram_peak_bytes'] / 1024:.0f}", f"{vela.sram_kib:.0f}",
                f"{plan['geometric_cycles']:,.0f}", f"{vela.npu:,}", f"{plan['cycles'] / plan['lbgeo_cycles']:.2f}",
            ]),
            flush=True,
        )  # fmt: skip
        rate, kib = vela.dram_mb * 1e6 / vela.dram, math.ceil(vela.sram_kib)
        slow, small = {"bytes_per_cycle = 12.0": f"bytes_per_cycle = {rate:.3f}"}, {"kib = 2048": f"kib = {kib}"}
        found = [planned(work, change) for change in (slow, small, {**slow, **small})]
        each = [compared(plan, vela)[::2] if plan else ["does not fit", "–"] for plan in found]
        rows.append([name, f"{vela.cycles:,}", f"{rate:.2f}", *each[0], str(kib), *each[1], *each[2]])
    heads = ["model", "Vela", "DRAM B/cycle", "cycles", "ratio", "SRAM KiB", "cycles", "ratio", "both: cycles", "ratio"]
    print("\n" + row(heads) + "\n" + "|---" * len(heads) + "|")
    for cells in rows:
        print(row(cells))


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def compared(plan: dict[str, Any], vela: Estimate) -> list[str]:
    """Cycles, Vela's cycles, their ratio."""
    return [f"{plan['cycles']:,.0f}", f"{vela.cycles:,}", f"{plan['cycles'] / vela.cycles:.2f}"]


def segment_of(name: str) -> Any:
    """A model in int8: one segment, everything on the device."""
    from tests import networks
    from tests.targets.npu.programs import placed

    from gadl.frontends.onnx import import_onnx
    from gadl.targets.base import segments_of

    if name == "mobilenet_v2":
        import suite

        case = suite.load(name)
        model, shapes, samples = case.onnx, {i.name: i.shape for i in case.inputs}, list(case.calibration(4))
    else:
        model, shapes = getattr(networks, name)(), {}
        shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
        samples = [{"x": np.random.default_rng(0).standard_normal(shape, np.float32)}]
    made = placed(import_onnx(model, shapes, simplify=True, warn=lambda item: None), samples)
    (segment,) = segments_of(made.ops, made.outputs)
    return segment


def planned(segment: Any, changes: dict[str, str]) -> dict[str, Any] | None:
    """Figures of the compiled program on the machine with some lines changed; None where a layer finds no place."""
    from gadl.compiler.diag import GadlError
    from gadl.targets.npu import _sim
    from gadl.targets.npu.backend import NpuBackend
    from gadl.targets.npu.machine import load_machine

    text = MACHINE.read_text()
    for line, other in changes.items():
        assert line in text
        text = text.replace(line, other)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.toml"
        path.write_text(text)
        machine = load_machine(path)
    try:
        program = NpuBackend(machine).compile(segment)
    except GadlError as error:
        if any(item.code == "GADL-P001" for item in error.diagnostics):
            return None
        raise
    counted = _sim.simulate(program.code, {}, functional=False)
    assert counted["cycles"] >= program.report["lb0_cycles"]
    return {**program.report, "cycles": counted["cycles"], "moved": counted["dram_read_bytes"] + counted["dram_write_bytes"]}


if __name__ == "__main__":
    main()
