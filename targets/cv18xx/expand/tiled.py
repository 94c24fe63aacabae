# SPDX-License-Identifier: Apache-2.0
"""A dense convolution from memory to memory: tiles of rows and output channels, the input channels in parts where they are many."""

from __future__ import annotations

from gadl.compiler.ir.types import Array
from gadl.passes.plan.plan import LayerPlan, LoopOrder
from gadl.passes.plan.spans import Span, spans

from ..layers import Layer
from ..local import Tile, View, align
from .context import LOCAL, Block, Expansion
from .convolution import Convolution, dense_weights, summed_channels, weight_rows
from .instructions import RECORD, Padding, Parts, convolution
from .kernel import by_lane, packed, relu_of


class TiledConvolution(Convolution):
    """Loads, multiplies and stores tiles in the order of a plan."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self._parts: dict[tuple[int, int], tuple[Block, int]] = {}
        self._operands: dict[tuple[int, int, int], Tile] = {}

    def run(self) -> None:
        """Emit all steps."""
        self.context.op = self.layer.index
        rows = list(spans(self.shape.h, self.plan.rows or self.shape.h))
        chunks = list(spans(self.shape.c, self.plan.channels or self.shape.c))
        if self.plan.order is LoopOrder.CHANNELS:
            for channels in chunks:
                for some in rows:
                    self._tile(some, channels)
                    if not self.plan.resident:
                        self._operands.clear()
                self._parts.clear()
            return
        for some in rows:
            for channels in chunks:
                self._tile(some, channels)
                if not self.plan.resident:
                    self._parts.clear()
            self._operands.clear()

    def _tile(self, rows: Span, channels: Span) -> None:
        held = self.reads(rows)
        inputs = list(spans(self.operand.c, self.plan.depth or self.operand.c))
        size = Tile.size(self.lanes, self.shape.n, channels.count, rows.count, self.shape.w)
        buffer = self.context.program.buffer(LOCAL, size * (4 if len(inputs) > 1 else 1), self.layer.result.name)
        target = Tile(buffer, self.lanes, self.shape.n, channels.count, rows.count, self.shape.w, rows.first)
        for number, some in enumerate(inputs):
            parts = Parts.WHOLE
            if len(inputs) > 1:
                parts = Parts.FIRST if number == 0 else Parts.LAST if number == len(inputs) - 1 else Parts.MIDDLE
            tile = self._operand(held, some)
            x, padding = self._prepared(tile, rows, held)
            self._multiply(x, padding, channels, some, target, parts)
        self.context.store(target.view(), self.layer.result, rows, channels)

    def _prepared(self, tile: Tile, rows: Span, held: Span) -> tuple[Tile, Padding]:
        padding = self.padding(rows, held)
        if max(padding.up, padding.down, padding.left, padding.right) <= 15:
            return tile, padding
        around = Span(held.first - padding.up, held.count + padding.up + padding.down)
        return self.copied(tile, held, around, padding.left, padding.right), Padding(0, 0, 0, 0, padding.value)

    def _operand(self, held: Span, inputs: Span) -> Tile:
        """Rows of some input channels, from memory where they are not there."""
        key = held.first, held.count, inputs.first
        if key not in self._operands:
            x = self.operand
            size = Tile.size(self.lanes, x.n, inputs.count, held.count, x.w)
            buffer = self.context.program.buffer(LOCAL, size, self.op.inputs[0].name)
            tile = Tile(buffer, self.lanes, x.n, inputs.count, held.count, x.w, held.first)
            self.context.load(self.op.inputs[0], tile.view(), held, inputs)
            self._operands[key] = tile
        return self._operands[key]

    def _multiply(self, x: Tile, padding: Padding, channels: Span, inputs: Span, target: Tile, parts: Parts) -> None:
        block, at = self._weights_of(channels, inputs)
        view, y = x.view(), target.view()
        count = summed_channels(view.c)
        view = View(view.address, view.n, count, view.h, view.w, view.n_str, view.c_str, view.h_str, 1, view.aligned, view.region)
        planes = 0 if parts is Parts.WHOLE else target.n * target.n_str
        fields = convolution(view, y, block.at(), block.at(at), self.window, padding, relu_of(self.layer), parts, planes)
        region = y.region if not planes else target.whole
        reads = [view.region, block.region, *([region] if parts in (Parts.MIDDLE, Parts.LAST) else [])]
        self.context.compute(fields, reads, [region])

    def _weights_of(self, channels: Span, inputs: Span) -> tuple[Block, int]:
        """Weights of a tile; the last part of a sum brings the records."""
        key = channels.first, inputs.first
        if key not in self._parts:
            slots = -(-channels.count // self.lanes)
            at = align(slots * self.window.kh * self.window.kw * summed_channels(inputs.count))
            last = inputs.end == self.operand.c

            def make() -> Array:
                if self._weights is None:
                    self._weights = dense_weights(self.op)
                weights = by_lane(weight_rows(self._weights, channels, inputs), self.lanes)
                return packed(weights, self._records(channels)) if last else weights

            size = at + slots * RECORD if last else slots * self.window.kh * self.window.kw * summed_channels(inputs.count)
            self._parts[key] = self.context.constant(size, make, f"{self.layer.name}.weights"), at
        return self._parts[key]
