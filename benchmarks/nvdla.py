# SPDX-License-Identifier: Apache-2.0
"""The NVDLA primer's ResNet-50 table beside compiled and simulated programs: `python benchmarks/nvdla.py [--stride-in-3x3]`.

Two plans per row, both layer by layer: row stripes outside (the gate of tests/targets/npu/test_nvdla.py) and
the planner's free choice.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride-in-3x3", action="store_true", help="the 4.09 G MAC variant instead of v1's 3.86 G")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    from tests.targets.npu.test_nvdla import TABLE, layer_by_layer, quantised_segment

    from gadl.targets.npu import _sim
    from gadl.targets.npu.backend import NpuBackend
    from gadl.targets.npu.costs import Costs
    from gadl.targets.npu.layers import layers_of
    from gadl.targets.npu.machine import load_machine
    from gadl.targets.npu.planner import Planner

    segment = quantised_segment(options.stride_in_3x3)
    print("| MACs | published fps | stripes outside: fps | ratio | DRAM MB | DRAM busy | array busy | free order: fps | ratio | DRAM MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for macs, published in TABLE:
        machine = load_machine(f"nvdla-{macs}")
        free = Planner(Costs(machine), int(0.9 * machine.sram_bytes)).plan(layers_of(segment))
        cells = []
        for plan, whole in ((layer_by_layer(machine, segment), True), (free, False)):
            program = NpuBackend(machine).compile(segment, plan)
            report = _sim.simulate(program.code, {}, functional=False, races=False)
            cycles, moved = report["cycles"], report["dram_read_bytes"] + report["dram_write_bytes"]
            fps = machine.clock_hz / cycles
            cells += [f"{fps:.2f}", f"{fps / published:.3f}", f"{moved / 1e6:.1f}"]
            if whole:
                rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
                cells += [f"{x / cycles:.0%}" for x in (report["dram_burst_bytes"] / rate, program.report["geometric_cycles"])]
        print("| " + " | ".join([str(macs), f"{published:g}", *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
