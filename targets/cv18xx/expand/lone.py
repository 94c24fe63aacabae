# SPDX-License-Identifier: Apache-2.0
"""Movement of data within DDR, by the transfer engine alone."""

from __future__ import annotations

from typing import Any

from gadl.passes.plan.program import Ref, Region

from ..layers import Layer, zero_point_of
from ..places import moves_nothing
from ..strides import reshaped
from .context import Expansion
from .kernel import shape_or_raise
from .moves import dims_of, move


def expand_movement(context: Expansion, layer: Layer) -> None:
    """concat, slice, pad, reshape, transpose."""
    if moves_nothing(context, layer):
        return
    op, y = layer.op, context.places[id(layer.result)]
    match op.name:
        case "concat":
            _concat(context, layer)
        case "pad":
            _pad(context, layer)
        case "slice":
            x = context.places[id(op.inputs[0])]
            offset = sum(start * stride for start, stride in zip(op.attrs["starts"], x.strides))
            between = [stride * step for stride, step in zip(x.strides, op.attrs["steps"])]
            move(context, x, y, dims_of(op.result.shape, between, y.strides), offset, 0)
        case "transpose":
            x = context.places[id(op.inputs[0])]
            move(context, x, y, dims_of(op.result.shape, [x.strides[axis] for axis in op.attrs["perm"]], y.strides))
        case "reshape":
            _reshape(context, layer)
        case _:
            raise ValueError(f"'{op.name}' is no movement")


def _reshape(context: Expansion, layer: Layer) -> None:
    """Elements in their order; one side at least takes the other's shape."""
    operand, result = layer.op.inputs[0], layer.result
    x, y = context.places[id(operand)], context.places[id(result)]
    within = reshaped(result.shape, y.strides, operand.shape)
    if within is not None:
        move(context, x, y, dims_of(operand.shape, x.strides, within))
        return
    seen = reshaped(operand.shape, x.strides, result.shape)
    if seen is None:
        raise ValueError(f"'{layer.name}' joins axes that lie apart on both sides")
    move(context, x, y, dims_of(result.shape, seen, y.strides))


def _concat(context: Expansion, layer: Layer) -> None:
    op = layer.op
    axis, place = op.attrs["axis"] % op.result.type.rank, context.places[id(op.result)]
    at = 0
    for value in op.inputs:
        source = context.places.get(id(value))
        if source is None or source.buffer is not place.buffer:
            x = context.places[id(value)]
            move(context, x, place, dims_of(value.shape, x.strides, place.strides), 0, at * place.strides[axis])
        at += value.shape[axis]


def _pad(context: Expansion, layer: Layer) -> None:
    """The whole result is filled, then the operand is copied into it."""
    op, place, shape = layer.op, context.places[id(layer.result)], shape_or_raise(layer.result)
    value = zero_point_of(op.inputs[0])
    fields: dict[str, Any] = {
        "trans_dir": 1, "spec_func": 4, "const_val": value & 0xFF, "src_fmt": 1, "dst_fmt": 1, "src_n": shape.n, "dst_c": shape.c,
        "dst_h": shape.h, "dst_w": shape.w, "dst_n_stride": place.n_str, "dst_c_stride": place.c_str, "dst_h_stride": place.h_str if shape.h > 1 else shape.w,
    }  # fmt: skip
    region = Region(place.buffer, place.offset, place.buffer.size - place.offset)
    context.transfer(fields, Ref(context.constants), Ref(place.buffer, place.offset), [], [region])
    x = context.places[id(op.inputs[0])]
    before = sum(count * stride for count, stride in zip(op.attrs["pads"], place.strides))
    move(context, x, place, dims_of(op.inputs[0].shape, x.strides, place.strides), 0, before)
