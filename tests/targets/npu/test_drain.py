# SPDX-License-Identifier: Apache-2.0
"""The drain's scales (tensor, channel, row, both) and slopes against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from gadl.targets.npu import _sim

from .programs import simulate

M, N, K = 6, 5, 24
RNG = np.random.default_rng(11)
LOW, HIGH = -(2**31), 2**31 - 1
#: Where operands and scales lie, in DRAM and in SRAM alike.
B, CHANNEL_MULTIPLIERS, CHANNEL_SHIFTS, ROW_MULTIPLIERS, ROW_SHIFTS = 1024, 2048, 2112, 2176, 2240


def rounded(value: Fraction, rounding: str) -> int:
    """To an integer, by the meaning of the name."""
    floor, rest = math.floor(value), value - math.floor(value)
    half = Fraction(1, 2)
    match rounding:
        case "UP":
            return floor + (rest >= half)
        case "EVEN":
            return round(value)
        case "AWAY":
            return floor + (rest >= half if value >= 0 else rest > half)
        case "FLOOR":
            return floor
        case _:
            return math.trunc(value)


def together(row: tuple[int, int], channel: tuple[int, int], bits: int) -> tuple[int, int]:
    """The normalised product of two scales."""
    product = row[0] * channel[0]
    for dropped in (bits, bits - 1):
        multiplier = rounded(Fraction(product, 2**dropped), "UP")
        if multiplier >= 2 ** (bits - 1):
            break
    return multiplier, row[1] + channel[1] - dropped


def scales(count: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of `bits` bits and shifts of the same size, as tables."""
    return RNG.integers(2 ** (bits - 1), 2**bits, count).astype(np.int32), RNG.integers(bits + 1, bits + 6, count).astype(np.uint8)


def drain(fields: str, a: np.ndarray, b: np.ndarray, tables: dict[int, np.ndarray]) -> np.ndarray:
    """a[M, K] times b[N, K], drained with `fields` to i32."""
    memory = np.zeros(4096, np.uint8)
    for at, data in ({0: a, B: b} | tables).items():
        memory[at : at + data.nbytes] = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    out = np.zeros((M, N), np.int32)
    kind = "I16" if a.dtype == np.int16 else "I8"
    simulate(
        f"""
        LD@LD0 src_region=1 row_bytes=4096 post(0,1)
        MMA_MATMUL@MMA a_addr=0 b_addr={B} m={M} n={N} k={K} a_stride={K * a.itemsize} b_stride={K} x_type={kind} wait(0,1)
        EPI@MMA oh=1 ow={M} oc={N} x_type={kind} out_addr=8192 out_pix_stride={N * 4} out_type=I32 lo={LOW} hi={HIGH} {fields} post(1,1)
        ST@ST src=8192 dst_region=2 row_bytes={out.nbytes} wait(1,1)
        END@CTL
        """,
        {1: memory, 2: out.reshape(-1).view(np.uint8)},
    )
    return out


def operands(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, (M, K)).astype(dtype), RNG.integers(-128, 128, (N, K)).astype(np.int8)


@pytest.mark.parametrize("rounding", ["UP", "EVEN", "AWAY", "FLOOR", "ZERO"])
@pytest.mark.parametrize(("dtype", "bits"), [(np.int8, 31), (np.int16, 15)])
@pytest.mark.parametrize("per", ["tensor", "channel", "row", "both"])
def test_scale(per: str, dtype: type, bits: int, rounding: str) -> None:
    a, b = operands(dtype)
    channel, row = scales(N, bits), scales(M, bits)
    one = (int(channel[0][0]), int(channel[1][0]))
    fields = f"requant=1 rounding={rounding} zp=7"
    if per == "tensor":
        fields += f" multiplier={one[0]} shift={one[1]}"
    if per in ("channel", "both"):
        fields += f" per_channel=1 multiplier_addr={CHANNEL_MULTIPLIERS} shift_addr={CHANNEL_SHIFTS}"
    if per in ("row", "both"):
        fields += f" per_row=1 row_multiplier_addr={ROW_MULTIPLIERS} row_shift_addr={ROW_SHIFTS}"
    found = drain(fields, a, b, {CHANNEL_MULTIPLIERS: channel[0], CHANNEL_SHIFTS: channel[1], ROW_MULTIPLIERS: row[0], ROW_SHIFTS: row[1]})
    acc = a.astype(int) @ b.astype(int).T
    for i in range(M):
        for j in range(N):
            by_row, by_channel = (int(row[0][i]), int(row[1][i])), (int(channel[0][j]), int(channel[1][j]))
            q, s = {"tensor": one, "channel": by_channel, "row": by_row, "both": together(by_row, by_channel, bits)}[per]
            assert found[i, j] == 7 + rounded(Fraction(int(acc[i, j]) * q, 2**s), rounding)


def test_float_scales_of_row_and_channel_are_multiplied_in_f32() -> None:
    a, b = operands(np.int8)
    row, channel = RNG.random(M).astype(np.float32), RNG.random(N).astype(np.float32)
    fields = (
        f"requant=1 rounding=F32 per_channel=1 multiplier_addr={CHANNEL_MULTIPLIERS} shift_addr={CHANNEL_SHIFTS} "
        f"per_row=1 row_multiplier_addr={ROW_MULTIPLIERS} row_shift_addr={ROW_SHIFTS}"
    )
    found = drain(fields, a, b, {CHANNEL_MULTIPLIERS: channel, ROW_MULTIPLIERS: row})
    acc = (a.astype(int) @ b.astype(int).T).astype(np.float32)
    np.testing.assert_array_equal(found, np.rint(acc * (row[:, None] * channel)).astype(int))


def test_leaky_results_take_the_slope() -> None:
    a, b = operands(np.int8)
    found = drain(f"requant=1 multiplier={2**30} shift=31 activation=LEAKY slope={3 * 2**28} slope_shift=32 zp=5", a, b, {})
    acc = a.astype(int) @ b.astype(int).T
    first = [rounded(Fraction(int(v), 2), "UP") for v in acc.reshape(-1)]
    expected = [5 + (v if v >= 0 else rounded(v * Fraction(3, 16), "UP")) for v in first]
    assert min(first) < 0
    np.testing.assert_array_equal(found.reshape(-1), expected)


def test_shifts_that_leave_the_range_together_stop_the_simulator() -> None:
    a, b = operands(np.int8)
    tables = {CHANNEL_MULTIPLIERS: np.full(N, 2**30, np.int32), CHANNEL_SHIFTS: np.full(N, 2, np.uint8),
              ROW_MULTIPLIERS: np.full(M, 2**30, np.int32), ROW_SHIFTS: np.full(M, 2, np.uint8)}  # fmt: skip
    fields = (
        f"requant=1 per_channel=1 multiplier_addr={CHANNEL_MULTIPLIERS} shift_addr={CHANNEL_SHIFTS} "
        f"per_row=1 row_multiplier_addr={ROW_MULTIPLIERS} row_shift_addr={ROW_SHIFTS}"
    )
    with pytest.raises(_sim.SimError, match="leave 1..62"):
        drain(fields, a, b, tables)


def test_tables_of_rows_are_read_behind_a_wait() -> None:
    text = f"""
    LD@LD0 src_region=1 row_bytes=2048 post(0,1)
    LD@LD1 src_region=1 dst={ROW_MULTIPLIERS} row_bytes=128 post(1,1)
    MMA_MATMUL@MMA a_addr=0 b_addr={B} m={M} n={N} k={K} a_stride={K} b_stride={K} wait(0,1)
    EPI@MMA oh=1 ow={M} oc={N} out_addr=8192 out_pix_stride={N * 4} out_type=I32 lo={LOW} hi={HIGH} requant=1 per_row=1 \
row_multiplier_addr={ROW_MULTIPLIERS} row_shift_addr={ROW_SHIFTS}
    END@CTL
    """
    with pytest.raises(_sim.SimError, match="race"):
        simulate(text, {1: np.zeros(4096, np.uint8)})
    simulate(text.replace("wait(0,1)", "wait(0,1) wait(1,1)"), {1: np.zeros(4096, np.uint8)})
