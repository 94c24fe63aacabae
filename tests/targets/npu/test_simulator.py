# SPDX-License-Identifier: Apache-2.0
"""The event simulation: races, deadlock, bounds, conservation, hostile programs."""

from __future__ import annotations

import numpy as np
import pytest

from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble, disassemble
from gadl.targets.npu.instruction import Instruction

from .programs import container, simulate

#: Load, multiply by a table, store: three queues, two semaphores forward.
COPY = """
LD@LD0 src_region=1 dst=0 row_bytes=256 post(0,1)
LD@LD1 src_region=1 src=256 dst=256 row_bytes=256 post(1,1)
VLUT@VEC a_addr=0 table_addr=256 out_addr=512 count=256 wait(0,1) wait(1,1) post(2,1)
ST@ST src=512 dst_region=2 row_bytes=256 wait(2,1)
END@CTL
"""


def memory() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(1)
    return {1: rng.integers(0, 256, 512).astype(np.uint8), 2: np.zeros(256, np.uint8)}


def test_a_small_program_computes_and_moves_what_it_says() -> None:
    regions = memory()
    report = simulate(COPY, regions)
    table = regions[1][256:].view(np.int8)
    expected = table[regions[1][:256].view(np.int8).astype(int) + 128]
    np.testing.assert_array_equal(regions[2].view(np.int8), expected)
    assert (report["dram_read_bytes"], report["dram_write_bytes"]) == (512, 256)


def waits(text: str) -> list[tuple[int, int]]:
    """Every (line, wait) of a program."""
    return [(i, w) for i, item in enumerate(assemble(text)) for w in range(len(item.waits))]


@pytest.mark.parametrize(("line", "wait"), waits(COPY))
def test_every_missing_wait_is_a_race(line: int, wait: int) -> None:
    """Even where timing would hide it: the loads finish long before the store starts."""
    program = assemble(COPY)
    item = program[line]
    kept = tuple(w for k, w in enumerate(item.waits) if k != wait)
    program[line] = Instruction(item.name, item.queue, item.fields, kept, item.posts, item.debug)
    with pytest.raises(_sim.SimError, match="race"):
        simulate(disassemble(program), memory())
    simulate(disassemble(program), memory(), races=False)


def test_deadlock_names_queue_instruction_and_semaphore() -> None:
    with pytest.raises(_sim.SimError, match=r"deadlock: core 0 ST on ST \(debug 9\) waits for semaphore 5 >= 2"):
        simulate("ST@ST src=0 dst_region=2 row_bytes=16 wait(5,2) #9\nEND@CTL", memory())


@pytest.mark.parametrize(
    "text",
    [
        "LD@LD0 src_region=1 src=500 dst=0 row_bytes=64\nEND@CTL",
        "LD@LD0 src_region=1 dst=524287 row_bytes=64\nEND@CTL",
        "ST@ST src=0 dst_region=0 row_bytes=16\nEND@CTL",
        "VTR@VEC x_addr=0 out_addr=64 elem_bytes=3 n0=4\nEND@CTL",
        "REP@CTL count=9999999\nVUN@VEC a_addr=0 out_addr=64 count=1\nENDR@CTL\nEND@CTL",
        "ENDR@CTL\nEND@CTL",
        "REP@CTL count=2\nREP@CTL count=2\nREP@CTL count=2\nREP@CTL count=2\nENDR@CTL\nENDR@CTL\nENDR@CTL\nENDR@CTL\nEND@CTL",
        "VUN@VEC a_addr=0 out_addr=64 count=1",
        "MMA_CONV@MMA x_addr=0 x_row_stride=4 x_pix_stride=1 ih=4 iw=4 ic=1 kh=1 kw=1 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=65535 ow=65535 oc=1 w_addr=64\nEND@CTL",
    ],
)
def test_bad_programs_end_in_a_clean_error(text: str) -> None:
    with pytest.raises(_sim.SimError):
        simulate(text, memory())


def test_loops_and_address_registers() -> None:
    text = """
    SET@CTL reg=3 value=0
    REP@CTL count=4
    LD@LD0 src_region=1 src=0 src_reg=4 dst=0 dst_reg=4 row_bytes=16
    ADDA@CTL reg=3 delta=16
    ENDR@CTL
    POST@LD0 post(0,1)
    ST@ST src=0 dst_region=2 row_bytes=64 wait(0,1)
    END@CTL
    """
    regions = memory()
    simulate(text, regions)
    np.testing.assert_array_equal(regions[2][:64], regions[1][:64])


def test_an_overflowing_accumulator_is_an_error() -> None:
    step = "MMA_CONV@MMA x_addr=0 x_row_stride=256 x_pix_stride=256 ih=1 iw=1 ic=256 kh=1 kw=1 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=1 ow=1 oc=1 w_addr=256 accumulate=1 #7"
    text = "LD@LD0 src_region=1 dst=0 row_bytes=512 post(0,1)\nWAIT@MMA wait(0,1)\nREP@CTL count=2000\n" + step + "\nENDR@CTL\nEND@CTL"
    regions = {1: np.full(512, 127, np.uint8), 2: np.zeros(16, np.uint8)}
    with pytest.raises(_sim.SimError, match=r"32-bit accumulator overflows \(debug 7\)"):
        simulate(text, regions)


def test_flipped_and_truncated_containers_never_crash() -> None:
    rng = np.random.default_rng(3)
    good = container(COPY, {1: 512, 2: 256})
    for _ in range(600):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.3:
            data = data[: int(rng.integers(len(data)))]
        try:
            _sim.simulate(bytes(data), {i: np.zeros(4096, np.uint8) for i in range(1, 8)})
        except _sim.SimError:
            pass
