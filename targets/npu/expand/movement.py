# SPDX-License-Identifier: Apache-2.0
"""Data movement: concat, slice, pad, reshape, transpose, relayout through SRAM."""

from __future__ import annotations

import math
from typing import Any

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.program import Buffer

from ..layers import Layer, memory_strides, same_bytes
from .context import Expansion
from .copying import CopyDim
from .elementwise import blocks


def expand_movement(context: Expansion, layer: Layer) -> None:
    """Expand one data-movement layer; what is a view already (`Place` of the result inside its source) costs nothing."""
    op = layer.op
    if same_bytes(op):
        source, target = context.place(op.inputs[0]), context.place(layer.result)
        if (source.buffer, source.offset) == (target.buffer, target.offset):
            return
    match op.name:
        case "concat":
            _concat(context, layer)
        case "slice":
            _slice(context, layer)
        case "pad":
            _pad(context, layer)
        case "reshape":
            _reshape(context, layer)
        case "transpose" | "relayout":
            _permute(context, layer)
        case _:
            raise ValueError(f"'{op.name}' moves no data")


def copy_block(
    context: Expansion, shape: tuple[int, ...], source: tuple[Buffer, int, tuple[int, ...]],
    target: tuple[Buffer, int, tuple[int, ...]], order: tuple[int, ...], element: int,
) -> None:  # fmt: skip
    """Copy a logical block, axes taken in `order` (outermost first), through SRAM in parts that fit.

    `source` and `target`: buffer, byte offset of the block's first element, byte strides per logical axis.
    """
    dims = tuple(shape[axis] for axis in order)
    for block in blocks(dims, context.costs.vector_block_bytes // element):
        tile = context.tile(math.prod(block.count) * element, "copy")
        dense, step = [0] * len(dims), element
        for position in range(len(dims) - 1, -1, -1):
            dense[position] = step
            step *= block.count[position]
        at = [sum(f * strides[axis] for f, axis in zip(block.first, order)) for _, _, strides in (source, target)]
        load = [CopyDim(c, source[2][axis], d) for c, axis, d in zip(block.count, order, dense)]
        context.load(source[0], source[1] + at[0], tile, load, element)
        store = [CopyDim(c, d, target[2][axis]) for c, axis, d in zip(block.count, order, dense)]
        context.store(tile, target[0], target[1] + at[1], store, element)


def _concat(context: Expansion, layer: Layer) -> None:
    target, axis = context.place(layer.result), layer.op.attrs["axis"] % layer.result.type.rank
    at = target.offset
    for value in layer.op.inputs:
        place = _place_of(context, value)
        if (place[0], place[1]) != (target.buffer, at):
            copy_block(context, value.shape, place, (target.buffer, at, target.strides), _order(layer.result), _size(value))
        at += value.shape[axis] * target.strides[axis]


def _slice(context: Expansion, layer: Layer) -> None:
    op, x = layer.op, layer.op.inputs[0]
    source, target = context.place(x), context.place(layer.result)
    offset = source.offset + sum(s * stride for s, stride in zip(op.attrs["starts"], source.strides))
    strides = tuple(step * stride for step, stride in zip(op.attrs["steps"], source.strides))
    if (source.buffer, offset, strides) != (target.buffer, target.offset, target.strides):
        copy_block(context, layer.result.shape, (source.buffer, offset, strides),
                   (target.buffer, target.offset, target.strides), _order(layer.result), _size(x))


def _pad(context: Expansion, layer: Layer) -> None:
    """Fill the whole result, then copy the inside."""
    x, y = layer.op.inputs[0], layer.result
    source, target = context.place(x), context.place(y)
    pads, rank = layer.op.attrs["pads"], y.type.rank
    value = x.quant.zero_point if x.quant is not None else 0
    total = y.type.size_bytes
    size = min(total, context.costs.vector_block_bytes)
    tile = context.tile(size, "fill")
    context.step("LD0", "FILL", {"dst": tile.at(0), "size": size, "value": value & 0xFFFF, "elem_bytes": y.dtype.size_bytes}, [], [tile.region()])
    for first in range(0, total, size):
        count = min(size, total - first)
        context.store(tile, target.buffer, target.offset + first, [CopyDim(count, 1, 1)])
    inside = target.offset + sum(pads[axis] * target.strides[axis] for axis in range(rank))
    copy_block(context, x.shape, (source.buffer, source.offset, source.strides),
               (target.buffer, inside, target.strides), _order(y), _size(x))


def _reshape(context: Expansion, layer: Layer) -> None:
    x, y = layer.op.inputs[0], layer.result
    source, target = context.place(x), context.place(y)
    flat = (x.dtype.size_bytes,)
    copy_block(context, (math.prod(x.shape),), (source.buffer, source.offset, flat),
               (target.buffer, target.offset, flat), (0,), _size(x))


def _permute(context: Expansion, layer: Layer) -> None:
    """Reorder elements: long rows in from memory, a transpose on the vector unit, long rows out.

    The result's memory order decides the loop: a block is a range of the result's outermost axis, which is loaded as a
    strided block of the source.
    """
    op, x, y = layer.op, layer.op.inputs[0], layer.result
    perm = op.attrs["perm"] if op.name == "transpose" else tuple(range(x.type.rank))
    source, target, element = context.place(x), context.place(y), _size(x)
    # Everything in terms of the result's logical axes; axis a of the result is axis perm[a] of the source.
    shape = y.shape
    from_strides = tuple(source.strides[axis] for axis in perm)
    order = y.layout.permutation(y.type.rank)
    source_order = sorted(range(y.type.rank), key=lambda axis: (-from_strides[axis], axis))
    outer = order[0] if shape[order[0]] > 1 else next((a for a in order if shape[a] > 1), order[0])
    inner = math.prod(shape) // max(1, shape[outer])
    step = max(1, min(shape[outer], context.costs.vector_block_bytes // max(1, inner * element)))
    for first in range(0, shape[outer], step):
        count = tuple(min(step, shape[outer] - first) if a == outer else shape[a] for a in range(len(shape)))
        size = math.prod(count) * element
        tile, turned = context.tile(size, "x"), context.tile(size, "turned")
        inside = _dense_strides(count, source_order, element)
        load = [CopyDim(count[a], from_strides[a], inside[a]) for a in source_order]
        context.load(source.buffer, source.offset + first * from_strides[outer], tile, load, element)
        outside = _dense_strides(count, order, element)
        dims = [a for a in order if count[a] > 1][-4:] or [order[-1]]
        fields: dict[str, Any] = {"x_addr": tile.at(0), "out_addr": turned.at(0), "elem_bytes": element}
        for number, axis in enumerate(reversed(dims)):
            fields |= {f"n{number}": count[axis], f"x_s{number}": inside[axis], f"out_s{number}": outside[axis]}
        cycles = context.costs.vector(math.prod(count), element)
        context.step("VEC", "VTR", fields, [tile.region()], [turned.region()], cycles)
        store = [CopyDim(count[a], outside[a], target.strides[a]) for a in order]
        context.store(turned, target.buffer, target.offset + first * target.strides[outer], store, element)


def _dense_strides(shape: tuple[int, ...], order: tuple[int, ...] | list[int], element: int) -> tuple[int, ...]:
    """Byte strides per axis of a dense block whose axes lie in `order`, outermost first."""
    strides, step = [0] * len(shape), element
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def _order(value: Value) -> tuple[int, ...]:
    return value.layout.permutation(value.type.rank)


def _size(value: Value) -> int:
    return value.dtype.size_bytes


def _place_of(context: Expansion, value: Value) -> tuple[Buffer, int, tuple[int, ...]]:
    if value.data is None:
        place = context.place(value)
        return place.buffer, place.offset, place.strides
    return context.constants, context.add_constant(value.data.tobytes()), memory_strides(value)
