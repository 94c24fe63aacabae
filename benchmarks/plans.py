# SPDX-License-Identifier: Apache-2.0
"""How near plans come to the physical limit: simulated cycles over LBgeo and DRAM bytes over the least, on each machine.

    GADL_SUITE=path/to/suite python benchmarks/plans.py [--machines edge,mid,large] [--tune 60] [NAME …]

Cycles are the simulator's, so the table is the same on every computer. `resnet50` has random weights. "In order" is a tighter bound
than LBgeo, for plans that compute the layers one after another and load each weight once, with nothing lost anywhere: behind any layer, the
weights of all later ones must still be loaded, but for as many as the on-chip memory holds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]


def model_of(name: str) -> tuple[Any, dict[str, tuple[int, ...]], list[dict[str, np.ndarray]]]:
    """A model, its input shapes, and four samples to calibrate with."""
    if name == "resnet50":
        from tests.networks import resnet50

        rng = np.random.default_rng(0)
        model = resnet50()
        return model, {}, [{model.graph.input[0].name: rng.standard_normal((1, 3, 224, 224), np.float32)}]
    import suite

    case = suite.load(name)
    return case.onnx, {i.name: i.shape for i in case.inputs}, list(case.calibration(4))


def in_order(performance: Any) -> float:
    """The cycles that no plan beats which computes the layers in order and loads each weight once."""
    device, layers = performance.device, performance.layers
    computed = list(accumulate(max(layer.bound["array"], layer.bound["vector"]) for layer in layers))
    loaded = list(accumulate(layer.bound["dram"] for layer in layers))
    held = device.sram_bytes / device.dram_bytes_per_cycle
    behind = (done + loaded[-1] - there - held for done, there in zip(computed, loaded))
    return max(performance.total.bound_cycles, *behind)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--machines", default="edge,mid,large")
    parser.add_argument("--tune", type=int, help="measure so many plans before each compilation, seed 0")
    parser.add_argument("--layers", action="store_true", help="also plan layer by layer (--no-groups) and print how much slower that is")
    options = parser.parse_args()
    sys.path[:0] = [os.environ["GADL_SUITE"], str(ROOT)]
    import gadl
    from gadl.compiler.artifact.reader import ArtifactFile
    from gadl.compiler.report import observe

    columns = ["model", "machine", "cycles", "/ LBgeo", "in order / LBgeo", "DRAM bytes / least", "MAC utilisation", "steps"]
    columns += ["layer by layer", "× faster"] * options.layers
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in options.names:
        model, shapes, samples = model_of(name)
        for machine in options.machines.split(","):
            with tempfile.TemporaryDirectory() as folder:
                search = {} if options.tune is None else {"tune": options.tune, "tuning_log": Path(folder) / "log.jsonl"}
                made = gadl.compile(model, target="npu", machine=machine, shapes=shapes, calibration=samples, **search)
            plan = made.report["plan"]
            performance, _ = observe(ArtifactFile(made.data))
            slow = ""
            if options.layers:
                other = gadl.compile(model, target="npu", machine=machine, shapes=shapes, calibration=samples, groups=False)
                cycles = other.report["plan"]["cycles"]
                slow = f" {cycles:,} | {cycles / plan['cycles']:.2f} |"
            print(
                f"| {name} | {machine} | {plan['cycles']:,} | {plan['cycles_over_lbgeo']:.2f} | "
                f"{in_order(performance) / plan['lbgeo_cycles']:.2f} | "
                f"{plan['dram_bytes'] / plan['dram_bound_bytes']:.2f} | {plan['mac_utilisation']:.1%} | {plan['steps']:,} |{slow}",
                flush=True,
            )


if __name__ == "__main__":
    main()
