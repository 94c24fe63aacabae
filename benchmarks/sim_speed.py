# SPDX-License-Identifier: Apache-2.0
"""How fast the simulator is: `python benchmarks/sim_speed.py [rounds]` prints instructions per second of processor time.

One program: a double-buffered tile loop on all queues of `edge` (two loads, product, drain, table, store a round), timed
alone, with the race detector, and on a loop of short instructions.
"""

from __future__ import annotations

import sys
import time

from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Container
from gadl.targets.npu.instruction import encode
from gadl.targets.npu.machine import load_machine

TILE = """
LD@LD0 src_region=1 dst=0 row_bytes=4096 wait(4,1) post(0,1)
LD@LD1 src_region=1 src=4096 dst=65536 row_bytes=4096 wait(5,1) post(1,1)
MMA_CONV@MMA x_row_stride=1024 x_pix_stride=64 ih=4 iw=16 ic=64 kh=1 kw=1 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=4 ow=16 \
w_addr=65536 oc=64 wait(0,1) wait(1,1) post(4,1) post(5,1)
EPI@MMA oh=4 ow=16 oc=64 out_addr=131072 out_row_stride=1024 out_pix_stride=64 wait(6,1) post(2,1)
VLUT@VEC a_addr=131072 table_addr=196608 out_addr=262144 count=4096 wait(2,1) wait(7,1) post(6,1) post(3,1)
ST@ST src=262144 dst_region=2 row_bytes=4096 wait(3,1) post(7,1)
"""
START = "POST@CTL post(4,1) post(5,1)\nPOST@CTL post(6,1) post(7,1)\n"
SHORT = "VLUT@VEC a_addr=0 table_addr=1024 out_addr=2048 count=64\n"


def rate(body: str, rounds: int, races: bool) -> tuple[float, float]:
    """Instructions and cycles per second, best of three runs; loading the program is part of it."""
    text = f"{START}REP@CTL count={rounds}\n{body}ENDR@CTL\nEND@CTL"
    program = Container(load_machine("edge"), [encode(assemble(text))], b"", {1: 8192, 2: 4096}, [], []).to_bytes()
    best, report = float("inf"), {}
    for _ in range(3):
        start = time.process_time()
        report = _sim.simulate(program, {}, functional=False, races=races)
        best = min(best, time.process_time() - start)
    return report["instructions"] / best, report["cycles"] / best


def measure(label: str, body: str, rounds: int, races: bool) -> None:
    """Print one row."""
    instructions, cycles = rate(body, rounds, races)
    print(f"{label:28} {instructions / 1e6:6.1f} M instructions/s  ({cycles / 1e6:.0f} M cycles/s)")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    measure("tile loop", TILE, count, races=False)
    measure("tile loop, races looked for", TILE, count, races=True)
    measure("short instructions", SHORT, 4 * count, races=False)
