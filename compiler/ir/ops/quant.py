# SPDX-License-Identifier: Apache-2.0
"""Conversions between real and integer tensors, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, OpError, Trait, register
from ..types import Array, DType, QuantParams, TensorType
from .common import REQUANT, array, centred, finish_integer, given, requantised


def _along_axis(quant: QuantParams, rank: int) -> Array:
    scales = quant.scales.astype(np.float32)
    if quant.axis is None:
        return scales[0]
    shape = [1] * rank
    shape[quant.axis] = -1
    return scales.reshape(shape)


def quantize_array(x: Array, quant: QuantParams, dtype: DType) -> Array:
    """`clamp(zero point + rne(x / scale))`, division in f32; NaN becomes the zero point."""
    low, high = dtype.range
    scaled = np.rint(x.astype(np.float32) / _along_axis(quant, x.ndim)).astype(np.float64)
    total = np.where(np.isnan(scaled), 0, scaled) + quant.zero_point
    return np.clip(total, low, high).astype(dtype.numpy)


def dequantize_array(q: Array, quant: QuantParams) -> Array:
    """`f32(q - zero point) * scale`."""
    return (q.astype(np.int64) - quant.zero_point).astype(np.float32) * _along_axis(quant, q.ndim)


def interpolate(table: Array, x: Array) -> Array:
    """Values of 513 entries at i16 positions, between entries 128 apart; i64."""
    index = x + 32768
    base, fraction = table[index >> 7].astype(np.int64), index & 127
    following = table[(index >> 7) + 1].astype(np.int64)
    return np.asarray((base * 128 + (following - base) * fraction + 64) >> 7)


@register
class Quantize(OpDef):
    """Real to integer: `clamp(zero point + round-half-even(x / scale))` with the result type's scale and zero point."""

    name = "quantize"
    onnx = ("QuantizeLinear",)
    traits = Trait.ELEMENTWISE

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        if not x.dtype.is_float:
            raise OpError(f"only real tensors are quantised, not {x.dtype.value}")
        return [TensorType(DType.I8, x.shape)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        quant = op.result.quant
        if quant is None:
            raise OpError("the result of 'quantize' needs a scale")
        return [quantize_array(array(inputs, 0), quant, op.result.dtype)]


@register
class Dequantize(OpDef):
    """Integer to real: `f32(q - zero point) * scale` with the operand type's scale and zero point."""

    name = "dequantize"
    onnx = ("DequantizeLinear",)
    traits = Trait.ELEMENTWISE

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        if x.quant is None:
            raise OpError("the operand of 'dequantize' needs a scale")
        return [TensorType(DType.F32, x.shape)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        quant = op.inputs[0].quant
        if quant is None:
            raise OpError("the operand of 'dequantize' needs a scale")
        return [dequantize_array(array(inputs, 0), quant).astype(op.result.dtype.numpy)]


@register
class Requantize(OpDef):
    """Integer to integer of another scale: `clamp(zy + R(x - zx))`."""

    name = "requantize"
    attrs = (REQUANT,)
    traits = Trait.ELEMENTWISE

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        if not x.dtype.is_integer or "requant" not in attrs:
            raise OpError("'requantize' takes integers and needs 'requant'")
        return [TensorType(x.dtype, x.shape)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [finish_integer(op, requantised(op, centred(op, inputs, 0), None))]


@register
class Lut(OpDef):
    """Any function of one integer, as a table.

    i8: 256 entries, `table[x + 128]`, i8 or i16. i16: 513 entries of i16, linear interpolation between entries 128 apart
    (TOSA 1.0 TABLE), result i16 of `(base * 128 + (next - base) * fraction + 64) >> 7`, rounded half up.
    """

    name = "lut"
    attrs = (Attr("table", AttrKind.TENSOR),)
    traits = Trait.ELEMENTWISE | Trait.UNARY

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x, table = given(types, 0), attrs["table"]
        wanted = {DType.I8: (256,), DType.I16: (513,)}.get(x.dtype)
        if wanted is None or table.shape != wanted:
            raise OpError(f"a table of shape {table.shape} does not fit {x.dtype.value}")
        return [TensorType(DType.of(table.dtype), x.shape)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x, table = array(inputs, 0).astype(np.int64), op.attrs["table"]
        if len(table) == 256:
            return [table[x + 128]]
        return [interpolate(table, x).astype(table.dtype)]
