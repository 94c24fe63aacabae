# SPDX-License-Identifier: Apache-2.0
"""Movement of data within DDR, by the transfer engine alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.passes.plan.program import Ref, Region

from ..layers import Layer, zero_point_of
from ..places import moves_nothing
from .context import Expansion, Place
from .kernel import shape_or_raise

#: The most that an extent, a row stride of a transfer holds.
MOST_EXTENT, MOST_ROW_STRIDE = 65535, 65535


@dataclass(frozen=True)
class Dim:
    """`count` elements, byte strides on both sides."""

    count: int
    source: int
    target: int


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
            strides = _strides(layer.op.inputs[0].shape, context.places[id(op.inputs[0])])
            dims = [
                Dim(size, stride * step, target)
                for size, stride, step, target in zip(op.attrs["sizes"], strides, op.attrs["steps"], _strides(op.result.shape, y))
            ]
            offset = sum(start * stride for start, stride in zip(op.attrs["starts"], strides))
            move(context, layer, 0, dims, offset, 0)
        case "transpose":
            strides = _strides(op.inputs[0].shape, context.places[id(op.inputs[0])])
            targets = _strides(op.result.shape, y)
            move(context, layer, 0, [Dim(op.result.shape[i], strides[axis], targets[i]) for i, axis in enumerate(op.attrs["perm"])], 0, 0)
        case _:
            x = op.inputs[0]
            move(context, layer, 0, [Dim(x.type.element_count, 1, 1)], 0, 0)


def _strides(shape: Sequence[int], place: Place) -> list[int]:
    """Byte strides of each axis."""
    match len(shape):
        case 1:
            return [1]
        case 2:
            return [place.n_str, place.c_str]
        case 3:
            return [place.n_str, place.c_str, 1]
        case 4:
            return [place.n_str, place.c_str, place.h_str, 1]
        case _:
            dense = np.cumprod([1, *shape[:0:-1]])[::-1]
            return [int(s) for s in dense]


def _concat(context: Expansion, layer: Layer) -> None:
    op = layer.op
    axis, place = op.attrs["axis"] % op.result.type.rank, context.places[id(op.result)]
    targets, at = _strides(op.result.shape, place), 0
    for number, value in enumerate(op.inputs):
        source = context.places.get(id(value))
        if source is None or source.buffer is not place.buffer:
            strides = _strides(value.shape, context.places[id(value)])
            move(context, layer, number, [Dim(*d) for d in zip(value.shape, strides, targets)], 0, at * targets[axis])
        at += value.shape[axis]


def _pad(context: Expansion, layer: Layer) -> None:
    """The whole result is filled, then the operand is copied into it."""
    op, place, shape = layer.op, context.places[id(layer.result)], shape_or_raise(layer.result)
    value = zero_point_of(op.inputs[0])
    fields: dict[str, Any] = {
        "trans_dir": 1, "spec_func": 4, "const_val": value & 0xFF, "src_fmt": 1, "dst_fmt": 1, "src_n": shape.n, "dst_c": shape.c,
        "dst_h": shape.h, "dst_w": shape.w, "dst_n_stride": place.n_str, "dst_c_stride": place.c_str, "dst_h_stride": place.h_str,
    }  # fmt: skip
    region = Region(place.buffer, place.offset, place.buffer.size - place.offset)
    context.transfer(fields, Ref(context.constants), Ref(place.buffer, place.offset), [], [region])
    rank, targets = op.result.type.rank, _strides(op.result.shape, place)
    before = op.attrs["pads"][:rank]
    x = op.inputs[0]
    dims = [Dim(*d) for d in zip(x.shape, _strides(x.shape, context.places[id(x)]), targets)]
    move(context, layer, 0, dims, 0, sum(b * t for b, t in zip(before, targets)))


def move(context: Expansion, layer: Layer, number: int, dims: Sequence[Dim], source: int, target: int) -> None:
    """Copy a block of an operand into the result, in as many transfers as it takes."""
    x, y = context.places[id(layer.op.inputs[number])], context.places[id(layer.result)]
    for from_, to, part in _transfers(_collapsed(dims)):
        fields: dict[str, Any] = {"trans_dir": 2, "src_fmt": 1, "dst_fmt": 1, "src_n": part[0].count}
        for side in ("src", "dst"):
            fields |= {f"{side}_c": part[1].count, f"{side}_h": part[2].count, f"{side}_w": part[3].count}
            for name, dim in zip("nch", part):
                fields[f"{side}_{name}_stride"] = dim.source if side == "src" else dim.target
        spans = [sum((d.count - 1) * stride for d, stride in zip(part, side)) + 1 for side in ([d.source for d in part], [d.target for d in part])]
        there, here = Ref(x.buffer, x.offset + source + from_), Ref(y.buffer, y.offset + target + to)
        context.transfer(fields, there, here, [Region(x.buffer, there.offset, spans[0])], [Region(y.buffer, here.offset, spans[1])])


def _collapsed(dims: Sequence[Dim]) -> list[Dim]:
    """Neighbouring dimensions that go on in memory on both sides are one; the innermost is contiguous."""
    found: list[Dim] = []
    for dim in dims:
        if dim.count == 1:
            continue
        if found and found[-1].source == dim.count * dim.source and found[-1].target == dim.count * dim.target:
            found[-1] = Dim(found[-1].count * dim.count, dim.source, dim.target)
        else:
            found.append(dim)
    if not found or (found[-1].source, found[-1].target) != (1, 1):
        found.append(Dim(1, 1, 1))
    return found


def _transfers(dims: list[Dim]) -> list[tuple[int, int, list[Dim]]]:
    """Blocks of four dimensions within the limits of a transfer, with their offsets on both sides."""
    for index, dim in enumerate(dims):
        large = dim.count > MOST_EXTENT
        if large and index == len(dims) - 1 and dim.count % 16 == 0:
            # A long row as several.
            return _transfers([*dims[:index], Dim(dim.count // 16, 16, 16), Dim(16, 1, 1)])
        if large or (len(dims) > 4 and index == 0):
            half = dim.count // 2
            if len(dims) > 4:
                return [
                    (n * dim.source + a, n * dim.target + b, part) for n in range(dim.count) for a, b, part in _transfers(dims[1:])
                ]
            first = _transfers([*dims[:index], Dim(half, dim.source, dim.target), *dims[index + 1 :]])
            rest = _transfers([*dims[:index], Dim(dim.count - half, dim.source, dim.target), *dims[index + 1 :]])
            return [*first, *((a + half * dim.source, b + half * dim.target, part) for a, b, part in rest)]
    padded = [Dim(1, 0, 0)] * (4 - len(dims)) + dims
    if max(padded[2].source, padded[2].target) > MOST_ROW_STRIDE and padded[2].count > 1:
        # The stride of rows has 16 bits: rows go one dimension up.
        if padded[0].count == 1:
            padded = [padded[1], padded[2], Dim(1, 0, 0), padded[3]]
        else:
            return [
                (n * padded[0].source + a, n * padded[0].target + b, part) for n in range(padded[0].count) for a, b, part in _transfers(dims[1:])
            ]
    return [(0, 0, padded)]
