# SPDX-License-Identifier: Apache-2.0
"""Pooling, spatial reduction and resizing on the vector unit: row tiles, channels innermost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gadl.compiler.ir.types import Requant
from gadl.passes.plan.plan import LayerPlan

from ..isa import Pool, Reduce
from ..layers import Layer, Window, window_of
from .context import Expansion, Tile
from .copying import CopyDim
from .window import Span, row_strides, spans

_REDUCTIONS = {
    "reduce_sum": Reduce.SUM, "reduce_mean": Reduce.SUM, "reduce_max": Reduce.MAX, "reduce_min": Reduce.MIN,
}  # fmt: skip


class PoolExpansion:
    """Expands max_pool and avg_pool."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        self.context, self.layer, self.plan, self.op = context, layer, plan, layer.op
        self.window: Window = window_of(layer.op)
        self.x = layer.op.inputs[0]
        self.table: Tile | None = None

    def run(self) -> None:
        """Emit all row tiles."""
        requant: Requant | None = self.op.attrs.get("requant")
        if requant is not None and requant.per_channel:
            pairs = np.concatenate([requant.multiplier.astype("<i4"), requant.shift.astype("<i4")])
            self.table = self.context.load_constant(pairs.tobytes(), "requant by count")
        for image in range(self.window.batch):
            for rows in spans(self.window.oh, self.plan.rows):
                self._tile(image, rows)

    def _tile(self, image: int, rows: Span) -> None:
        window, element = self.window, self.x.dtype.size_bytes
        first, end = window.input_rows(rows.first, rows.count)
        pixel = window.ic * element
        x = self.context.tile(max(1, end - first) * window.iw * pixel, "x")
        place = self.context.place(self.x)
        image_stride, row_stride, pixel_stride = row_strides(self.x, place.strides, self.op)
        dims = [
            CopyDim(end - first, row_stride, window.iw * pixel),
            CopyDim(window.iw, pixel_stride, pixel),
            CopyDim(window.ic, element, element),
        ]
        self.context.load(place.buffer, place.offset + image * image_stride + first * row_stride, x, dims, element)
        y = self.context.tile(rows.count * window.ow * pixel, "y")
        reads = [x.region()] if self.table is None else [x.region(), self.table.region()]
        elements = rows.count * window.ow * window.oc
        cycles = self.context.costs.vector(elements * window.kh * window.kw, element)
        self.context.step("VEC", "VPOOL", self._fields(rows, first, end, x, y), reads, [y.region()], cycles)
        store_rows(self.context, self.layer, image, rows, window.ow, window.oc, y)

    def _fields(self, rows: Span, first: int, end: int, x: Tile, y: Tile) -> dict[str, Any]:
        window, element = self.window, self.x.dtype.size_bytes
        top = rows.first * window.stride_h - window.pad_top
        low, high = self.x.dtype.range if self.x.dtype.is_integer else (float("-inf"), float("inf"))
        zero = self.x.quant.zero_point if self.x.quant is not None else 0
        out_zero = self.op.result.quant.zero_point if self.op.result.quant is not None else 0
        fields: dict[str, Any] = {
            "function": Pool.MAX if self.op.name == "max_pool" else Pool.AVG, "x_type": self.x.dtype,
            "x_addr": x.at(0), "x_row_stride": window.iw * window.ic * element, "x_pix_stride": window.ic * element,
            "ih": end - first, "iw": window.iw, "ic": window.ic, "kh": window.kh, "kw": window.kw,
            "stride_h": window.stride_h, "stride_w": window.stride_w, "dil_h": window.dilation_h,
            "dil_w": window.dilation_w, "pad_top": first - top, "pad_left": window.pad_left,
            "out_addr": y.at(0), "out_row_stride": window.ow * window.oc * element, "out_pix_stride": window.oc * element,
            "oh": rows.count, "ow": window.ow, "x_zp": zero, "out_zp": out_zero, "lo": low, "hi": high,
        }  # fmt: skip
        requant: Requant | None = self.op.attrs.get("requant")
        if requant is not None:
            fields["rounding"] = requant.rounding
            if self.table is not None:
                fields |= {"table_addr": self.table.at(0), "entries": len(requant.multiplier)}
            else:
                fields |= {"multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0])}
        return fields


def store_rows(context: Expansion, layer: Layer, image: int, rows: Span, width: int, channels: int, y: Tile) -> None:
    """Store an output tile `[rows, width, channels]` that is dense in SRAM."""
    element = layer.result.dtype.size_bytes
    place = context.place(layer.result)
    image_stride, row_stride, pixel_stride = row_strides(layer.result, place.strides, layer.op)
    pixel = channels * element
    dims = [
        CopyDim(rows.count, width * pixel, row_stride),
        CopyDim(width, pixel, pixel_stride),
        CopyDim(channels, element, element),
    ]
    offset = place.offset + image * image_stride + rows.first * row_stride
    context.store(y, place.buffer, offset, dims, element)


def expand_reduction(context: Expansion, layer: Layer) -> None:
    """Expand reduce_{sum,mean,max,min} over axes that are adjacent in memory: `[outer, reduced, inner]`."""
    op, x, y = layer.op, layer.op.inputs[0], layer.result
    outer, reduced, inner = reduction_extents(layer)
    element, out_element = x.dtype.size_bytes, y.dtype.size_bytes
    source, target = context.place(x), context.place(y)
    zero = x.quant.zero_point if x.quant is not None else 0
    out_zero = y.quant.zero_point if y.quant is not None else 0
    low, high = y.dtype.range if y.dtype.is_integer else (float("-inf"), float("inf"))
    step = max(1, context.costs.vector_block_bytes // (reduced * element))
    for first in range(0, outer):
        for part in spans(inner, min(inner, step)):
            tile = context.tile(reduced * part.count * element, "x")
            dims = [CopyDim(reduced, inner * element, part.count * element), CopyDim(part.count, element, element)]
            offset = source.offset + (first * reduced * inner + part.first) * element
            context.load(source.buffer, offset, tile, dims, element)
            out = context.tile(part.count * out_element, "y")
            fields: dict[str, Any] = {
                "function": _REDUCTIONS[op.name], "type": x.dtype,
                "x_addr": tile.at(0), "n": reduced, "n_stride": part.count, "m": part.count, "m_stride": 1,
                "out_addr": out.at(0), "out_type": y.dtype, "x_zp": zero, "out_zp": out_zero, "lo": low, "hi": high,
            }  # fmt: skip
            requant: Requant | None = op.attrs.get("requant")
            if requant is not None:
                fields |= {"rescale": 1, "rounding": requant.rounding, "multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0])}
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
