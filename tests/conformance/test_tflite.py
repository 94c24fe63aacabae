# SPDX-License-Identifier: Apache-2.0
"""TFLite's integer arithmetic, written from its definition in C, against the compiled programs.

`tfl2` is gemmlowp's double rounding, `up` is what TFLite computes when built with single rounding.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.requant import make_requant, quantize_multiplier
from gadl.compiler.ir.types import Array, DType, Requant, Rounding

from .device import Quantised, run_both
from .samples import ints

I32 = np.iinfo(np.int32)


def saturating_rounding_doubling_high_mul(a: Array, b: Array) -> Array:
    product = a.astype(np.int64) * b.astype(np.int64)
    total = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # C divides towards zero.
    high = np.where(total >= 0, total >> 31, -(-total >> 31))
    return np.where((a == I32.min) & (b == I32.min), I32.max, high)


def rounding_divide_by_power_of_two(x: Array, exponent: int) -> Array:
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


def multiply_by_quantized_multiplier(x: Array, multiplier: int, shift: int, rounding: Rounding) -> Array:
    """`shift` as TFLite counts it: 2^shift times a multiplier in [0.5, 1)."""
    x = x.astype(np.int64)
    if rounding is Rounding.UP:
        total = 31 - shift
        return (x * multiplier + (1 << (total - 1))) >> total
    left = np.int64(1) << max(shift, 0)
    return rounding_divide_by_power_of_two(saturating_rounding_doubling_high_mul(x * left, np.asarray(multiplier)), max(-shift, 0))


def quantize_multiplier_of(ratio: float) -> tuple[int, int]:
    """Multiplier and shift as TFLite prepares them."""
    if ratio == 0:
        return 0, 0
    mantissa, shift = math.frexp(ratio)
    fixed = math.floor(mantissa * (1 << 31) + 0.5)
    if fixed == 1 << 31:
        fixed, shift = fixed // 2, shift + 1
    return (0, 0) if shift < -31 else (fixed, shift)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(2.0**-40, 2.0**20))
def test_multipliers(ratio: float) -> None:
    multiplier, shift = quantize_multiplier(ratio)
    wanted, exponent = quantize_multiplier_of(ratio)
    assert multiplier == wanted
    assert multiplier == 0 or shift == 31 - exponent


VALUES = st.lists(st.integers(I32.min, I32.max), min_size=1, max_size=40)


@pytest.mark.parametrize("target", [DType.I8, DType.I16, DType.I32], ids=lambda t: t.value)
@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.TFL2], ids=lambda r: r.value)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(VALUES, st.integers(1 << 30, I32.max), st.integers(-31, 0), st.integers(-128, 127))
def test_rescaling(rounding: Rounding, target: DType, values: list[int], multiplier: int, shift: int, zero: int) -> None:
    """All of int32, all multipliers and shifts; numbers around each half are added. int8 and int16 run on the device."""
    halves = [round((k + 0.5) * 2.0 ** (31 - shift) / multiplier) + d for k in (-2, -1, 0, 1, 100) for d in (-1, 0, 1)]
    x = np.array([v for v in [*values, I32.min, I32.max, 0, *halves] if I32.min <= v <= I32.max], np.int32)
    zero = zero if target is DType.I8 else 0
    model = Quantised()
    requant = Requant(np.array([multiplier], np.int32), np.array([31 - shift], np.int8), rounding)
    interpreted, compiled, device = run_both(model, model("requantize", model.input(x), dtype=target, zero=zero, requant=requant))
    assert bool(device) == (target is not DType.I32)
    wanted = np.clip(multiply_by_quantized_multiplier(x, multiplier, shift, rounding) + zero, *target.range)
    np.testing.assert_array_equal(compiled, wanted)
    np.testing.assert_array_equal(interpreted, wanted)


@pytest.mark.parametrize("op", ["add", "sub"])
def test_sums(rng: np.random.Generator, op: str) -> None:
    """int8 ADD and SUB with single rounding: both operands shifted left by 20 and scaled by s / (2 max s), the sum scaled back.

    Ours has the shift by 20 in the ratio, which says the same.
    """
    for _ in range(12):
        a, b = ints(rng, 3, 50), ints(rng, 3, 50)
        (za, zb, zy), (sa, sb, sy) = rng.integers(-128, 128, 3).tolist(), (2.0 ** rng.uniform(-6, 0, 3)).tolist()
        twice = 2 * max(sa, sb)
        model = Quantised()
        requant = (*(make_requant(s / twice * (1 << 20)) for s in (sa, sb)), make_requant(twice / (sy * (1 << 20))))
        result = model(op, model.input(a, za), model.input(b, zb), zero=zy, requant=requant)
        terms = [
            multiply_by_quantized_multiplier((x.astype(np.int64) - z) << 20, *quantize_multiplier_of(s / twice), Rounding.UP)
            for x, z, s in ((a, za, sa), (b, zb, sb))
        ]
        total = terms[0] + terms[1] if op == "add" else terms[0] - terms[1]
        scaled = multiply_by_quantized_multiplier(total, *quantize_multiplier_of(twice / ((1 << 20) * sy)), Rounding.UP)
        interpreted, compiled, _ = run_both(model, result)
        np.testing.assert_array_equal(compiled, np.clip(scaled + zy, -128, 127))
        np.testing.assert_array_equal(interpreted, compiled)


@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.TFL2], ids=lambda r: r.value)
def test_products(rng: np.random.Generator, rounding: Rounding) -> None:
    """int8 FULLY_CONNECTED with a scale per channel, in both builds of TFLite."""
    for _ in range(12):
        x, w = ints(rng, 5, 40), ints(rng, 30, 40, low=-127)
        bias = rng.integers(-(2**20), 2**20, 30).astype(np.int32)
        zx, zy = rng.integers(-128, 128, 2).tolist()
        ratios = 2.0 ** rng.uniform(-14, -6, 30)
        model = Quantised()
        operands = model.input(x, zx), model.const(w), model.const(bias)
        result = model("linear", *operands, zero=zy, requant=make_requant(ratios, rounding))
        sums = (x.astype(np.int64) - zx) @ w.T.astype(np.int64) + bias
        columns = [multiply_by_quantized_multiplier(s, *quantize_multiplier_of(r), rounding) for s, r in zip(sums.T, ratios)]
        interpreted, compiled, device = run_both(model, result)
        assert device == {"linear"}
        np.testing.assert_array_equal(compiled, np.clip(np.array(columns).T + zy, -128, 127))
        np.testing.assert_array_equal(interpreted, compiled)


def test_interpolated_table(rng: np.random.Generator) -> None:
    """int16 look-up: `base + ((slope · fraction + 64) >> 7)`."""
    x = np.concatenate([ints(rng, 2000, dtype=np.int16), np.array([-32768, 32767], np.int16)])
    table = ints(rng, 513, dtype=np.int16)
    model = Quantised()
    interpreted, compiled, device = run_both(model, model("lut", model.input(x), dtype=DType.I16, table=table))
    assert device == {"lut"}
    index = (x.astype(np.int64) + 32768) >> 7
    base, following = table[index].astype(np.int64), table[index + 1].astype(np.int64)
    wanted = base + (((following - base) * (x.astype(np.int64) & 127) + 64) >> 7)
    np.testing.assert_array_equal(compiled, wanted)
    np.testing.assert_array_equal(interpreted, wanted)
