# SPDX-License-Identifier: Apache-2.0
"""A group of layers in iterations: every layer advances by some rows, intermediates stay in local memory.

A dense convolution sees its operand only in the aligned form, whose channel stride follows from the number of rows. So each iteration
has a tile of its own for a value, of just the rows that are still read; rows that the next one reads again are put aside, and
copied into its tile. Where all readers take strides, the tiles of all iterations have one place and one channel stride.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Rounding
from gadl.passes.plan.in_place import Chain
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder
from gadl.passes.plan.program import Buffer
from gadl.passes.plan.rows import RowFlow, RowLayer
from gadl.passes.plan.spans import Span, spans

from ..layers import REDUCTIONS, Layer, by_channel, is_depthwise, row_reads
from ..local import ALIGNMENT, Tile, align
from .context import LOCAL, Expansion
from .convolution import Sum, convolution_kernel
from .elementwise import ElementwiseKernel, LookUp
from .kernel import Kernel, shape_or_raise, sum_channels
from .movement import Concat
from .pooling import AveragePool, MaxPool
from .resize import Bilinear, Nearest


def kernel_of(context: Expansion, layer: Layer, plan: LayerPlan) -> Kernel:
    """The kernel of a layer that runs by rows."""
    op = layer.op
    match op.name:
        case "conv" | "conv_transpose":
            return convolution_kernel(context, layer, plan)
        case "avg_pool" | "reduce_mean" | "reduce_sum":
            small = op.attrs["requant"].rounding is Rounding.UP
            return (AveragePool if small else Sum)(context, layer, plan)
        case "max_pool" | "reduce_max":
            return MaxPool(context, layer, plan)
        case "lut":
            return LookUp(context, layer, plan)
        case "resize":
            return (Nearest if op.attrs["mode"] == "nearest" else Bilinear)(context, layer, plan)
        case "concat":
            return Concat(context, layer, plan)
        case _:
            return ElementwiseKernel(context, layer, plan)


def row_layers(layers: Sequence[Layer]) -> tuple[list[RowLayer], dict[int, int]] | None:
    """The flow's view of a group, and the rows of every value (by `id`); None when a layer does not run by rows."""
    found: list[RowLayer] = []
    heights: dict[int, int] = {}
    for layer in layers:
        reads = row_reads(layer)
        if reads is None:
            return None
        for value in (layer.result, *(v for v, _ in reads)):
            heights[id(value)] = shape_or_raise(value).h
        found.append(RowLayer(id(layer.result), tuple((id(v), rows) for v, rows in reads)))
    return found, heights


def row_pitch(width: int, halo: float) -> int:
    """Elements from row to row so that rows behind a halo begin at a multiple of 16."""
    return align(width) if int(halo) * width % ALIGNMENT else width


def tile_bytes(layer: Layer, lanes: int, rows: int, channels: int = 0, pitch: int = 0) -> int:
    """Bytes per lane of a result's tile (`channels` of it, 0: all); sums have room for a second byte plane behind it."""
    shape = shape_or_raise(layer.result)
    count, width = channels or shape.c, pitch or shape.w
    size = Tile.size(lanes, shape.n, count, rows, width)
    if layer.op.name in ("add", "sub"):
        size += Tile.size(lanes, shape.n, min(count, sum_channels(shape, lanes)), rows, width)
    return size


def takes_strides(layer: Layer) -> bool:
    """True for a layer that reads rows where they lie."""
    return is_depthwise(layer.op) or layer.op.name not in ("conv", "conv_transpose", "lut")


#: Bytes of a lane that some channels of operands and result may take, where a layer runs through its channels.
SLICE_BYTES = 6 << 10


def slice_of(layer: Layer, lanes: int) -> tuple[int, int]:
    """Channels and rows that a layer makes at a time which runs through its channels; zeros where it cannot."""
    y, reads = shape_or_raise(layer.result), row_reads(layer)
    if not by_channel(layer.op) or reads is None or y.n > 1:
        return 0, 0
    shapes = [(shape_or_raise(v), rows_of) for v, rows_of in reads]
    each = align(y.h * y.w) + sum(align(x.h * x.w) for x, _ in shapes)
    if each <= SLICE_BYTES or layer.op.name in REDUCTIONS:
        return max(1, SLICE_BYTES // each) * lanes, y.h
    for rows in range(y.h - 1, 0, -1):
        taken = align(rows * y.w)
        for x, rows_of in shapes:
            taken += align(int((rows_of.high[rows - 1 :] - rows_of.low[: y.h - rows + 1]).max()) * x.w)
        if taken <= SLICE_BYTES or rows == 1:
            return lanes, rows
    return 0, 0


class GroupExpansion:
    """Expands one group.

    `stored` are the results that must reach memory, `kept` those that stay in local memory for later groups (both by `id`), `chains`
    where values lie that take each other's place.
    """

    def __init__(
        self, context: Expansion, layers: Sequence[Layer], plan: GroupPlan, stored: set[int], kept: set[int], chains: Mapping[int, Chain]
    ) -> None:
        self.chains, self.plan = chains, plan
        self.context, self.layers, self.stored, self.kept = context, layers, stored, kept
        found = row_layers(layers)
        if found is None:
            raise ValueError("a layer of the group does not run by rows")
        # Rows of what is kept whole come so that each iteration's begin evenly there.
        units = {v: 16 // math.gcd(16, w) for v, w in ((id(x.result), shape_or_raise(x.result).w) for x in layers) if v in kept}
        self.flow = RowFlow(*found, plan.iterations, units)
        self.made_here = {id(layer.result): layer for layer in layers}
        self.tiles: dict[int, Tile] = {}
        #: The buffer of a value whose tiles have one place, and the rows that a channel has room for.
        self.places: dict[int, tuple[Buffer, int, int]] = {}
        self.last = {id(v): layer.index for layer in layers for v in layer.op.inputs}
        self.kernels = [kernel_of(context, layer, chosen) for layer, chosen in zip(layers, plan.layers, strict=True)]
        for layer, kernel in zip(layers, self.kernels):
            chain = chains.get(id(layer.result))
            kernel.backwards = chain is not None and id(layer.result) in chain.from_bottom

    def run(self) -> None:
        """Emit all steps."""
        self.tiles = dict(self.context.kept)
        if self.plan.layers[0].order is LoopOrder.CHANNELS:
            self._by_channels()
            return
        for iteration in range(self.flow.iterations):
            for layer, kernel in zip(self.layers, self.kernels):
                self._advance(layer, kernel, iteration)
                for value, last in self.last.items():
                    if last == layer.index and value in self.made_here and iteration + 1 < self.flow.iterations:
                        self._put_aside(self.made_here[value].result, iteration)
            for kernel in self.kernels:
                kernel.end_iteration()
        self.context.kept |= {value: self.tiles[value] for value in self.kept}

    def _by_channels(self) -> None:
        """One layer, some channels at a time, and some rows of these."""
        (layer,), (kernel,), (chosen,) = self.layers, self.kernels, self.plan.layers
        self.context.op, lanes = layer.index, self.context.chip.lanes
        shape, kept = shape_or_raise(layer.result), id(layer.result) in self.kept
        whole = self._grow(layer.result, 0) if kept else None
        for channels in spans(shape.c, chosen.channels):
            for rows in spans(shape.h, chosen.rows or shape.h):
                sources = {}
                for value, rows_of in row_reads(layer) or ():
                    low, high = int(rows_of.low[rows.first]), int(rows_of.high[rows.end - 1])
                    sources[id(value)] = self._some(value, channels, Span(low, high - low))
                if whole is not None:
                    target = self._slice(whole, channels)
                else:
                    buffer = self.context.program.buffer(LOCAL, tile_bytes(layer, lanes, rows.count, channels.count), layer.result.name)
                    target = Tile(buffer, lanes, 1, channels.count, rows.count, shape.w, rows.first)
                kernel.slice(channels, rows, sources, target)
                if id(layer.result) in self.stored:
                    self.context.store(target.view(rows), layer.result, rows, channels)
        if kept and whole is not None:
            self.context.kept[id(layer.result)] = whole

    def _some(self, value: Value, channels: Span, rows: Span) -> Tile:
        """Some channels of an operand: of one that is there, or rows of them from memory."""
        if id(value) in self.tiles:
            return self._slice(self.tiles[id(value)], channels)
        shape, lanes = shape_or_raise(value), self.context.chip.lanes
        buffer = self.context.program.buffer(LOCAL, Tile.size(lanes, 1, channels.count, rows.count, shape.w), value.name)
        tile = Tile(buffer, lanes, 1, channels.count, rows.count, shape.w, rows.first)
        self.context.load(value, tile.view(), rows, channels)
        return tile

    def _slice(self, tile: Tile, channels: Span) -> Tile:
        offset = tile.offset + channels.first // tile.lanes * tile.c_str
        return replace(tile, c=channels.count, offset=offset)

    def _advance(self, layer: Layer, kernel: Kernel, iteration: int) -> None:
        """The rows that one layer adds in one iteration."""
        self.context.op = layer.index
        first, end = self.flow.rows(id(layer.result), iteration)
        if end == first:
            return
        rows = Span(first, end - first)
        sources: dict[int, Tile] = {}
        for value, _ in row_reads(layer) or ():
            if id(value) not in self.made_here:
                self._fetch(value, iteration)
            sources[id(value)] = self.tiles[id(value)]
        old = self.tiles.get(id(layer.result))
        target = self._grow(layer.result, iteration)
        self._keep(layer.result, old, iteration)
        kernel.rows(rows, sources, target)
        if id(layer.result) in self.stored:
            self.context.store(target.view(rows), layer.result, rows)

    def _window(self, value: int, iteration: int) -> Span:
        """The rows that a tile holds in an iteration."""
        if value in self.kept:
            return Span(0, self.flow.heights[value])
        before, end = self.flow.rows(value, iteration)
        first = min(int(self.flow.needed_from(value)[iteration]), before)
        return Span(first, end - first)

    def _grow(self, value: Value, iteration: int) -> Tile:
        """The tile of an iteration."""
        there, window = self.tiles.get(id(value)), self._window(id(value), iteration)
        if there is not None and there.rows == window:
            return there
        shape, layer, lanes = shape_or_raise(value), self.made_here.get(id(value)), self.context.chip.lanes
        if self._has_place(id(value)):
            buffer, room, pitch = self._place(value)
            tile = Tile(buffer, lanes, shape.n, shape.c, window.count, shape.w, window.first, room=room, pitch=pitch)
            self.tiles[id(value)] = tile
            return tile
        chain = self.chains.get(id(value))
        if chain is not None:
            buffer, offset = self.context.chain_buffer(chain), chain.offsets[id(value)] - chain.low
            tile = self.tiles[id(value)] = Tile(buffer, lanes, shape.n, shape.c, window.count, shape.w, window.first, offset=offset)
            return tile
        size = Tile.size(lanes, shape.n, shape.c, window.count, shape.w)
        if layer is not None:
            size = tile_bytes(layer, lanes, window.count)
        buffer = self.context.program.buffer(LOCAL, size, value.name)
        tile = self.tiles[id(value)] = Tile(buffer, lanes, shape.n, shape.c, window.count, shape.w, window.first)
        return tile

    def _has_place(self, value: int) -> bool:
        """True for a value of several iterations whose tiles have one place."""
        layer = self.made_here.get(value)
        if layer is None or value in self.kept | self.stored or self.flow.iterations == 1 or not self.flow.halo(value):
            return False
        return all(takes_strides(reader) for reader in self.layers if any(id(v) == value for v in reader.op.inputs))

    def _place(self, value: Value) -> tuple[Buffer, int, int]:
        """The one place of a value's tiles, rows that a channel has room for, and the pitch with which new rows begin evenly."""
        if id(value) not in self.places:
            shape, layer = shape_or_raise(value), self.made_here[id(value)]
            rows = max(self._window(id(value), i).count for i in range(self.flow.iterations))
            pitch = row_pitch(shape.w, self.flow.halo(id(value)))
            size = tile_bytes(layer, self.context.chip.lanes, rows, pitch=pitch)
            self.places[id(value)] = self.context.program.buffer(LOCAL, size, value.name), rows, pitch
        return self.places[id(value)]

    def _put_aside(self, value: Value, iteration: int) -> None:
        """Keep only the rows that the next iteration reads, so that the tile is free."""
        tile = self.tiles.get(id(value))
        if tile is None or id(value) in self.places or id(value) in self.kept:
            return
        first = max(int(self.flow.needed_from(id(value))[iteration + 1]), tile.first)
        rows = Span(first, tile.rows.end - first)
        if 0 < rows.count < tile.h:
            self.tiles[id(value)] = self.kernels[0].copied(tile, rows, rows, 0, 0)

    def _keep(self, value: Value, old: Tile | None, iteration: int) -> None:
        """Copy the rows that are still read from the tile of the iteration before."""
        tile, before = self.tiles[id(value)], self.flow.rows(id(value), iteration)[0]
        if old is None or old is tile or before <= tile.first:
            return
        # In one place rows move up, never over rows that are yet to move.
        step = tile.first - old.first if tile.buffer is old.buffer else before - tile.first
        if step:
            for rows in spans(before - tile.first, step, tile.first):
                self.kernels[0].emit_copy(old.view(rows), tile.view(rows))

    def _fetch(self, value: Value, iteration: int) -> None:
        """Load the rows of a value from outside that this iteration reads first."""
        old = self.tiles.get(id(value))
        before, end = self.flow.rows(id(value), iteration)
        if id(value) in self.context.kept or end == before:
            return
        tile = self._grow(value, iteration)
        if tile is old:
            return
        rows = Span(before, end - before)
        self.context.load(value, tile.view(rows), rows)
        self._keep(value, old, iteration)

