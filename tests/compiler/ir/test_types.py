# SPDX-License-Identifier: Apache-2.0
"""Types: sizes, spelling, and values that cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gadl.compiler.ir.types import DType, Layout, QuantParams, Requant, Rounding, TensorType


def test_every_element_type_maps_to_numpy_and_back() -> None:
    for dtype in DType:
        assert DType.of(dtype.numpy) is dtype
        assert dtype.size_bytes == np.zeros(1, dtype.numpy).nbytes
    assert [d.value for d in DType if d.is_float] == ["f32", "f16", "bf16", "f64"]
    assert not DType.BOOL.is_integer and DType.U8.range == (0, 255) and DType.I16.range == (-32768, 32767)
    with pytest.raises(KeyError):
        DType.of(np.complex64)


def test_spelling() -> None:
    full = TensorType(DType.I8, (1, "n", 2), QuantParams((0.1, 0.25), -3, 2), Layout.CHANNELS_LAST)
    assert str(full) == "i8[1,n,2]<s=[0.1,0.25],z=-3,axis=2>@channels_last"
    assert str(TensorType(DType.F32, ())) == "f32[]"


def test_sizes() -> None:
    assert TensorType(DType.F16, (2, 3)).size_bytes == 12 and TensorType(DType.F16, ()).element_count == 1
    symbolic = TensorType(DType.F16, (2, "n"))
    assert not symbolic.is_static
    with pytest.raises(ValueError, match="symbolic"):
        _ = symbolic.element_count


def test_layouts_order_the_axes_in_memory() -> None:
    assert Layout.CHANNELS_LAST.permutation(4) == (0, 2, 3, 1)
    assert Layout.CHANNELS_LAST.permutation(2) == (0, 1) and Layout.ROW_MAJOR.permutation(3) == (0, 1, 2)


@pytest.mark.parametrize("scale", [(), (0.0,), (-1.0,), (math.inf,), (math.nan,), (1.0, 2.0)])
def test_impossible_scales(scale: tuple[float, ...]) -> None:
    with pytest.raises(ValueError):
        QuantParams(scale)


def test_requantisations_compare_by_value() -> None:
    def make(multiplier: int, rounding: Rounding = Rounding.UP) -> Requant:
        return Requant(np.array([multiplier], np.int32), np.array([31], np.int8), rounding)

    assert make(5) == make(5) and hash(make(5)) == hash(make(5))
    assert make(5) != make(6) and make(5) != make(5, Rounding.EVEN) and make(5) != 5
    with pytest.raises(ValueError, match="one length"):
        Requant(np.zeros(2, np.int32), np.zeros(1, np.int8))
