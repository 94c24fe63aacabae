# SPDX-License-Identifier: Apache-2.0
"""Pooling and reduction over pixels on the vector unit, channels innermost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gadl.compiler.ir.types import DType, Requant
from gadl.passes.plan.spans import Span, spans

from ..isa import Pool, Reduce
from ..layers import Layer, window_of
from .bands import Band, RowShape
from .context import Expansion, Tile
from .copying import CopyDim

_REDUCTIONS = {
    "reduce_sum": Reduce.SUM, "reduce_mean": Reduce.SUM, "reduce_max": Reduce.MAX, "reduce_min": Reduce.MIN,
}  # fmt: skip


def pool_table(context: Expansion, layer: Layer) -> Tile | None:
    """Multipliers and shifts by number of pixels, where padding is left out of averages."""
    requant: Requant | None = layer.op.attrs.get("requant")
    if requant is None or not requant.per_channel:
        return None
    pairs = np.concatenate([requant.multiplier.astype("<i4"), requant.shift.astype("<i4")])
    return context.load_constant(pairs.tobytes(), "requant by count")


def pool_rows(context: Expansion, layer: Layer, rows: Span, x: Band, y: Band, table: Tile | None) -> None:
    """Output rows of max_pool and avg_pool. `x` holds every row that they read."""
    op, window, value = layer.op, window_of(layer.op), layer.op.inputs[0]
    first, end = window.input_rows(rows.first, rows.count)
    top = rows.first * window.stride_h - window.pad_top
    low, high = value.dtype.range if value.dtype.is_integer else (float("-inf"), float("inf"))
    fields: dict[str, Any] = {
        "function": Pool.MAX if op.name == "max_pool" else Pool.AVG, "x_type": value.dtype,
        "x_addr": x.at(first if end > first else x.first), "x_row_stride": x.row_bytes, "x_pix_stride": x.pixel_bytes,
        "ih": end - first, "iw": window.iw, "ic": window.ic, "kh": window.kh, "kw": window.kw,
        "stride_h": window.stride_h, "stride_w": window.stride_w, "dil_h": window.dilation_h,
        "dil_w": window.dilation_w, "pad_top": first - top, "pad_left": window.pad_left,
        "out_addr": y.at(rows.first), "out_row_stride": y.row_bytes, "out_pix_stride": y.pixel_bytes,
        "oh": rows.count, "ow": window.ow, "x_zp": value.quant.zero_point if value.quant is not None else 0,
        "out_zp": op.result.quant.zero_point if op.result.quant is not None else 0, "lo": low, "hi": high,
    }  # fmt: skip
    reads = [] if end <= first else [x.region(Span(first, end - first), Span(0, window.iw), Span(0, window.ic))]
    requant: Requant | None = op.attrs.get("requant")
    if requant is not None:
        fields["rounding"] = requant.rounding
        if table is not None:
            fields |= {"table_addr": table.at(0), "entries": len(requant.multiplier)}
            reads.append(table.region())
        else:
            fields |= {"multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0])}
    elements = rows.count * window.ow * window.oc
    cycles = context.costs.vector(elements * window.kh * window.kw, value.dtype.size_bytes)
    context.step("VEC", "VPOOL", fields, reads, [y.region(rows, Span(0, window.ow), Span(0, window.oc))], cycles)


def reduce_fields(layer: Layer) -> dict[str, Any]:
    """Fields of VRED that the layer decides."""
    op, x, y = layer.op, layer.op.inputs[0], layer.result
    low, high = y.dtype.range if y.dtype.is_integer else (float("-inf"), float("inf"))
    fields: dict[str, Any] = {
        "function": _REDUCTIONS[op.name], "type": x.dtype, "m_stride": 1, "out_type": y.dtype, "lo": low, "hi": high,
        "x_zp": x.quant.zero_point if x.quant is not None else 0, "out_zp": y.quant.zero_point if y.quant is not None else 0,
    }  # fmt: skip
    requant: Requant | None = op.attrs.get("requant")
    if requant is not None:
        fields |= {"rescale": 1, "rounding": requant.rounding, "multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0])}
    return fields


def reduce_part(context: Expansion, layer: Layer, rows: Span, shape: RowShape, x: Band, kind: DType, part: Tile, number: int) -> None:
    """Some rows to one row of partial results of type `kind`, number `number` in `part`. `x` is dense."""
    size = shape.channels * kind.size_bytes
    low, high = kind.range
    fields = reduce_fields(layer) | {
        "x_addr": x.at(rows.first), "n": rows.count * shape.width, "n_stride": shape.channels, "m": shape.channels,
        "out_addr": part.at(number * size), "out_type": kind, "out_zp": 0, "rescale": 0, "lo": max(low, -(2**31)), "hi": min(high, 2**31 - 1),
    }  # fmt: skip
    reads = [x.region(rows, Span(0, shape.width), Span(0, shape.channels))]
    cycles = context.costs.vector(rows.count * shape.width * shape.channels, x.element)
    context.step("VEC", "VRED", fields, reads, [part.region(number * size, size)], cycles)


def reduce_whole(context: Expansion, layer: Layer, parts: int, channels: int, kind: DType, part: Tile, y: Band) -> None:
    """All partial results to the result."""
    fields = reduce_fields(layer) | {
        "x_addr": part.at(0), "type": kind, "n": parts, "n_stride": channels, "m": channels, "out_addr": y.at(0), "x_zp": 0,
    }  # fmt: skip
    cycles = context.costs.vector(parts * channels, kind.size_bytes)
    reads = [part.region(0, parts * channels * kind.size_bytes)]
    context.step("VEC", "VRED", fields, reads, [y.region(Span(0, 1), Span(0, 1), Span(0, channels))], cycles)


def expand_reduction(context: Expansion, layer: Layer) -> None:
    """Expand reduce_{sum,mean,max,min} over axes that are adjacent in memory: `[outer, reduced, inner]`."""
    x, y = layer.op.inputs[0], layer.result
    outer, reduced, inner = reduction_extents(layer)
    element, out_element = x.dtype.size_bytes, y.dtype.size_bytes
    source, target = context.place(x), context.place(y)
    step = max(1, context.costs.vector_block_bytes // (reduced * element))
    for first in range(0, outer):
        for part in spans(inner, min(inner, step)):
            tile = context.tile(reduced * part.count * element, "x")
            dims = [CopyDim(reduced, inner * element, part.count * element), CopyDim(part.count, element, element)]
            offset = source.offset + (first * reduced * inner + part.first) * element
            context.load(source.buffer, offset, tile, dims, element)
            out = context.tile(part.count * out_element, "y")
            fields = reduce_fields(layer) | {
                "x_addr": tile.at(0), "n": reduced, "n_stride": part.count, "m": part.count, "out_addr": out.at(0),
            }  # fmt: skip
            cycles = context.costs.vector(reduced * part.count, element)
            context.step("VEC", "VRED", fields, [tile.region()], [out.region()], cycles)
            at = target.offset + (first * inner + part.first) * out_element
            context.store(out, target.buffer, at, [CopyDim(part.count * out_element, 1, 1)])


def reduction_extents(layer: Layer) -> tuple[int, int, int]:
    """Extents before, of and after the reduced axes in memory order; `ValueError` when they are not adjacent."""
    op, x = layer.op, layer.op.inputs[0]
    order = x.layout.permutation(x.type.rank)
    axes = {a % x.type.rank for a in op.attrs["axes"]}
    flags = [(axis in axes, x.shape[axis]) for axis in order if x.shape[axis] != 1]
    inside = [position for position, (hit, _) in enumerate(flags) if hit]
    if not inside:
        return 1, 1, math.prod(x.shape)
    if inside != list(range(inside[0], inside[-1] + 1)):
        raise ValueError("reduced axes are not adjacent in memory")
    sizes = [extent for _, extent in flags]
    return math.prod(sizes[: inside[0]]), math.prod(sizes[inside[0] : inside[-1] + 1]), math.prod(sizes[inside[-1] + 1 :])
