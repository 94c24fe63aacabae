# SPDX-License-Identifier: Apache-2.0
"""Scales and zero points from ranges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadl.compiler.ir.types import DType
from gadl.passes.quant.choose_params import params_of_range
from gadl.passes.quant.observers import Range
from gadl.passes.quant.specs import QuantSpec
from gadl.passes.quant.weights import params_of_weights

AFFINE = QuantSpec(DType.I8)
SYMMETRIC = QuantSpec(DType.I16, symmetric=True)


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0, 255, -128), (-255, 0, 127), (-128, 127, 0), (-1, 254, -127), (-51, 204, -77)]
)
def test_affine_ranges_of_255_steps_have_scale_one(low: float, high: float, zero: int) -> None:
    params = params_of_range(Range.of(low, high), AFFINE)
    assert params.scale == (1.0,)
    assert params.zero_point == zero


@given(st.floats(-1e4, 0), st.floats(0, 1e4))
def test_affine_parameters_cover_the_range(low: float, high: float) -> None:
    if high - low < 1e-6:
        return
    params = params_of_range(Range.of(low, high), AFFINE)
    (scale,), zero = params.scale, params.zero_point
    assert -128 <= zero <= 127
    # Both ends are within half a step of the integers' reach (the zero point is rounded).
    assert scale * (-128 - zero) <= low + 0.501 * scale
    assert scale * (127 - zero) >= high - 0.501 * scale
    assert float(np.float32(scale)) == scale


def test_symmetric_parameters() -> None:
    params = params_of_range(Range.of(-2.0, 1.0), SYMMETRIC)
    assert params.zero_point == 0
    assert params.scale[0] == pytest.approx(2 / 32767, rel=1e-6)


def test_constant_zero_has_a_scale() -> None:
    assert params_of_range(Range.of(0, 0), AFFINE).scale[0] > 0


def test_weights_have_one_scale_per_channel_and_a_floor() -> None:
    weights = np.float32([[1, -2], [0, 0], [0.5, 0.25]])
    params = params_of_weights(weights, 0, 127, np.array([0, 0.125, 0]))
    assert params.axis == 0 and params.zero_point == 0
    np.testing.assert_allclose(params.scale, [2 / 127, 0.125, 0.5 / 127], rtol=1e-6)
