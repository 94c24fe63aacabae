# SPDX-License-Identifier: Apache-2.0
"""Resampling on the vector unit, positions from tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from gadl.compiler.ir.ops.shape import RESIZE_BITS, linear_taps, nearest_index, source_positions
from gadl.compiler.ir.types import Array, Requant
from gadl.passes.plan.plan import LayerPlan

from ..layers import Layer
from .context import Expansion
from .copying import CopyDim
from .pooling import store_rows
from .window import row_strides, spans


def taps_of(layer: Layer, axis: int) -> Array:
    """Table of one axis: i16[out, 4] of lower index, upper index, weight of the upper one, 0."""
    op, x = layer.op, layer.op.inputs[0]
    out, extent = op.attrs["sizes"][axis], x.shape[axis]
    position = source_positions(extent, out, op.attrs["scales"][axis], op.attrs["coordinate"])
    table = np.zeros((out, 4), "<i2")
    if op.attrs["mode"] == "nearest":
        table[:, 0] = table[:, 1] = nearest_index(position, extent, op.attrs["nearest"])
    else:
        low, high, weight = linear_taps(position, extent)
        table[:, 0], table[:, 1], table[:, 2] = low, high, np.rint(weight * (1 << RESIZE_BITS))
    return table


def expand_resize(context: Expansion, layer: Layer, plan: LayerPlan) -> None:
    """Expand a nearest or bilinear resize of rows and columns."""
    op, x, y = layer.op, layer.op.inputs[0], layer.result
    element, channels = x.dtype.size_bytes, x.shape[1]
    rows_table, columns_table = taps_of(layer, 2), taps_of(layer, 3)
    rows_tile = context.load_constant(rows_table, "row table")
    columns_tile = context.load_constant(columns_table, "column table")
    place, width, out_width = context.place(x), x.shape[3], y.shape[3]
    low, high = y.dtype.range if y.dtype.is_integer else (float("-inf"), float("inf"))
    zero = x.quant.zero_point if x.quant is not None else 0
    out_zero = y.quant.zero_point if y.quant is not None else 0
    requant: Requant | None = op.attrs.get("requant")
    for image in range(x.shape[0]):
        image_stride, row_stride, pixel_stride = row_strides(x, place.strides, op)
        for rows in spans(y.shape[2], plan.rows):
            part = rows_table[rows.first : rows.end]
            first, end = int(part[:, :2].min()), int(part[:, :2].max()) + 1
            tile = context.tile((end - first) * width * channels * element, "x")
            dims = [
                CopyDim(end - first, row_stride, width * channels * element),
                CopyDim(width, pixel_stride, channels * element),
                CopyDim(channels, element, element),
            ]
            context.load(place.buffer, place.offset + image * image_stride + first * row_stride, tile, dims, element)
            out = context.tile(rows.count * out_width * channels * element, "y")
            fields: dict[str, Any] = {
                "x_addr": tile.at(0), "x_row_stride": width * channels * element, "x_pix_stride": channels * element,
                "ih": end - first, "iw": width, "c": channels, "type": x.dtype, "out_addr": out.at(0),
                "out_row_stride": out_width * channels * element, "out_pix_stride": channels * element,
                "oh": rows.count, "ow": out_width, "row_base": first, "nearest": int(op.attrs["mode"] == "nearest"),
                "row_table": rows_tile.at(rows.first * 8), "col_table": columns_tile.at(0), "x_zp": zero,
                "out_zp": out_zero, "lo": low, "hi": high,
            }  # fmt: skip
            if requant is not None:
                fields |= {"multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0]), "rounding": requant.rounding}
            count = rows.count * out_width * channels * (1 if op.attrs["mode"] == "nearest" else 4)
            reads = [tile.region(), rows_tile.region(), columns_tile.region()]
            context.step("VEC", "VRSZ", fields, reads, [out.region()], context.costs.vector(count, element))
            store_rows(context, layer, image, rows, out_width, channels, out)
