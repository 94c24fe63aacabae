# SPDX-License-Identifier: Apache-2.0
"""Resampling on the vector unit, positions from tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from gadl.compiler.ir.ops.shape import RESIZE_BITS, linear_taps, nearest_index, source_positions
from gadl.compiler.ir.types import Array, Requant
from gadl.passes.plan.spans import Span

from ..layers import Layer
from .bands import Band
from .context import Expansion, Tile


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


def resize_tables(context: Expansion, layer: Layer) -> tuple[Tile, Tile]:
    """The row and the column table on chip."""
    return context.load_constant(taps_of(layer, 2), "row table"), context.load_constant(taps_of(layer, 3), "column table")


def resize_rows(context: Expansion, layer: Layer, rows: Span, x: Band, y: Band, tables: tuple[Tile, Tile]) -> None:
    """Output rows of a nearest or bilinear resize. `x` holds every row that they read."""
    op, source, result = layer.op, layer.op.inputs[0], layer.result
    part = taps_of(layer, 2)[rows.first : rows.end, :2]
    first, end = int(part.min()), int(part.max()) + 1
    width, channels, nearest = source.shape[3], source.shape[1], op.attrs["mode"] == "nearest"
    low, high = result.dtype.range if result.dtype.is_integer else (float("-inf"), float("inf"))
    fields: dict[str, Any] = {
        "x_addr": x.at(first), "x_row_stride": x.row_bytes, "x_pix_stride": x.pixel_bytes, "ih": end - first, "iw": width,
        "c": channels, "type": source.dtype, "out_addr": y.at(rows.first), "out_row_stride": y.row_bytes,
        "out_pix_stride": y.pixel_bytes, "oh": rows.count, "ow": result.shape[3], "row_base": first, "nearest": int(nearest),
        "row_table": tables[0].at(rows.first * 8), "col_table": tables[1].at(0), "lo": low, "hi": high,
        "x_zp": source.quant.zero_point if source.quant is not None else 0,
        "out_zp": result.quant.zero_point if result.quant is not None else 0,
    }  # fmt: skip
    requant: Requant | None = op.attrs.get("requant")
    if requant is not None:
        fields |= {"multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0]), "rounding": requant.rounding}
    cycles = context.costs.vector(rows.count * result.shape[3] * channels * (1 if nearest else 4), x.element)
    reads = [x.region(Span(first, end - first), Span(0, width), Span(0, channels)), tables[0].region(), tables[1].region()]
    context.step("VEC", "VRSZ", fields, reads, [y.region(rows, Span(0, result.shape[3]), Span(0, channels))], cycles)
