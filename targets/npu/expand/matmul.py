# SPDX-License-Identifier: Apache-2.0
"""Products of two activations, one batch item at a time."""

from __future__ import annotations

import itertools
from typing import Any

from gadl.compiler.ir.types import Requant
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref, Region

from ..isa import Activation
from ..layers import Layer, Window
from .bands import spans
from .context import ACC, Expansion
from .copying import CopyDim
from .drain import clamp_of
from .window import load_table


def matmul_window(layer: Layer) -> Window:
    """One batch item as a 1x1 window: rows are pixels, columns of B are output channels."""
    m, k = layer.op.inputs[0].shape[-2:]
    n = layer.op.result.shape[-1]
    return Window(1, m, 1, k, m, 1, n, 1, 1, 1, 1, 1, 1, 0, 0)


def expand_matmul(context: Expansion, layer: Layer, plan: LayerPlan) -> None:
    """Expand `a[..., M, K] . b[..., K, N]`."""
    op, result = layer.op, layer.result
    a, b = op.inputs[0], op.inputs[1]
    element, out_element = a.dtype.size_bytes, result.dtype.size_bytes
    k, n = a.shape[-1], result.shape[-1]
    table = load_table(context, layer)
    a_place, b_place, y_place = context.place(a), context.place(b), context.place(result)
    zero = [v.quant.zero_point if v.quant is not None else 0 for v in (a, b, op.result)]
    low, high = clamp_of(layer)
    requant: Requant | None = op.attrs.get("requant")
    window = matmul_window(layer)
    piece = context.costs.accumulator_piece(window, plan.rows, n, a.dtype)
    lead = result.type.rank - 2
    for index in itertools.product(*(range(d) for d in result.shape[:-2])):
        a_at, b_at, y_at = (
            place.offset + sum(
                i * s for i, s, d in zip(index[lead - (value.type.rank - 2) :], place.strides, value.shape) if d != 1
            )
            for value, place in ((a, a_place), (b, b_place), (result, y_place))
        )  # fmt: skip
        b_tile = context.tile(k * n * element, "b")
        b_dims = [CopyDim(k, b_place.strides[-2], n * element), CopyDim(n, b_place.strides[-1], element)]
        context.load(b_place.buffer, b_at, b_tile, b_dims, element)
        for rows in spans(a.shape[-2], plan.rows):
            a_tile = context.tile(rows.count * k * element, "a")
            a_dims = [CopyDim(rows.count, a_place.strides[-2], k * element), CopyDim(k, a_place.strides[-1], element)]
            context.load(a_place.buffer, a_at + rows.first * a_place.strides[-2], a_tile, a_dims, element)
            out = context.tile(rows.count * n * out_element, "y")
            for part in spans(rows.count, piece.rows):
                for columns in spans(n, piece.channels):
                    cells = part.count * columns.count
                    acc = context.program.buffer(ACC, cells * context.costs.cell_bytes(a.dtype), "acc", alignment=64)
                    region = Region(acc, 0, acc.size)
                    product: dict[str, Any] = {
                        "a_addr": a_tile.at(part.first * k * element), "b_addr": b_tile.at(columns.first * element),
                        "m": part.count, "n": columns.count, "k": k, "a_stride": k * element, "b_stride": n * element,
                        "b_kn": 1, "a_zp": zero[0], "b_zp": zero[1], "x_type": a.dtype, "w_type": b.dtype, "acc_addr": Ref(acc),
                    }  # fmt: skip
                    cycles = context.costs.mma(window, part.count, 1, columns.count, a.dtype)
                    context.step("MMA", "MMA_MATMUL", product, [a_tile.region(), b_tile.region()], [region], cycles)
                    start = part.first * n * out_element + columns.first * out_element
                    drain: dict[str, Any] = {
                        "acc_addr": Ref(acc), "oh": part.count, "ow": 1, "oc": columns.count, "x_type": a.dtype,
                        "out_addr": out.at(start), "out_row_stride": n * out_element, "out_pix_stride": n * out_element,
                        "out_type": result.dtype, "zp": zero[2], "lo": low, "hi": high,
                    }  # fmt: skip
                    if requant is not None:
                        drain |= {"requant": 1, "rounding": requant.rounding, "multiplier": int(requant.multiplier[0]),
                                  "shift": int(requant.shift[0])}
                    reads = [region]
                    if table is not None:
                        drain |= {"activation": Activation.LUT, "lut_addr": table.at(0)}
                        reads.append(table.region())
                    hull = (part.count - 1) * n * out_element + columns.count * out_element
                    context.step("MMA", "EPI", drain, reads, [out.region(start, hull)], context.costs.epi(cells))
            y_dims = [CopyDim(rows.count, n * out_element, y_place.strides[-2]), CopyDim(n, out_element, y_place.strides[-1])]
            context.store(out, y_place.buffer, y_at + rows.first * y_place.strides[-2], y_dims, out_element)
