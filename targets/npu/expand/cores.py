# SPDX-License-Identifier: Apache-2.0
"""Layers whose rows several cores divide: every core computes its rows, constants are loaded once for all of them.

Buffers lie at the same addresses on every core. All steps stand in one sequential order: a layer's chunk of weights, then the
rows of each core. A value stays on chip, with the rows that its core computes or needs, until its last reader has run.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import product
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array
from gadl.passes.plan.division import Division, Range, Shares, owned, without
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Buffer, Ref, Region
from gadl.passes.plan.rows import RowLayer, RowMap
from gadl.passes.plan.spans import Span
from gadl.passes.schedule.cores import SIGNAL

from ..bounds import windows_of
from ..costs import Costs
from ..layers import Layer
from ..rowwise import is_reduction, partial_bytes, partial_type, row_reads
from .bands import Live, RowShape, row_shape, row_strides
from .context import SCRATCH, Expansion, Tile
from .copying import CopyDim
from .group import _kernel, _ReductionKernel, _WindowKernel
from .pooling import reduce_part

#: Queue of loads for one core and of signals between cores, and queues of constants for all.
LOADING, SHARING = "LD0", ("LD1", "LD2")
#: How much longer rows are on their way from core to core because weights are loaded meanwhile.
BUSY = 2
#: Bytes that a signal carries: nobody reads them.
SIGNAL_BYTES = 16


class CoreExpansion(Expansion):
    """Collects the steps of all cores; `core` is the one whose steps come next, `dividing` while all of them work."""

    def __init__(self, costs: Costs) -> None:
        super().__init__(costs, [LOADING])
        self.core, self.dividing = 0, False
        self.add_constant(bytes(SIGNAL_BYTES))

    def step(
        self, engine: str, instruction: str, fields: dict[str, Any], reads: Sequence[Region], writes: Sequence[Region],
        cycles: float = 0, early: bool = False,
    ) -> None:  # fmt: skip
        """Append a step of the current layer and core."""
        super().step(f"{engine}.{self.core}" if self.core else engine, instruction, fields, reads, writes, cycles, early)

    def load_constant(self, data: Array | bytes, name: str, packed: bool = True) -> Tile:
        """Constants that all cores use are loaded for all of them."""
        if not self.dividing:
            return super().load_constant(data, name, packed)
        raw = data if isinstance(data, bytes) else data.tobytes()
        offset, tile = self.add_constant(raw), self.tile(len(raw), name)
        fields = {"src": Ref(self.constants, offset), "dst": tile.at(0), "row_bytes": len(raw)}
        core, self.core = self.core, 0
        region = Region(self.constants, offset, len(raw))
        self.step(SHARING[0], "LD", fields, [region], [tile.region(0, len(raw))], self.costs.dma(1, len(raw)))
        self.program.steps[-1].shared = True
        self.core = core
        return tile


def divisible(layer: Layer) -> bool:
    """True when cores can divide the rows of the layer: it runs by rows, of one image."""
    reads = row_reads(layer)
    shapes = [row_shape(layer.result), *(row_shape(v) for v, _ in reads or ())]
    return reads is not None and all(shape is not None and shape.images == 1 for shape in shapes)


def in_parts(layer: Layer, parts: int) -> bool:
    """True for reductions that every owner of the operand does for its own rows first."""
    return is_reduction(layer) and layer.op.inputs[0].dtype.is_integer and shape_of(layer.op.inputs[0]).rows >= parts > 1


def may_spread(layer: Layer) -> bool:
    """True when cores can divide the channels of the layer."""
    return layer.op.name in ("conv", "linear") and shape_of(layer.result).rows == 1


def rows_of(layers: Sequence[Layer], cores: int, owners: dict[int, int]) -> tuple[list[RowLayer], dict[int, int]]:
    """The layers as the division sees them, and the rows of every value (by `id`); partial results go to `owners` as well.

    Partial results of a reduction are made and read where the result is: every owner reads its own rows.
    """
    found, heights = [], {}
    for layer in layers:
        reads = row_reads(layer) or []
        parts = owners.get(id(layer.op.inputs[0]), 0) or cores
        if in_parts(layer, parts):
            value = layer.op.inputs[0]
            heights[id(value)] = shape_of(value).rows
            heights[id(layer.op)] = owners[id(layer.op)] = parts
            bounds = np.array(owned(heights[id(value)], parts), np.int64)
            found.append(RowLayer(id(layer.op), ((id(value), RowMap(bounds[:, 0], bounds[:, 1])),)))
            found.append(RowLayer(id(layer.result), ((id(layer.op), RowMap.whole(1, parts)),)))
            heights[id(layer.result)] = 1
            continue
        found.append(RowLayer(id(layer.result), tuple((id(v), m) for v, m in reads)))
        heights |= {id(v): shape_of(v).rows for v in (layer.result, *(v for v, _ in reads))}
    return found, heights


def shape_of(value: Value) -> RowShape:
    """The value as rows; `ValueError` where it has none."""
    shape = row_shape(value)
    if shape is None:
        raise ValueError(f"'{value.name}' has no rows")
    return shape


def shares_of(layers: Sequence[Layer], plans: Sequence[LayerPlan], cores: int, stored: Set[int]) -> Shares:
    """What cores divide of a run of layers."""
    owners = {id(layer.result): plan.owners for layer, plan in zip(layers, plans, strict=True) if plan.owners}
    spread = {id(layer.result) for layer, plan in zip(layers, plans) if plan.spread and may_spread(layer)}
    return Shares(*rows_of(layers, cores, owners), cores, stored, spread, owners, {id(m.op) for m in layers if is_reduction(m)})


class DividedExpansion:
    """Expands a run of layers; `stored` are the results (by `id`) that must reach memory whole."""

    def __init__(
        self, context: CoreExpansion, layers: Sequence[Layer], plans: Sequence[LayerPlan], cores: int, stored: Set[int]
    ) -> None:
        self.context, self.layers, self.cores = context, layers, cores
        self.plans = {layer.index: plan for layer, plan in zip(layers, plans, strict=True)}
        self.stored = stored
        shares = shares_of(layers, plans, cores, stored)
        self.spread = shares.spread
        self.division = Division(shares, {id(layer.result) for layer, plan in zip(layers, plans) if plan.exchanged})
        self.buffers: dict[int, Buffer] = {}
        self.live: dict[tuple[int, int], Live] = {}
        #: Values, and the cores that have yet to load rows of them.
        self._waiting: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Emit all steps, layer by layer."""
        self.context.dividing = True
        for layer in self.layers:
            self.context.op = layer.index
            operands = [v for v, _ in row_reads(layer) or ()]
            for value in operands:
                for core in range(self.cores):
                    self._bring(value, core)
            for core in range(self.cores):
                self._open(layer.result, core)
            if id(layer.result) in self.spread:
                self._spread(layer, operands)
                continue
            if id(layer.op) in self.division.made:
                self._reduce(layer)
            else:
                self._compute(layer, operands)
            self._waiting |= {(id(layer.result), c) for c in range(self.cores) if self.division.loads(id(layer.result), c)}
            for core in range(self.cores):
                self.context.core = core
                for rows in self.division.stores(id(layer.result), core):
                    self._store(layer.result, core, rows)
            self._announce(layer.result)
        self.context.core, self.context.dividing = 0, False

    def _open(self, value: Value, core: int) -> Live:
        """The place of a value on a core."""
        shape, key = shape_of(value), id(value)
        if key not in self.buffers:
            self.buffers[key] = self.context.tile(max(1, self.division.room(key)) * shape.row_bytes, value.name).buffer
        low, high = (0, 1) if key in self.spread else self.division.held(key, core)
        there = self.live[key, core] = Live(shape, self.buffers[key], high - low, low, high)
        return there

    def _bring(self, value: Value, core: int) -> None:
        """Load the rows that a core needs of a value and that others have computed, where that has not been done."""
        made = id(value) in self.division.made
        if made and (id(value), core) not in self._waiting or not made and (id(value), core) in self.live:
            return
        if not made:
            self._open(value, core)
        self._waiting.discard((id(value), core))
        self.context.core = core
        for rows in self.division.loads(id(value), core):
            tile, buffer, offset, extents = self._copied(value, core, rows)
            dims = [CopyDim(count, memory, chip) for count, memory, chip in extents]
            self.context.load(buffer, offset, tile, dims, value.dtype.size_bytes)

    def _compute(self, layer: Layer, operands: list[Value]) -> None:
        """The rows of every core."""
        context, result, plan = self.context, id(layer.result), self.plans[layer.index]
        busy = [core for core, (low, high) in enumerate(self.division.made[result]) if high > low]
        kernel = _kernel(context, layer, plan)
        bands = {core: {id(v): self.live[id(v), core].band for v in operands} for core in busy}
        chunks = kernel.chunks() if isinstance(kernel, _WindowKernel) else [(0, Span(0, 0))]
        parts = {core: self._parts(layer, core, len(chunks) == 1) for core in busy}
        for number, channels in chunks:
            for core in busy:
                context.core = core
                target = self.live[result, core].band
                if isinstance(kernel, _ReductionKernel):
                    # Every core that needs the result computes it.
                    kernel.taken = 0
                    x = operands[0]
                    kernel.take(Span(0, shape_of(x).rows), bands[core][id(x)], 1)
                for rows in parts[core]:
                    if isinstance(kernel, _WindowKernel):
                        kernel.chunk(number, channels, rows, bands[core], target)
                    else:
                        kernel.rows(rows, bands[core], target)

    def _parts(self, layer: Layer, core: int, apart: bool) -> list[Span]:
        """The rows that a core makes, in the order in which it makes them.

        Where they may lie `apart`, those that others load come first and those that read what others made come last, so that the
        passing of rows is hidden behind the rest; unless it costs more to read the weights once more.
        """
        low, high = self.division.made[id(layer.result)][core]
        if not apart:
            return [Span(low, high - low)]
        rows = np.arange(low, high)
        early, late = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for start, end in self.division.stores(id(layer.result), core) if id(layer.result) not in self.stored else ():
            early |= (rows >= start) & (rows < end)
        for value, reads in row_reads(layer) or ():
            if self.division.loads(id(value), core) and id(value) in self.division.made:
                first, last = self.division.made[id(value)][core]
                late |= (reads.low[low:high] < first) | (reads.high[low:high] > last)
        found: list[tuple[float, list[Span]]] = []
        for first, last in product((True, False), (True, False)):
            rank = np.where(late & last, 2, np.where(early & first, 0, 1))
            waits = int(np.any(early & (rank > 0))) + int(np.any(late & (rank < 2)))
            edges = [0, *(np.flatnonzero(np.diff(rank)) + 1).tolist(), len(rows)]
            spans = sorted(((int(rank[a]), Span(low + a, b - a)) for a, b in zip(edges, edges[1:])), key=lambda item: item[0])
            took = sum(self._cycles(layer, span.count) for _, span in spans) + waits * BUSY * self.context.costs.passing
            found.append((took, [span for _, span in spans]))
        return min(found, key=lambda item: item[0])[1]

    def _cycles(self, layer: Layer, rows: int) -> float:
        """Cycles of the array for some rows of a layer: little less for few of them where weights are many."""
        costs, dtype = self.context.costs, layer.op.inputs[0].dtype
        return sum(window.batch * costs.product(window, rows, window.oc, dtype) for window, _ in windows_of(layer))

    def _reduce(self, layer: Layer) -> None:
        """Partial results of every core's rows; who needs the result loads those of the others."""
        context, x = self.context, layer.op.inputs[0]
        kind, shape = partial_type(layer), shape_of(x)
        size, parts = partial_bytes(layer, 1), self.division.heights[id(layer.op)]
        part = context.tile(parts * size, "partial")
        there = context.program.buffer(SCRATCH, parts * size, "partial", 64)
        makers = [core for core, (low, high) in enumerate(self.division.made[id(layer.result)]) if high > low]
        mine = self.division.owned(id(layer.op))
        rows = owned(shape.rows, parts)
        senders = {}
        for core, (number, end) in enumerate(mine):
            if end <= number:
                continue
            context.core, (low, high) = core, rows[number]
            reduce_part(context, layer, Span(low, high - low), shape, self.live[id(x), core].band, kind, part, number)
            if any(other != core for other in makers):
                senders[core] = number * size
        for context.core, at in senders.items():
            context.store(Tile(part.buffer, at), there, at, [CopyDim(size, 1, 1)])
        for context.core, at in senders.items():
            context.step(LOADING, SIGNAL, {}, [Region(there, at, size)], [])
        for core in makers:
            context.core = core
            for low, high in without((0, parts), mine[core]):
                context.load(there, low * size, Tile(part.buffer, low * size), [CopyDim((high - low) * size, 1, 1)])
            kernel = _kernel(context, layer, self.plans[layer.index])
            if isinstance(kernel, _ReductionKernel):
                kernel.part, kernel.taken = part, parts
            kernel.rows(Span(0, 1), {}, self.live[id(layer.result), core].band)

    def _spread(self, layer: Layer, operands: list[Value]) -> None:
        """Every core makes some chunks of channels and stores them."""
        context, value = self.context, layer.result
        kernel = _kernel(context, layer, self.plans[layer.index])
        if not isinstance(kernel, _WindowKernel):
            raise ValueError(f"the channels of '{layer.name}' cannot be divided")
        bands = [{id(v): self.live[id(v), core].band for v in operands} for core in range(self.cores)]
        place, shape = context.place(value), shape_of(value)
        _, _, pixel, channel = row_strides(value, place)
        sent: dict[int, list[Region]] = {}
        for index, (number, channels) in enumerate(kernel.chunks()):
            core = context.core = index % self.cores
            band = self.live[id(value), core].band
            kernel.chunk(number, channels, Span(0, 1), bands[core], band)
            offset = place.offset + channels.first * channel
            dims = [CopyDim(shape.width, shape.pixel_bytes, pixel), CopyDim(channels.count, shape.element, channel)]
            context.store(Tile(band.buffer, band.byte(0, 0, channels.first)), place.buffer, offset, dims, shape.element)
            span = (shape.width - 1) * pixel + (channels.count - 1) * channel + shape.element
            sent.setdefault(core, []).append(Region(place.buffer, offset, span))
        readers = {(id(value), core) for core in range(self.cores) if self.division.loads(id(value), core)}
        self._waiting |= readers
        for core, regions in sent.items() if readers else ():
            context.core = core
            context.step(LOADING, SIGNAL, {}, regions, [])

    def _announce(self, value: Value) -> None:
        """Tell the others that the rows are there that they load."""
        if not any(self.division.loads(id(value), core) for core in range(self.cores)):
            return
        for core in range(self.cores):
            self.context.core = core
            reads = []
            for rows in self.division.stores(id(value), core):
                _, buffer, offset, extents = self._copied(value, core, rows)
                reads.append(Region(buffer, offset, sum((n - 1) * memory for n, memory, _ in extents) + value.dtype.size_bytes))
            if reads:
                self.context.step(LOADING, SIGNAL, {}, reads, [])

    def _store(self, value: Value, core: int, rows: Range) -> None:
        tile, buffer, offset, extents = self._copied(value, core, rows)
        dims = [CopyDim(count, chip, memory) for count, memory, chip in extents]
        self.context.store(tile, buffer, offset, dims, value.dtype.size_bytes)

    def _copied(self, value: Value, core: int, rows: Range) -> tuple[Tile, Buffer, int, list[tuple[int, int, int]]]:
        """Rows on both sides: block on chip, buffer and offset in memory; extents with their strides in memory and on chip."""
        there, place = self.live[id(value), core], self.context.place(value)
        _, row, pixel, channel = row_strides(value, place)
        shape = there.shape
        extents = [
            (rows[1] - rows[0], row, shape.row_bytes),
            (shape.width, pixel, shape.pixel_bytes),
            (shape.channels, channel, shape.element),
        ]
        return Tile(there.buffer, there.band.byte(rows[0])), place.buffer, place.offset + rows[0] * row, extents
