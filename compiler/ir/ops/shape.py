# SPDX-License-Identifier: Apache-2.0
"""Ops that move, select or resample elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, Operand, OpError, Trait, register
from ..requant import apply_requant
from ..types import Array, TensorType
from .common import REQUANT, array, axis_of, broadcast, centred, finish_integer, given, requant_of, wide, zero_point


class Movement(OpDef):
    """Base of ops that keep the element type and quantisation of operand 0."""

    traits = Trait.MOVES_DATA

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        """The result's shape."""
        raise NotImplementedError

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        return [TensorType(x.dtype, cls.shape(x, types, attrs), x.quant)]


@register
class Reshape(Movement):
    """The same elements in logical order under another shape."""

    name = "reshape"
    attrs = (Attr("shape", AttrKind.INTS),)
    onnx = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        target: tuple[int, ...] = attrs["shape"]
        if math.prod(target) != x.element_count or any(d < 0 for d in target):
            raise OpError(f"{x.element_count} elements do not fill shape {target}")
        return target

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [array(inputs, 0).reshape(op.attrs["shape"])]


@register
class Transpose(Movement):
    """Axes in another order: axis i of the result is axis perm[i] of x."""

    name = "transpose"
    attrs = (Attr("perm", AttrKind.INTS),)
    onnx = ("Transpose",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        if sorted(attrs["perm"]) != list(range(x.rank)):
            raise OpError(f"{attrs['perm']} is not a permutation of {x.rank} axes")
        return tuple(x.static_shape[a] for a in attrs["perm"])

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.ascontiguousarray(array(inputs, 0).transpose(op.attrs["perm"]))]


@register
class Relayout(Movement):
    """The same tensor in another memory layout."""

    name = "relayout"
    attrs = (Attr("layout", AttrKind.LAYOUT),)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        return [TensorType(x.dtype, x.shape, x.quant, attrs["layout"])]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [array(inputs, 0)]


@register
class Concat(Movement):
    """Operands one after another along `axis`. On integers all share scale and zero point."""

    name = "concat"
    operands = (Operand("x", variadic=True),)
    attrs = (Attr("axis", AttrKind.INT),)
    onnx = ("Concat",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        axis = axis_of(attrs["axis"], x.rank)
        shapes = [given(types, i).static_shape for i in range(len(types))]
        for other in shapes:
            if len(other) != x.rank or any(a != b for i, (a, b) in enumerate(zip(other, shapes[0])) if i != axis):
                raise OpError(f"shapes {shapes[0]} and {other} differ off axis {axis}")
        if any(given(types, i).dtype is not x.dtype for i in range(len(types))):
            raise OpError("operands have different element types")
        return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.concatenate([v for v in inputs if v is not None], op.attrs["axis"])]


@register
class Slice(Movement):
    """`sizes[i]` elements of each axis, from `starts[i]` in steps of `steps[i]` (which may be negative)."""

    name = "slice"
    attrs = (Attr("starts", AttrKind.INTS), Attr("sizes", AttrKind.INTS), Attr("steps", AttrKind.INTS))
    onnx = ("Slice", "Split")

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        starts, sizes, steps = attrs["starts"], attrs["sizes"], attrs["steps"]
        if not len(starts) == len(sizes) == len(steps) == x.rank:
            raise OpError(f"starts, sizes and steps need {x.rank} entries each")
        for extent, start, size, step in zip(x.static_shape, starts, sizes, steps):
            last = start + (size - 1) * step
            if size < 0 or (size and not (0 <= start < extent and 0 <= last < extent)) or step == 0:
                raise OpError(f"{size} elements from {start} in steps of {step} leave the extent {extent}")
        return tuple(sizes)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        for axis, (start, size, step) in enumerate(zip(op.attrs["starts"], op.attrs["sizes"], op.attrs["steps"])):
            if (start, size, step) != (0, x.shape[axis], 1):
                x = x.take(start + step * np.arange(size), axis)
        return [x]


@register
class Pad(Movement):
    """Padding on both sides of each axis. `value` is real; integers are padded with the zero point when it is 0."""

    name = "pad"
    attrs = (
        Attr("pads", AttrKind.INTS),
        Attr("mode", AttrKind.STR, "constant", ("constant", "reflect", "edge")),
        Attr("value", AttrKind.FLOAT, 0.0),
    )
    onnx = ("Pad",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        pads, rank = attrs["pads"], x.rank
        if len(pads) != 2 * rank or min(pads, default=0) < 0:
            raise OpError(f"'pads' must be {2 * rank} numbers of at least 0, got {pads}")
        if attrs["mode"] == "reflect" and any(max(pads[i], pads[rank + i]) >= x.static_shape[i] for i in range(rank)
                                              if pads[i] or pads[rank + i]):
            raise OpError("reflection needs pads smaller than the extent")
        if attrs["mode"] == "edge" and any(x.static_shape[i] == 0 and (pads[i] or pads[rank + i]) for i in range(rank)):
            raise OpError("an empty axis has no edge")
        return tuple(d + pads[i] + pads[rank + i] for i, d in enumerate(x.static_shape))

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x, pads, mode = array(inputs, 0), op.attrs["pads"], op.attrs["mode"]
        width = list(zip(pads[: x.ndim], pads[x.ndim :]))
        if mode != "constant":
            return [np.pad(x, width, mode=mode)]
        fill = zero_point(op, 0) if op.inputs[0].quant is not None else op.attrs["value"]
        return [np.pad(x, width, constant_values=np.asarray(fill).astype(x.dtype))]


@register
class Gather(Movement):
    """Slices of x along `axis` chosen by an index tensor; negative indices count from the end."""

    name = "gather"
    operands = (Operand("x"), Operand("indices"))
    attrs = (Attr("axis", AttrKind.INT),)
    onnx = ("Gather",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        axis, indices = axis_of(attrs["axis"], x.rank), given(types, 1)
        if not indices.dtype.is_integer:
            raise OpError("indices must be integers")
        shape = x.static_shape
        return (*shape[:axis], *indices.static_shape, *shape[axis + 1 :])

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [array(inputs, 0).take(array(inputs, 1), op.attrs["axis"])]


@register
class GatherElements(Movement):
    """Elements of x along `axis`, one per element of the index tensor."""

    name = "gather_elements"
    operands = (Operand("x"), Operand("indices"))
    attrs = (Attr("axis", AttrKind.INT),)
    onnx = ("GatherElements",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        axis, shape = axis_of(attrs["axis"], x.rank), given(types, 1).static_shape
        if len(shape) != x.rank or any(a > b for i, (a, b) in enumerate(zip(shape, x.static_shape)) if i != axis):
            raise OpError(f"indices of shape {shape} do not fit {x.shape}")
        return shape

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x, indices, axis = array(inputs, 0), array(inputs, 1), op.attrs["axis"] % array(inputs, 0).ndim
        cut = tuple(slice(None) if i == axis else slice(0, d) for i, d in enumerate(indices.shape))
        return [np.take_along_axis(x[cut], indices, axis)]


@register
class Expand(Movement):
    """Broadcast to a shape."""

    name = "expand"
    attrs = (Attr("shape", AttrKind.INTS),)
    onnx = ("Expand",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        if broadcast(x.static_shape, attrs["shape"]) != attrs["shape"]:
            raise OpError(f"{x.shape} does not broadcast to {attrs['shape']}")
        return tuple(attrs["shape"])

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.ascontiguousarray(np.broadcast_to(array(inputs, 0), op.attrs["shape"]))]


@register
class Tile(Movement):
    """The tensor repeated along each axis."""

    name = "tile"
    attrs = (Attr("repeats", AttrKind.INTS),)
    onnx = ("Tile",)

    @classmethod
    def shape(cls, x: TensorType, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> tuple[int, ...]:
        if len(attrs["repeats"]) != x.rank or min(attrs["repeats"], default=1) < 0:
            raise OpError(f"'repeats' must be {x.rank} numbers of at least 0")
        return tuple(d * r for d, r in zip(x.static_shape, attrs["repeats"]))

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.tile(array(inputs, 0), op.attrs["repeats"])]


#: Fractional bits of bilinear weights in the integer form.
RESIZE_BITS = 11


def source_positions(extent: int, out: int, scale: float, coordinate: str) -> Array:
    """Position in the input of every output index along one axis, f32[out] (ONNX Resize's coordinate modes)."""
    index = np.arange(out, dtype=np.float32)
    inverse = np.float32(1) / np.float32(scale)
    match coordinate:
        case "half_pixel":
            return (index + np.float32(0.5)) * inverse - np.float32(0.5)
        case "pytorch_half_pixel":
            return (index + np.float32(0.5)) * inverse - np.float32(0.5) if out > 1 else np.zeros(1, np.float32)
        case "align_corners":
            return index * np.float32((extent - 1) / (out - 1)) if out > 1 else np.zeros(1, np.float32)
        case "half_pixel_symmetric":
            adjust = np.float32(out / (scale * extent))
            offset = np.float32(extent / 2) * (1 - adjust)
            return offset + (index + np.float32(0.5)) * inverse - np.float32(0.5)
        case _:
            return index * inverse


def nearest_index(position: Array, extent: int, rule: str) -> Array:
    """The input index that a position takes, i64."""
    match rule:
        case "floor":
            chosen = np.floor(position)
        case "ceil":
            chosen = np.ceil(position)
        case "round_prefer_ceil":
            chosen = np.floor(position + 0.5)
        case _:
            chosen = np.ceil(position - 0.5)
    return np.clip(chosen, 0, extent - 1).astype(np.int64)


def linear_taps(position: Array, extent: int) -> tuple[Array, Array, Array]:
    """Lower index, upper index (i64) and weight of the upper one (f32) for linear interpolation with clamped borders."""
    clipped = np.clip(position, 0, extent - 1)
    low = np.floor(clipped).astype(np.int64)
    high = np.minimum(low + 1, extent - 1)
    return low, high, (clipped - low).astype(np.float32)


def _cubic_taps(position: Array, extent: int, a: float) -> tuple[Array, Array]:
    """Indices i64[out, 4] and weights f32[out, 4]."""
    base = np.floor(position).astype(np.int64)
    distance = np.abs(position[:, None] - (base[:, None] + np.arange(-1, 3)))
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    return np.clip(base[:, None] + np.arange(-1, 3), 0, extent - 1), weights.astype(np.float32)


@register
class Resize(OpDef):
    """Resampling to `sizes` (the full shape).

    `scales` are the ratios that positions are computed with (ONNX keeps given scales, which need not equal out/in).
    Integer form of `linear`: weights are rounded to 11 fractional bits per axis (ties to even) and the sum is requantised
    (`docs/numerics.md`).
    """

    name = "resize"
    attrs = (
        Attr("sizes", AttrKind.INTS),
        Attr("scales", AttrKind.FLOATS),
        Attr("mode", AttrKind.STR, "nearest", ("nearest", "linear", "cubic")),
        Attr("coordinate", AttrKind.STR, "half_pixel",
             ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")),
        Attr("nearest", AttrKind.STR, "round_prefer_floor", ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
        Attr("cubic_a", AttrKind.FLOAT, -0.75),
        REQUANT,
    )  # fmt: skip
    onnx = ("Resize", "Upsample")

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        if len(attrs["sizes"]) != x.rank or len(attrs["scales"]) != x.rank or min(attrs["sizes"], default=1) < 1:
            raise OpError(f"sizes and scales need {x.rank} positive entries each")
        if 0 in x.static_shape or any(not 0 < s < math.inf for s in attrs["scales"]):
            raise OpError(f"{x.shape} cannot be resampled by {attrs['scales']}")
        return [TensorType(x.dtype, tuple(attrs["sizes"]), x.quant if attrs["mode"] == "nearest" else None)]

    @classmethod
    def axes(cls, op: Op) -> list[tuple[int, Array]]:
        """The axes that change, with the source position of each output index."""
        x = op.inputs[0].shape
        return [
            (i, source_positions(x[i], out, scale, op.attrs["coordinate"]))
            for i, (out, scale) in enumerate(zip(op.attrs["sizes"], op.attrs["scales"]))
            if out != x[i] or scale != 1
        ]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        mode, shape = op.attrs["mode"], op.inputs[0].shape
        if mode == "nearest":
            x = array(inputs, 0)
            for axis, position in cls.axes(op):
                x = x.take(nearest_index(position, shape[axis], op.attrs["nearest"]), axis)
            return [x]
        requant = requant_of(op)
        if requant is not None:
            total, bits = centred(op, inputs, 0), 0
            for axis, position in cls.axes(op):
                low, high, weight = linear_taps(position, shape[axis])
                upper = _column(np.rint(weight * (1 << RESIZE_BITS)).astype(np.int64), total.ndim, axis)
                total = total.take(low, axis) * ((1 << RESIZE_BITS) - upper) + total.take(high, axis) * upper
                bits += RESIZE_BITS
            # One scale for any number of resampled axes: the sum is brought to 22 fractional bits.
            return [finish_integer(op, apply_requant(total << max(0, 2 * RESIZE_BITS - bits), requant))]
        x = wide(array(inputs, 0))
        for axis, position in cls.axes(op):
            if mode == "cubic":
                index, weights = _cubic_taps(position, shape[axis], op.attrs["cubic_a"])
                x = np.asarray(sum(_column(weights[:, t], x.ndim, axis) * x.take(index[:, t], axis) for t in range(4)))
            else:
                low, high, weight = linear_taps(position, shape[axis])
                column = _column(weight, x.ndim, axis)
                x = x.take(low, axis) * (1 - column) + x.take(high, axis) * column
        return [np.asarray(x).astype(op.results[0].dtype.numpy)]


def _column(vector: Array, rank: int, axis: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)

