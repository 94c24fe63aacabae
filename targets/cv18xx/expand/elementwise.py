# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions of one or two tensors, tables among them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Region
from gadl.passes.plan.spans import Span, spans

from ..isa import Elementwise
from ..layers import Layer
from ..local import Tile, View
from .context import Block, Expansion
from .instructions import elementwise, look_up, weighted_sum
from .kernel import Kernel, integers, relu_of, sum_channels, sum_numbers, two_step

#: The most columns of an operand.
MOST_PIXELS = 4063


class ElementwiseKernel(Kernel):
    """add, sub, mul, min, max, relu, clamp, requantize."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self._weights: Block | None = None
        self._rows: dict[int, Block] = {}

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        match self.op.name:
            case "add" | "sub":
                self._sum(rows, sources, target)
            case "mul":
                multiplier, shift = two_step(self.op.attrs["requant"], 1)
                self._two(Elementwise.MUL, rows, sources, target, int(multiplier[0]), int(shift[0]))
            case "requantize":
                multiplier, shift = two_step(self.op.attrs["requant"], 1)
                x, y = self._view(self.op.inputs[0], sources, rows), target.view(rows)
                self.emit(elementwise(Elementwise.MUL, y, x, 1, int(shift[0]), int(multiplier[0])), [x], y)
            case "relu":
                self._bound(Elementwise.MAX, 0, self._view(self.op.inputs[0], sources, rows), target.view(rows))
            case "clamp":
                x, y = self._view(self.op.inputs[0], sources, rows), target.view(rows)
                self._bound(Elementwise.MAX, int(self.op.attrs["lo"]), x, y)
                self._bound(Elementwise.MIN, int(self.op.attrs["hi"]), y, y)
            case "min" | "max":
                self._two(Elementwise[self.op.name.upper()], rows, sources, target)
            case name:
                raise ValueError(f"'{name}' is not an elementwise layer")

    def _bound(self, function: Elementwise, bound: int, x: View, y: View) -> None:
        """No result beyond a bound."""
        self.emit(elementwise(function, y, x, bound), [x], y)

    def _view(self, value: Value, sources: Mapping[int, Tile], rows: Span, channels: Span | None = None) -> View:
        """Rows of an operand; one pixel for each channel, or one row of constants, is seen everywhere."""
        if value.is_constant:
            block, channels = self._row(value), channels or Span(0, self.shape.c)
            return View(block.at(), self.shape.n, channels.count, rows.count, self.shape.w, 0, 0, 0, 1, False, block.region)
        tile = sources[id(value)]
        if (tile.h, tile.w) != (1, 1) or (self.shape.h, self.shape.w) == (1, 1):
            return tile.view(rows, channels)
        one = tile.view(None, channels)
        return View(one.address, one.n, one.c, rows.count, self.shape.w, one.n_str, one.c_str, 0, 0, False, one.region)

    def _row(self, value: Value) -> Block:
        """A row of constants, in every lane."""
        if id(value) not in self._rows:
            data = integers(value)
            if data is None:
                raise ValueError("a row must be constant")
            row = np.ascontiguousarray(data).view(np.uint8).reshape(1, -1)
            self._rows[id(value)] = self.context.constant(row.size, lambda: row, f"{self.layer.name}.row")
        return self._rows[id(value)]

    def _two(self, function: Elementwise, rows: Span, sources: Mapping[int, Tile], target: Tile, multiplier: int = 0, shift: int = 0) -> None:
        """A function of two tensors, or of one and a number."""
        y = target.view(rows)
        a, b = self.op.inputs
        if a.is_constant:
            a, b = b, a
        constant = integers(b)
        x = self._view(a, sources, rows)
        single = constant is not None and constant.size == 1
        other = int(constant.reshape(-1)[0]) if single and constant is not None else self._view(b, sources, rows)
        self.emit(elementwise(function, y, x, other, shift, multiplier, relu=relu_of(self.layer)), [x, *([other] if isinstance(other, View) else [])], y)

    def _sum(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        """One filter over both operands where they have one form, else by way of 16 bits."""
        first, second, shift = sum_numbers(self.op.attrs["requant"])
        second = -second if self.op.name == "sub" else second
        a, b = (self._view(v, sources, rows) for v in self.op.inputs)
        y = target.view(rows)
        alike = a.w_str == b.w_str == 1 and a.region.buffer is not b.region.buffer and a.h_str == b.h_str == a.w == y.h_str
        if not alike or a.n > 1 or y.h * y.w > MOST_PIXELS or max(first, abs(second)) > 127 or not (
            a.starts_even and b.starts_even and y.starts_even
        ):
            self._sum_of_planes(rows, sources, target)
            return
        if self._weights is None:
            slots = -(-self.shape.c // self.lanes)

            def make() -> Array:
                filters = np.zeros((2, slots, 16), np.int8)
                filters[0, :, :2], filters[1, :, :2] = (first, second), (second, first)
                return filters.view(np.uint8).reshape(1, -1)

            self._weights = self.context.constant(2 * slots * 16, make, f"{self.layer.name}.factors")
        block = self._weights
        weights = block.at(), block.at(block.buffer.size // 2)
        # Where channels are not equally far apart in both operands, those of one slot at a time.
        for channels in spans(self.shape.c, self.shape.c if a.c_str == b.c_str else self.lanes):
            a, b = (self._view(v, sources, rows, channels) for v in self.op.inputs)
            y = target.view(rows, channels)
            self.emit(weighted_sum(a, b, y, weights, shift, relu_of(self.layer)), [a, b, block], y)

    def _sum_of_planes(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        """`(a*ca + b*cb)` shifted: a product of 16 bits, to which the other one is added and which is cut to 8 bits in place.

        Its upper byte plane lies behind the result (`result_bytes`), some channels at a time.
        """
        first, second, shift = sum_numbers(self.op.attrs["requant"])
        second = -second if self.op.name == "sub" else second
        part = sum_channels(self.shape, self.lanes)
        for channels in spans(self.shape.c, part):
            y = target.view(rows, channels)
            size = target.n * target.n_str
            plane = size - channels.first // self.lanes * target.c_str
            upper = Region(target.buffer, target.offset + size, target.n * -(-channels.count // self.lanes) * target.c_str)
            a, b = (self._view(v, sources, rows, channels) for v in self.op.inputs)
            for source, factor, added in ((a, first, False), (b, second, True)):
                fields = elementwise(
                    Elementwise.MAC if added else Elementwise.MUL, y, source, factor, shift if added else 0, 0, (plane, 0, 0), added, factor > 127,
                    added and relu_of(self.layer),
                )
                reads = [source.region, *([y.region, upper] if added else [])]
                self.context.compute(fields, reads, [y.region, upper])


class LookUp(Kernel):
    """A table of 256 entries."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self._table: Block | None = None

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        if self._table is None:
            self._table = self.context.constant(256, lambda: table_of(self.layer)[None], f"{self.layer.name}.table")
        x, y = self.exact(self.source(sources), rows).view(rows), target.view(rows)
        made = y if y.aligned else self.apart(rows).view()
        self.emit(look_up(x, made, self._table.at(), self.lanes), [x, self._table], made)
        if made is not y:
            self.emit_copy(made, y)


def table_of(layer: Layer) -> Array:
    """u8[256] by the operand's byte: 0 to 127, then -128 to -1."""
    table = np.asarray(layer.op.attrs["table"], np.int8).reshape(-1)
    return np.concatenate([table[128:], table[:128]]).view(np.uint8)


