# SPDX-License-Identifier: Apache-2.0
"""Normalisation and softmax. Real tensors: statistics in f64. Integers: `integer_norm`, with numbers in the attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, Operand, OpError, register
from ..requant import apply_requant
from ..types import Array, TensorType
from .common import REQUANT, array, axis_of, broadcast, centred, finish_integer, given, requant_of
from .integer_norm import centred_rows, normalised_rows, scaled_rows, softmax_integers, variances

#: The integer form over the last axis: requantisation of each step, the integer added to the variance, bits behind a point.
REQUANTS = Attr("requant", AttrKind.REQUANTS, None)
OFFSET, FRACTION = Attr("offset", AttrKind.INT, None), Attr("fraction", AttrKind.INT, None)
EPSILON = Attr("epsilon", AttrKind.FLOAT, 1e-5)
AXIS = Attr("axis", AttrKind.INT, -1)


class SameType(OpDef):
    """Base of ops whose result has the type of operand 0."""

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        if "axis" in attrs:
            axis_of(attrs["axis"], x.rank)
        return [TensorType(x.dtype, x.shape)]


class Normalization(SameType):
    """Base of normalisations: the vectors behind operand 0 hold one number per channel (axis 1), or per element from `axis` on."""

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        (result,) = super().infer(types, attrs)
        x = given(types, 0)
        if "axis" not in attrs and x.rank < 2:
            raise OpError(f"{x.shape} has no axis of channels")
        for vector in filter(None, types[1:]):
            wanted = x.static_shape[axis_of(attrs["axis"], x.rank) :] if "axis" in attrs else (x.static_shape[1],)
            fits = vector.shape == wanted or ("axis" in attrs and broadcast(vector.static_shape, wanted) == wanted)
            if not fits:
                raise OpError(f"a vector of shape {vector.shape} does not fit {wanted}")
        return [result]


def _per_channel(vector: Array, rank: int) -> Array:
    return vector.astype(np.float64).reshape(-1, *(1,) * (rank - 2))


def _affine(x: Array, inputs: Sequence[Array | None], shape: tuple[int, ...] | None = None) -> Array:
    """`x * scale + bias` for the optional operands 1 and 2."""
    for index, function in ((1, np.multiply), (2, np.add)):
        value = inputs[index] if index < len(inputs) else None
        if value is not None:
            x = function(x, value.astype(np.float64).reshape(shape or value.shape))
    return x


@register
class BatchNorm(Normalization):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, per channel (axis 1), with given statistics."""

    name = "batch_norm"
    operands = (Operand("x"), Operand("scale"), Operand("bias"), Operand("mean"), Operand("var"))
    attrs = (EPSILON,)
    onnx = ("BatchNormalization",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        scale, bias, mean, var = (_per_channel(array(inputs, i), x.ndim) for i in range(1, 5))
        factor = scale / np.sqrt(var + op.attrs["epsilon"])
        return [(x * factor + (bias - mean * factor)).astype(x.dtype)]


def _normalise(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axes, keepdims=True) + epsilon)


def _integer_rows(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """Normalisation of integers over the last axis; `requant` follows the steps."""
    x, steps = centred(op, inputs, 0), list(op.attrs["requant"])
    if op.name == "layer_norm":
        mean, *parts = (steps.pop(0) for _ in range(4))
        squares, x = variances(x, *parts), centred_rows(x, op.attrs["fraction"], mean)
    else:
        squares = apply_requant(np.square(x).sum(-1, keepdims=True), steps.pop(0))
    total = normalised_rows(x, squares, op.attrs["offset"], steps.pop(0))
    scale, bias = (None if v is None else v.astype(np.int64) for v in (*inputs[1:], None, None)[:2])
    return [finish_integer(op, total if scale is None else scaled_rows(total, scale, bias, tuple(steps)))]


@register
class LayerNorm(Normalization):
    """Normalisation over the axes from `axis` to the last, then scale and bias of those axes' shape."""

    name = "layer_norm"
    operands = (Operand("x"), Operand("scale", optional=True), Operand("bias", optional=True))
    attrs = (AXIS, EPSILON, REQUANTS, OFFSET, FRACTION)
    onnx = ("LayerNormalization",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        if "requant" in op.attrs:
            return _integer_rows(op, inputs)
        x = array(inputs, 0)
        axes = tuple(range(axis_of(op.attrs["axis"], x.ndim), x.ndim))
        return [_affine(_normalise(x, axes, op.attrs["epsilon"]), inputs).astype(x.dtype)]


@register
class RmsNorm(Normalization):
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` to the last."""

    name = "rms_norm"
    operands = (Operand("x"), Operand("scale", optional=True))
    attrs = (AXIS, EPSILON, REQUANTS, OFFSET)
    onnx = ("RMSNormalization",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        if "requant" in op.attrs:
            return _integer_rows(op, inputs)
        x = array(inputs, 0)
        wide = x.astype(np.float64)
        axes = tuple(range(axis_of(op.attrs["axis"], x.ndim), x.ndim))
        scaled = wide / np.sqrt((wide * wide).mean(axes, keepdims=True) + op.attrs["epsilon"])
        return [_affine(scaled, inputs).astype(x.dtype)]


@register
class InstanceNorm(Normalization):
    """Normalisation of each image and channel over its pixels, then scale[C] and bias[C]."""

    name = "instance_norm"
    operands = (Operand("x"), Operand("scale"), Operand("bias"))
    attrs = (EPSILON,)
    onnx = ("InstanceNormalization",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        normal = _normalise(x, tuple(range(2, x.ndim)), op.attrs["epsilon"])
        return [_affine(normal, inputs, (-1, *(1,) * (x.ndim - 2))).astype(x.dtype)]


@register
class GroupNorm(Normalization):
    """Normalisation over the channels of a group and all pixels, then scale[C] and bias[C]."""

    name = "group_norm"
    operands = (Operand("x"), Operand("scale", optional=True), Operand("bias", optional=True))
    attrs = (Attr("groups", AttrKind.INT), EPSILON)
    onnx = ("GroupNormalization",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        made = super().infer(types, attrs)
        if attrs["groups"] < 1 or given(types, 0).static_shape[1] % attrs["groups"]:
            raise OpError(f"{given(types, 0).shape} has no {attrs['groups']} groups of channels")
        return made

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        grouped = x.reshape(x.shape[0], op.attrs["groups"], -1)
        normal = _normalise(grouped, (2,), op.attrs["epsilon"]).reshape(x.shape)
        return [_affine(normal, inputs, (-1, *(1,) * (x.ndim - 2))).astype(x.dtype)]


@register
class Softmax(SameType):
    """exp(x) / sum(exp(x)) along `axis`.

    i8: `table` holds 256 powers, i16, by x - max(x) from -255 to 0; the reciprocal of their sum has `fraction` more bits (0 to 15).
    """

    name = "softmax"
    attrs = (AXIS, Attr("table", AttrKind.TENSOR, None), FRACTION, REQUANT)
    onnx = ("Softmax",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        requant = requant_of(op)
        if requant is not None:
            x, attrs = array(inputs, 0).astype(np.int64), op.attrs
            return [finish_integer(op, softmax_integers(x, attrs["axis"], attrs["table"], attrs["fraction"], requant))]
        x = array(inputs, 0)
        wide = x.astype(np.float64)
        power = np.exp(wide - wide.max(op.attrs["axis"], keepdims=True))
        return [(power / power.sum(op.attrs["axis"], keepdims=True)).astype(x.dtype)]


@register
class LogSoftmax(SameType):
    """log(softmax(x)) along `axis`."""

    name = "log_softmax"
    attrs = (AXIS,)
    onnx = ("LogSoftmax",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        wide = x.astype(np.float64)
        wide = wide - wide.max(op.attrs["axis"], keepdims=True)
        return [(wide - np.log(np.exp(wide).sum(op.attrs["axis"], keepdims=True))).astype(x.dtype)]
