# SPDX-License-Identifier: Apache-2.0
"""Products of two activations: one batch item at a time from memory to memory, or rows between bands."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Requant
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref, Region
from gadl.passes.plan.rows import RowMap
from gadl.passes.plan.spans import Span, spans

from ..isa import Activation
from ..layers import Layer, Window, product_window
from .bands import Band, row_shape
from .context import ACC, Expansion, Tile
from .copying import CopyDim
from .drain import clamp_of
from .kernel import Kernel
from .window import load_table


def matmul_window(layer: Layer) -> Window:
    """One batch item as a window."""
    m, k = layer.op.inputs[0].shape[-2:]
    return product_window(m, k, layer.op.result.shape[-1])


def matmul_reads(layer: Layer) -> list[tuple[Value, RowMap]]:
    """The result's rows are those of all batch items, one below the other: each reads its own row of A, and all rows of its item's B."""
    a, b, y = layer.op.inputs[0], layer.op.inputs[1], layer.result
    shapes = [row_shape(v) for v in (a, b, y)]
    items, other = y.shape[:-2], math.prod(b.shape[:-2])
    if a.shape[:-2] != items or (b.shape[:-2] != items and other != 1) or a is b:
        return []
    for value, shape in zip((a, b, y), shapes):
        rows = value.type.element_count // value.shape[-1]
        if shape is None or shape.images != 1 or shape.rows != rows or value.is_constant:
            return []
    (m, k), count = a.shape[-2:], math.prod(items) * a.shape[-2]
    item = np.arange(count, dtype=np.int64) // (m if other > 1 else count)
    return [(a, RowMap.same(count)), (b, RowMap(item * k, (item + 1) * k))]


@dataclass(frozen=True)
class Block:
    """Where the rows of a product lie: A, B and the result, from their first elements on; rows are dense."""

    a: Ref
    b: Ref
    y: Ref
    rows: int


class Product:
    """Array and drain steps of a layer's product."""

    def __init__(self, context: Expansion, layer: Layer, rows: int) -> None:
        self.context, self.layer, op = context, layer, layer.op
        a, b = op.inputs
        self.type, self.k, self.n = a.dtype, a.shape[-1], layer.result.shape[-1]
        self.window = matmul_window(layer)
        self.piece = context.costs.accumulator_piece(self.window, rows, self.n, a.dtype)
        self.table: Tile | None = load_table(context, layer)
        zero = [v.quant.zero_point if v.quant is not None else 0 for v in (a, b, op.result)]
        low, high = clamp_of(layer)
        self.product = {"b_kn": 1, "a_zp": zero[0], "b_zp": zero[1], "x_type": a.dtype, "w_type": b.dtype}
        self.drain: dict[str, Any] = {"x_type": a.dtype, "out_type": layer.result.dtype, "zp": zero[2], "lo": low, "hi": high}
        requant: Requant | None = op.attrs.get("requant")
        if requant is not None:
            self.drain |= {"requant": 1, "rounding": requant.rounding, "multiplier": int(requant.multiplier[0]), "shift": int(requant.shift[0])}
        if self.table is not None:
            self.drain |= {"activation": Activation.LUT, "lut_addr": self.table.at(0)}

    def block(self, block: Block) -> None:
        """All columns of some rows of one batch item, in pieces that the accumulators hold."""
        for part in spans(block.rows, self.piece.rows):
            for columns in spans(self.n, self.piece.channels):
                self._piece(block, part, columns)

    def _piece(self, block: Block, part: Span, columns: Span) -> None:
        context, k, n, element, out_element = self.context, self.k, self.n, self.type.size_bytes, self.layer.result.dtype.size_bytes
        cells = part.count * columns.count
        acc = context.program.buffer(ACC, cells * context.costs.cell_bytes(self.type), "acc", alignment=64)
        a, b = Ref(block.a.buffer, block.a.offset + part.first * k * element), Ref(block.b.buffer, block.b.offset + columns.first * element)
        product = self.product | {
            "a_addr": a, "b_addr": b, "m": part.count, "n": columns.count, "k": k, "a_stride": k * element, "b_stride": n * element,
            "acc_addr": Ref(acc),
        }  # fmt: skip
        reads = [
            Region(a.buffer, a.offset, part.count * k * element),
            Region(b.buffer, b.offset, ((k - 1) * n + columns.count) * element),
        ]
        cycles = context.costs.mma(self.window, part.count, 1, columns.count, self.type)
        context.step("MMA", "MMA_MATMUL", product, reads, [Region(acc, 0, acc.size)], cycles)
        y = Ref(block.y.buffer, block.y.offset + (part.first * n + columns.first) * out_element)
        drain = self.drain | {
            "acc_addr": Ref(acc), "oh": part.count, "ow": 1, "oc": columns.count, "out_addr": y, "out_row_stride": n * out_element,
            "out_pix_stride": n * out_element,
        }  # fmt: skip
        read = [Region(acc, 0, acc.size)] if self.table is None else [Region(acc, 0, acc.size), self.table.region()]
        hull = (part.count - 1) * n * out_element + columns.count * out_element
        context.step("MMA", "EPI", drain, read, [Region(y.buffer, y.offset, hull)], context.costs.epi(cells))


class MatmulKernel(Kernel):
    """Rows of the result between bands, one batch item after the other."""

    product: Product | None = None

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        a, b = (sources[id(v)] for v in self.layer.op.inputs)
        m, k = self.layer.op.inputs[0].shape[-2:]
        if self.product is None:
            self.product = Product(self.context, self.layer, min(m, rows.count))
        row, single = rows.first, math.prod(self.layer.op.inputs[1].shape[:-2]) == 1
        while row < rows.end:
            item = row // m
            count = min(rows.end, (item + 1) * m) - row
            self.product.block(Block(a.at(row), b.at(0 if single else item * k), target.at(row), count))
            row += count


def expand_matmul(context: Expansion, layer: Layer, plan: LayerPlan) -> None:
    """Expand `a[..., M, K] . b[..., K, N]` from memory to memory."""
    result, a, b = layer.result, layer.op.inputs[0], layer.op.inputs[1]
    element, out_element = a.dtype.size_bytes, result.dtype.size_bytes
    k, n = a.shape[-1], result.shape[-1]
    product = Product(context, layer, plan.rows)
    a_place, b_place, y_place = context.place(a), context.place(b), context.place(result)
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
            product.block(Block(a_tile.at(0), b_tile.at(0), out.at(0), rows.count))
            y_dims = [CopyDim(rows.count, n * out_element, y_place.strides[-2]), CopyDim(n, out_element, y_place.strides[-1])]
            context.store(out, y_place.buffer, y_at + rows.first * y_place.strides[-2], y_dims, out_element)
