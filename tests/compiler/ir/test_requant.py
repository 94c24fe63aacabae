# SPDX-License-Identifier: Apache-2.0
"""Requantisation against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_reference import rescale

from gadl.compiler.ir.requant import apply_requant, make_requant, quantize_multiplier
from gadl.compiler.ir.types import Requant, Rounding

INTEGER_ROUNDINGS = [r for r in Rounding if r is not Rounding.F32]


def one(multiplier: int, shift: int, rounding: Rounding) -> Requant:
    return Requant(np.array([multiplier], np.int32), np.array([shift], np.int8), rounding)


@pytest.mark.parametrize("rounding", Rounding, ids=lambda r: r.value)
@settings(deadline=None, derandomize=True)
@given(st.integers(-(2**31), 2**31), st.integers(2**30, 2**31 - 1), st.integers(31, 62))
def test_any_rounding(rounding: Rounding, value: int, multiplier: int, shift: int) -> None:
    if rounding is Rounding.F32:
        multiplier = int(np.float32(2.0 ** (31 - shift)).view(np.int32))
    found = int(apply_requant(np.array([value]), one(multiplier, shift, rounding))[0])
    assert found == rescale(value, multiplier, shift, rounding)


@pytest.mark.parametrize("rounding", INTEGER_ROUNDINGS, ids=lambda r: r.value)
def test_ties(rounding: Rounding) -> None:
    """Halves and their neighbours, both signs: exactly where roundings differ."""
    values = np.arange(-40, 41)
    for shift in (31, 32, 33, 34):
        found = apply_requant(values, one(1 << 30, shift, rounding))
        assert found.tolist() == [rescale(int(v), 1 << 30, shift, rounding) for v in values]


def test_halves_by_hand() -> None:
    """-1.5, -0.5, 0.5 and 1.5: the table of `docs/numerics.md` written out."""
    values = np.array([-3, -1, 1, 3])
    wanted = {
        Rounding.UP: [-1, 0, 1, 2],
        Rounding.EVEN: [-2, 0, 0, 2],
        Rounding.AWAY: [-2, -1, 1, 2],
        Rounding.FLOOR: [-2, -1, 0, 1],
        Rounding.ZERO: [-1, 0, 0, 1],
    }
    for rounding, result in wanted.items():
        assert apply_requant(values, one(1 << 30, 31, rounding)).tolist() == result, rounding


@settings(deadline=None, derandomize=True)
@given(st.integers(-(2**46), 2**46), st.integers(2**14, 2**15 - 1), st.integers(1, 46))
def test_wide_accumulators(value: int, multiplier: int, shift: int) -> None:
    found = int(apply_requant(np.array([value]), one(multiplier, shift, Rounding.UP))[0])
    assert found == rescale(value, multiplier, shift, Rounding.UP)


def test_one_pair_per_channel() -> None:
    requant = make_requant(np.array([0.5, 0.25, 1e-9]))
    values = np.arange(24).reshape(2, 3, 4) * 1000
    found = apply_requant(values, requant, axis=1)
    for n, c, i in np.ndindex(values.shape):
        assert found[n, c, i] == rescale(int(values[n, c, i]), int(requant.multiplier[c]), int(requant.shift[c]), Rounding.UP)
    with pytest.raises(ValueError, match="axis"):
        apply_requant(values, requant)


@settings(deadline=None, derandomize=True)
@given(st.floats(2.0**-31, 2.0**29), st.sampled_from([15, 31]))
def test_multiplier_is_the_nearest(ratio: float, bits: int) -> None:
    multiplier, shift = quantize_multiplier(ratio, bits) if ratio < 2.0 ** (bits - 1) else (1 << (bits - 1), 1)
    assert 1 << (bits - 1) <= multiplier < 1 << bits and 1 <= shift <= 62
    if ratio < 2.0 ** (bits - 1):
        error = abs(Fraction(multiplier, 1 << shift) - Fraction(ratio))
        assert error <= Fraction(1, 2 << shift), "further than half a unit in the last place"


def test_multipliers_at_the_edges() -> None:
    assert quantize_multiplier(1.0) == (1 << 30, 30)
    assert quantize_multiplier(math.nextafter(1.0, 0)) == (1 << 30, 30), "rounds up to a power of two"
    assert quantize_multiplier(0.0) == (0, 1)
    assert quantize_multiplier(2.0**-40) == (0, 1), "vanishes"
    assert quantize_multiplier(2.0**29) == (1 << 30, 1)
    for bad in (2.0**30, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError):
            quantize_multiplier(bad)


def test_gemmlowp_rounding_takes_ratios_below_one_only() -> None:
    make_requant(0.999, Rounding.TFL2)
    with pytest.raises(ValueError, match="tfl2"):
        make_requant(2.0, Rounding.TFL2)


def test_real_scale() -> None:
    requant = make_requant(0.1, Rounding.F32)
    assert requant.multiplier.view(np.float32)[0] == np.float32(0.1)
    assert apply_requant(np.array([5, 15, 25, -5]), requant).tolist() == [
        round(float(np.float32(v) * np.float32(0.1))) for v in (5, 15, 25, -5)
    ]
