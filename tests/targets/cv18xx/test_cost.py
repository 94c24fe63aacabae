# SPDX-License-Identifier: Apache-2.0
"""Figures worked out by hand from the vendor's published formulas, and what the models promise of every stream."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.targets.cv18xx import cost
from gadl.targets.cv18xx.chip import CHIPS
from gadl.targets.cv18xx.cost import TdmaCost, overlap, serial_us, tdma_bytes, tiu_cycles, tiu_macs
from gadl.targets.cv18xx.descriptor import Command, DescriptorError
from gadl.targets.cv18xx.isa import Direction, Elementwise, Engine, Pool, Special, Task

from .streams import any_commands, operations

CHIP, SMALL = CHIPS["cv181x"], CHIPS["cv180x"]
CONV = {"tsk_typ": Task.CONV, "opt_chl_quan": 1}
DEPTHWISE = {"tsk_typ": Task.POOL, "tsk_eu_typ": Pool.DEPTHWISE, "opt_chl_quan": 1}
MAP = {"res0_c": 20, "res0_h": 7, "res0_w": 9}  # 4 rounds of 16 pixels in each of 3 slots (10 on two lanes)


def kernel(h: int, w: int) -> dict[str, int]:
    return {"opd1_h": h, "opd1_w": w}


@pytest.mark.parametrize(
    ("fields", "cycles"),
    [
        # 9 taps of 16 channel pairs, one cycle more per round.
        (CONV | MAP | kernel(3, 3) | {"opd0_c": 32, "double_conv": 1}, 41 + 12 * (9 * 16 + 1) + 31),
        (CONV | MAP | kernel(3, 3) | {"opd0_c": 32}, 41 + 12 * (9 * 32 + 1) + 31),
        # A round with records takes at least 16 cycles.
        (CONV | MAP | kernel(1, 1) | {"opd0_c": 8, "double_conv": 1}, 41 + 12 * 16 + 31),
        # Stride 4: 61 pixels are five fetches for three channels, two cycles are lost per tap.
        (CONV | MAP | kernel(3, 3) | {"opd0_c": 3, "conv_op_x_str": 4}, 41 + 12 * (9 * 3 + 9 * 2 + 1) + 31),
        # 32-bit partial sums of a middle part; no records: bias 0 with two operands, shift 4.
        ({"tsk_typ": Task.CONV, "tsk_opd_num": 2, "ps32_md": 3} | MAP | kernel(1, 1) | {"opd0_c": 64}, 41 + 12 * (64 + 4 + 8) + 12),
        ({"tsk_typ": Task.CONV, "tsk_opd_num": 3} | MAP | kernel(1, 1) | {"opd0_c": 64}, 41 + 12 * (64 + 2 + 4) + 12),
        ({"tsk_typ": Task.CONV, "tsk_opd_num": 2, "ps32_md": 2} | MAP | kernel(1, 1) | {"opd0_c": 64}, 41 + 12 * (64 + 4 + 4) + 12),
        # The least of 16 cycles is that of 8-bit results.
        (CONV | MAP | kernel(1, 1) | {"opd0_c": 8, "opt_res0_seg": 0}, 41 + 24 * (8 + 2) + 31),
        # bf16 halves the units: 8 rounds of 8 pixels in 3 slots, single speed.
        ({"tsk_typ": Task.CONV, "tsk_opd_num": 2, "opd_typ": 1} | MAP | kernel(1, 1) | {"opd0_c": 64}, 41 + 24 * (64 + 2) + 12),
        # A start on lane 5 takes a fourth slot.
        (CONV | MAP | kernel(1, 1) | {"opd0_c": 32, "res0_addr": 5 << 15}, 41 + 16 * 33 + 31),
        # Rows of 16: a tap reads 16 + 15 pixels in 16, 17.4 cycles for 9 taps.
        (DEPTHWISE | kernel(3, 3) | {"res0_c": 8, "res0_h": 4, "res0_w": 16}, 4 * (17 + 3) + 31),
        (DEPTHWISE | kernel(1, 1) | {"res0_c": 8, "res0_h": 4, "res0_w": 16}, 4 * (16 + 3) + 31),
        # Max pool of 2x2, stride 2: 31 pixels and 15 more for 16 results.
        ({"tsk_typ": Task.POOL, "conv_op_x_str": 2} | MAP | kernel(2, 2), int(12 * (4 * (31 / 16 + 15 / 16) + 2))),
        # Global average of 7x7 into one pixel.
        ({"tsk_typ": Task.POOL, "tsk_eu_typ": Pool.AVERAGE, "res0_c": 16, "res0_w": 1} | kernel(7, 7), 2 * (49 + 4) + 12),
        ({"tsk_typ": Task.MATMUL, "opt_chl_quan": 1, "res0_n": 3, "res0_c": 10, "res0_w": 16, "opd1_n": 100}, 41 + 3 * 2 * 101 + 31),
        ({"tsk_typ": Task.MATMUL, "opt_res_add": 1, "res0_c": 8, "opd1_n": 100}, 41 + (100 + 2 + 4 + 2) + 12),
        ({"tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": Elementwise.LOOKUP, "opd1_h": 16} | MAP, 12 * 19 + 26 + 12),
    ],
)  # fmt: skip
def test_cycles_by_hand(fields: dict[str, int], cycles: int) -> None:
    assert tiu_cycles(Command.of(Engine.TIU, fields).fields, CHIP) == cycles


@pytest.mark.parametrize(
    ("unit", "fields", "of_16"),
    [
        (Elementwise.MUL, {}, 5.5),
        (Elementwise.MUL, {"opt_res0_seg": 0}, 3.5),
        (Elementwise.MAC, {}, 9),
        (Elementwise.ADD, {"opt_opd0_seg": 0}, 7),
        (Elementwise.ADD, {"opt_opd0_seg": 0, "opt_opd1_const": 1}, 6.5),
        (Elementwise.MAX, {}, 3),
        (Elementwise.COPY, {}, 2),
        (Elementwise.COPY, {"res0_c_str": 40}, 2 * 30 / 16),
    ],
)
def test_elementwise_cycles_by_hand(unit: Elementwise, fields: dict[str, int], of_16: float) -> None:
    made = Command.of(Engine.TIU, {"tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": unit, **MAP, **fields}).fields
    rounds = 3 * math.ceil(63 / (8 if made["opt_res0_seg"] == 0 else 16))
    assert tiu_cycles(made, CHIP) == int(rounds * of_16) + 26 + 12


def test_two_lanes_take_more_rounds() -> None:
    fields = Command.of(Engine.TIU, CONV | MAP | kernel(3, 3) | {"opd0_c": 32, "double_conv": 1}).fields
    assert tiu_cycles(fields, SMALL) == 41 + 40 * 145 + 31
    assert tiu_macs(fields) == 20 * 63 * 9 * 32


def test_operations_that_do_not_exist() -> None:
    for fields in ({"tsk_typ": 7}, {"tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": 13}):
        with pytest.raises(DescriptorError, match="no TIU operation"):
            tiu_cycles(Command.of(Engine.TIU, fields).fields, CHIP)


def transfer(direction: Direction, shape: tuple[int, ...], strides: tuple[int, int, int], address: int, **more: int) -> dict[str, int]:
    """A transfer of (n, c, h, w); the local side is aligned."""
    (n, c, h, w), (ns, cs, hs) = shape, strides
    ddr, local = ("dst", "src") if direction is Direction.STORE else ("src", "dst")
    fields = {"trans_dir": int(direction), "src_n": n, f"{ddr}_base_addr_low": address}
    fields |= {f"{ddr}_n_stride": ns, f"{ddr}_c_stride_low": cs & 0xFFFF, f"{ddr}_c_stride_high": cs >> 16, f"{ddr}_h_stride": hs}
    fields |= {f"{side}_{axis}": value for side in (ddr, local) for axis, value in zip("chw", (c, h, w), strict=True)}
    return Command.of(Engine.TDMA, fields | {f"{local}_h_stride": w} | more).fields


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # 1024 bytes without gaps at a multiple of 64: as many in DDR, 64 beats.
        (transfer(Direction.LOAD, (1, 8, 8, 16), (1024, 128, 16), 0), TdmaCost(1024, 1024, 64, Direction.LOAD)),
        # At an odd multiple of 16 each burst of 256 touches five blocks of 64.
        (transfer(Direction.LOAD, (1, 8, 8, 16), (1024, 128, 16), 16), TdmaCost(1024, 4 * 320, 64, Direction.LOAD)),
        # Cut at the border of 4 KiB: 64 bytes before it, 960 after.
        (transfer(Direction.LOAD, (1, 8, 8, 16), (1024, 128, 16), 4096 - 64), TdmaCost(1024, 1024, 64, Direction.LOAD)),
        # 8 pieces of 8 rows, joined because they have no gaps; a channel of 128 bytes at a pitch of 256.
        (transfer(Direction.LOAD, (1, 8, 8, 16), (2048, 256, 16), 0), TdmaCost(1024, 8 * 128, 64, Direction.LOAD)),
        # Rows of 16 bytes at a pitch of 64: 64 blocks.
        (transfer(Direction.LOAD, (1, 8, 8, 16), (4096, 512, 64), 0), TdmaCost(1024, 64 * 64, 64, Direction.LOAD)),
        # Gaps of up to 16 bytes are read over by loads, not written over by stores.
        (transfer(Direction.LOAD, (1, 1, 8, 16), (256, 256, 32), 0), TdmaCost(128, 256, 8, Direction.LOAD)),
        (transfer(Direction.STORE, (1, 1, 8, 16), (256, 256, 32), 0), TdmaCost(128, 8 * 64, 8, Direction.STORE)),
        (transfer(Direction.LOAD, (1, 8, 8, 16), (1024, 128, 16), 0, spec_func=Special.FILL), TdmaCost(0, 0, 64, Direction.LOAD)),
        (transfer(Direction.LOCAL, (1, 8, 8, 16), (1024, 128, 16), 0), TdmaCost(0, 0, 64, Direction.LOCAL)),
    ],
)
def test_traffic_by_hand(fields: dict[str, int], expected: TdmaCost) -> None:
    assert tdma_bytes(fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Reads begin at a multiple of 16: 68 bytes, two blocks.
        (transfer(Direction.LOAD, (1, 1, 1, 60), (60, 60, 60), 8), TdmaCost(60, 128, 4, Direction.LOAD)),
        # Bytes in a row: 4088 up to the border (15 bursts and 248 bytes), then 912 (3 bursts and 144).
        (transfer(Direction.LOAD, (1, 1, 1, 1), (5000, 1, 1), 8, trans_fmt=1), TdmaCost(5000, 4096 + 960, 313, Direction.LOAD)),
        # A matrix of 8 rows of 100, one piece of 800 bytes: 3 bursts and 32. Beats of one row of 7 blocks.
        (
            transfer(Direction.LOAD, (8, 8, 1, 100), (1, 100, 1), 0, sys_dtype=1, dst_c=7, dst_w=16, dst_h_stride=16),
            TdmaCost(800, 832, 7, Direction.LOAD),
        ),
        # The same transposed, row by row: 100 bytes from 0, 100, ... 700, with their skew in blocks of 64.
        (
            transfer(Direction.LOAD, (8, 8, 1, 100), (1, 100, 1), 0, sys_dtype=1, spec_func=1, dst_c=7, dst_w=16, dst_h_stride=16),
            TdmaCost(800, 4 * (128 + 192), 7, Direction.LOAD),
        ),
        # A matrix stored at a pitch of 128: rows of 7 beats.
        (transfer(Direction.STORE, (8, 8, 1, 100), (1, 128, 1), 0, sys_dtype=1), TdmaCost(800, 8 * 128, 8 * 7, Direction.STORE)),
        # Columns become rows: 4 of 300 bytes in bursts of 128.
        (
            transfer(Direction.STORE, (1, 2, 2, 300), (1200, 600, 300), 0, spec_func=1, transpose_md=3, dst_h_stride=300),
            TdmaCost(1200, 320 + 512 + 512 + 320, 76, Direction.STORE),
        ),
        # Batch and channels change places: 3 pieces of 2 channels.
        (
            transfer(Direction.STORE, (2, 2, 1, 64), (1024, 64, 64), 0, spec_func=1, src_c=3),
            TdmaCost(384, 3 * 128, 16, Direction.STORE),
        ),
        # Three interleaved channels of 4x10 are 120 bytes without gaps.
        (transfer(Direction.LOAD, (1, 3, 4, 10), (120, 1, 30), 0, spec_func=1, transpose_md=1), TdmaCost(120, 128, 9, Direction.LOAD)),
        # bf16 has two bytes: 8 rows of 32 bytes at a pitch of 32.
        (transfer(Direction.STORE, (1, 1, 8, 16), (256, 256, 32), 0, src_fmt=2, dst_fmt=2), TdmaCost(256, 256, 16, Direction.STORE)),
    ],
)
def test_traffic_of_other_layouts_by_hand(fields: dict[str, int], expected: TdmaCost) -> None:
    assert tdma_bytes(fields) == expected


def test_the_serial_estimate_of_other_layouts() -> None:
    columns = transfer(Direction.LOAD, (4, 4, 1, 200), (1, 256, 1), 0, sys_dtype=1, spec_func=1)
    assert tdma_bytes(columns).ddr == 4 * 256
    assert tdma_bytes(columns, serial=True).ddr == 128  # the last tile of 128 bytes holds 72
    row = transfer(Direction.LOAD, (1, 1, 1, 1), (5000, 1, 1), 8, trans_fmt=1)
    assert tdma_bytes(row, serial=True).beats == 1


def test_the_serial_estimate_counts_the_last_piece_only() -> None:
    rows = transfer(Direction.LOAD, (1, 8, 8, 16), (4096, 512, 64), 0)
    assert tdma_bytes(rows, serial=True).ddr == 64
    local = transfer(Direction.LOCAL, (1, 8, 8, 16), (1024, 128, 16), 0)
    assert tdma_bytes(local, serial=True) == TdmaCost(0, 1024, 64, Direction.LOCAL)
    look_up = Command.of(Engine.TIU, {"tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": Elementwise.LOOKUP, "opd1_h": 16, **MAP})
    # 266 cycles of 2 ns; 64 bytes take 8 ns of 7544 MB/s, 64 beats of 2 ns / 16 as long; 1024 bytes 135 ns.
    assert serial_us([look_up, Command(Engine.TDMA, rows), Command(Engine.TDMA, local)], CHIP) == (532 + 8 + 135) / 1000


@given(st.integers(0, 4095), st.lists(st.tuples(st.integers(2, 40), st.integers(0, 4095)), min_size=1, max_size=3), st.integers(1, 9000))
@settings(deadline=None)
def test_counting_pieces_is_listing_them(base: int, pieces: list[tuple[int, int]], size: int) -> None:
    starts = [base]
    for count, stride in pieces:
        starts = [start + i * stride for start in starts for i in range(count)]
    listed = sum(cost._traffic(start % 4096, (), size, 256) for start in starts)
    assert cost._traffic(base, tuple(pieces), size, 256) == listed
    most, cost._ONE_TRANSFER = cost._ONE_TRANSFER, 0
    try:
        assert cost._traffic.__wrapped__(base, tuple(pieces), size, 256) == listed
    finally:
        cost._ONE_TRANSFER = most


def test_transfers_of_astronomical_size_take_no_time_to_count() -> None:
    fields = transfer(Direction.LOAD, (65535, 65535, 65535, 1), (3, 4099, 77), 5)
    assert tdma_bytes(fields).useful == 65535**3 and tdma_bytes(fields).ddr >= 64 * 65535**3


@given(st.one_of(any_commands(), operations()))
def test_every_command_costs_something_or_is_no_operation(command: Command) -> None:
    try:
        assert cost.time_ns(command, CHIP) >= 0 and serial_us([command], CHIP) >= 0
    except DescriptorError:
        assert command.engine == Engine.TIU


def look_up(number: int, after: int) -> Command:
    """A command of 1 µs."""
    fields = {"tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": Elementwise.LOOKUP, "opd1_h": 20, "res0_c": 8, "res0_w": 16 * 21 - 12}
    made = Command.of(Engine.TIU, {**fields, "cmd_id_tpu": number, "cmd_id_gdma": after})
    assert cost.time_ns(made, CHIP) == 1042
    return made


def load(number: int, after: int) -> Command:
    """A command of 1024 bytes."""
    fields = transfer(Direction.LOAD, (1, 8, 8, 16), (1024, 128, 16), 0)
    return Command(Engine.TDMA, {**fields, "cmd_id": number, "wait_id_tpu": after})


def test_engines_overlap_under_their_ids() -> None:
    stream = [load(1, 0), look_up(1, 1), load(2, 0), look_up(2, 2), load(3, 2)]
    total = overlap(stream, CHIP, mb_per_s=1024)
    assert total == (2.084, 3.0, 1 + 1.042 + 1.042 + 1)  # a load is 1 µs; the second one hides behind the first look-up
    assert cost.schedule(stream, [1, 2, 3, 4, 5]) == [(0, 1), (1, 3), (1, 4), (4, 8), (8, 13)]
    assert overlap(stream, CHIP, mb_per_s=512).tdma_us == 6.0
    assert overlap([], CHIP) == (0, 0, 0)


@pytest.mark.parametrize("stream", [[look_up(1, 1)], [look_up(1, 1), load(1, 1)]], ids=["never made", "mutual"])
def test_dead_locks_are_told(stream: list[Command]) -> None:
    with pytest.raises(DescriptorError, match="dead-lock"):
        overlap(stream, CHIP)


def test_ids_start_again_after_the_last_one() -> None:
    loads = [load(1 + i % 65535, 0) for i in range(65540)]
    starts = [start for start, _ in cost.schedule([*loads, look_up(1, 3)], [1.0] * 65541)]
    assert starts[-1] == 65538  # id 3 is the 65538th load


@given(st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_overlap_is_between_the_busier_engine_and_the_sum(rng: random.Random) -> None:
    done, stream = {Engine.TIU: 0, Engine.TDMA: 0}, []
    for _ in range(rng.randrange(1, 40)):
        engine, other = rng.choice([(Engine.TIU, Engine.TDMA), (Engine.TDMA, Engine.TIU)])
        done[engine] += 1
        stream.append((look_up if engine is Engine.TIU else load)(done[engine], rng.choice([0, done[other]])))
    found = overlap(stream, CHIP)
    assert max(found.tiu_us, found.tdma_us) - 1e-9 <= found.total_us <= found.tiu_us + found.tdma_us + 1e-9
