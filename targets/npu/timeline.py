# SPDX-License-Identifier: Apache-2.0
"""What a plan is estimated to cost, group by group and before anything is expanded.

Groups follow one another as in the search of cuts (`gadl.passes.plan.cuts`), whose rule for time and memory this is: memory
that is idle brings constants of later groups, as far as there is room on chip. Layers of a group that runs at once are groups
of their own here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gadl.compiler.ir.types import DType
from gadl.passes.plan.cuts import Crossing, Memory, Ways, advance
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.tiling import Candidates, Floats
from gadl.targets.base import Estimate

from . import attention
from .arrange import FULL
from .bounds import channels_of, vector_operations, windows_of
from .compression import packed_part
from .costs import Costs
from .expand.bands import row_shape
from .in_place import way_of
from .layers import Layer, Window, window_of
from .machine import Machine
from .rowwise import band_bytes, is_reduction, row_layers, weight_bytes
from .tiles import WindowTraffic, window_tiles

#: Blocks (one layer in one iteration) beyond which a plan is not worth expanding.
MOST_BLOCKS = 1 << 15


@dataclass(frozen=True)
class _Span:
    """A stretch of the timeline: a group, or one layer where all rows of a group run at once."""

    way: Ways  # one way; reads come from memory and results go there
    array: float  # cycles of the product array, drain included
    vector: float  # cycles of the vector unit
    unit: float  # bytes of constants that are loaded together
    held: float  # bytes of SRAM beside constants
    blocks: int

    @property
    def loaded(self) -> int:
        """Bytes of activations that come from memory."""
        return sum(item.size for item in self.way.reads)

    @property
    def stored(self) -> int:
        """Bytes of activations that go to memory."""
        return sum(item.size for item in self.way.results)

    @property
    def taken(self) -> float:
        """Bytes of SRAM in use, constants among them."""
        return self.held + (self.way.constants if self.way.resident[0] else self.unit)

    @property
    def transfers(self) -> float:
        """How often memory is asked."""
        return float(self.way.parts[0]) * (len(self.way.reads) + len(self.way.results)) + 2.0 * (self.way.end - self.way.first)


def _way(first: int, end: int, parts: int, work: float, constants: int, unit: float, reads: Iterable[Crossing], stored: Iterable[int]) -> Ways:
    """One way to run some layers; the constants of several iterations stay on chip. `stored` are bytes."""
    none = np.zeros(1)
    results = tuple(Crossing(0, size, none, none) for size in stored)
    return Ways(
        first, end, np.array([float(parts)]), np.array([work]), none, constants, np.array([parts > 1]), round(unit), tuple(reads), results
    )  # fmt: skip


def tallest(members: Sequence[Layer]) -> int:
    """The rows of the tallest result: most iterations of a group."""
    return max(shape.rows if (shape := row_shape(m.result)) is not None else 1 for m in members)


def tile_rows(layer: Layer) -> int:
    """Rows that the tiles of a lone layer divide; 0 where there are none."""
    windows = windows_of(layer)
    return windows[0][0].oh if windows else 0


class Timeline:
    """Estimates for the plans of some layers. `returned` are the values (by `id`) that somebody outside reads."""

    def __init__(self, machine: Machine, costs: Costs, layers: Sequence[Layer], returned: set[int]) -> None:
        self.machine, self.costs, self.returned = machine, costs, returned
        self.by_op = {layer.ops[0]: layer for layer in layers}
        self.last = {id(v): layer.index for layer in layers for v in layer.op.inputs}
        self._spans: dict[tuple[GroupPlan, frozenset[int]], tuple[_Span, ...]] = {}
        self._blocks: dict[tuple[int, int, LayerPlan], tuple[float, float, int]] = {}
        self.memory = Memory(
            FULL * machine.sram_bytes, machine["dram.bytes_per_cycle"] * machine["dram.eff"], machine["dma.issue"] + machine["dram.latency_rd"],
            machine.load_queues, packed_part(machine, layers),
        )  # fmt: skip

        #: Cycles from the store of rows on one core to their use on another: a store, a signal and a load.

    def _members(self, group: GroupPlan) -> list[Layer]:
        return [self.by_op[p.ops[0]] for p in group.layers]

    def groups(self, plan: Plan) -> list[float]:
        """Cycles of every group."""
        return [sum(cycles for _, cycles in spans) for spans in self._follow(plan)]

    def _follow(self, plan: Plan) -> list[list[tuple[_Span, float]]]:
        """The spans of every group and what they take, one after another."""
        found = list(self._all_spans(plan))
        behind = float(sum(span.way.constants for spans in found for span in spans))
        stock, taken = np.zeros(1), []
        for group, spans in zip(plan.groups, found):
            taken.append(list[tuple[_Span, float]]())
            for span in spans:
                behind -= span.way.constants
                cycles, stock = (self._advance if group.iterations else self._pass_alone)(span, stock, behind)
                taken[-1].append((span, float(cycles[0])))
        return taken

    def _advance(self, span: _Span, stock: Floats, behind: float) -> tuple[Floats, Floats]:
        """What a span takes and the stock that it leaves, as in the search of cuts."""
        memory = replace(self.memory, capacity=max(self.memory.capacity, span.taken))
        held, loaded = np.array([span.held]), np.array([float(span.loaded)])
        awaited = np.array([float(sum(item.first[0] for item in span.way.reads))])
        return advance(memory, span.way, stock, held, loaded, awaited, float(span.stored), behind)

    def _pass_alone(self, span: _Span, stock: Floats, behind: float) -> tuple[Floats, Floats]:
        """The same for a layer from memory to memory, whose cycles count its own transfers."""
        room = np.maximum(0.0, self.memory.capacity - span.held)
        there = np.minimum(stock, room)
        moved = span.loaded + span.stored + span.way.constants * self.memory.packed
        cycles = np.array([max(span.array, span.vector, moved / self.memory.rate)])
        spare = (cycles * self.memory.rate - moved) / self.memory.packed
        return cycles, np.minimum(there + spare, np.minimum(room, behind))

    def estimate(self, plan: Plan) -> Estimate:
        """Cycles of the timeline, infinite where the SRAM is too small; and what a learned correction may look at."""
        followed = [item for spans in self._follow(plan) for item in spans]
        spans, total = [span for span, _ in followed], sum(cycles for _, cycles in followed)
        sram, rate = float(self.machine.sram_bytes), self.memory.rate
        blocks = sum(s.blocks for s in spans)
        if any(s.taken > sram for s in spans) or blocks > MOST_BLOCKS:
            return Estimate(math.inf, ())
        array, vector = sum(s.array for s in spans), sum(s.vector for s in spans)
        dram = sum(s.way.constants * self.memory.packed + s.loaded + s.stored for s in spans) / rate
        stalled = total - sum(max(s.array, s.vector) for s in spans)
        lone = sum(g.iterations == 0 for g in plan.groups)
        fill = sum(s.taken * max(s.array, s.vector, 1.0) for s in spans) / sum(max(s.array, s.vector, 1.0) for s in spans) / sram
        chunks = sum(-(-channels_of(m) // p.channels) for g in plan.groups for m, p in zip(self._members(g), g.layers) if p.channels)
        features = (
            math.log(len(plan.groups)), math.log1p(lone), math.log1p(blocks), math.log1p(sum(s.transfers for s in spans)),
            array / total, vector / total, dram / total, stalled / total, fill, max(s.taken for s in spans) / sram,
            math.log1p(chunks), sum(s.unit for s in spans) / sram, math.log(total),
        )  # fmt: skip
        return Estimate(total, features)

    def _all_spans(self, plan: Plan) -> Iterator[list[_Span]]:
        """The spans of all groups; what is kept through a group counts as held."""
        kept: dict[int, int] = {}
        for group in plan.groups:
            members = self._members(group)
            first = members[0].index
            kept = {v: size for v, size in kept.items() if self.last.get(v, -1) >= first}
            there = frozenset(id(v) for m in members for v in m.op.inputs if id(v) in kept) if group.iterations else frozenset()
            live = float(sum(kept.values()))
            yield [replace(span, held=span.held + live) if live else span for span in self._spans_of(group, there)]
            kept |= {id(m.result): m.result.type.size_bytes // group.cores for m, p in zip(members, group.layers) if p.kept and group.iterations}

    def _spans_of(self, group: GroupPlan, there: frozenset[int]) -> tuple[_Span, ...]:
        key = group, there
        if key not in self._spans:
            if group.iterations == 0:
                (layer,), (chosen,) = self._members(group), group.layers
                self._spans[key] = (self._alone(layer, chosen),)
            elif group.iterations == 1:
                self._spans[key] = tuple(self._in_turn(group, there))
            else:
                self._spans[key] = (self._by_rows(group, there),)
        return self._spans[key]

    def _block(self, layer: Layer, rows: int, plan: LayerPlan) -> tuple[float, float, int]:
        """Cycles of array and vector unit for some rows of a layer, and the steps that takes."""
        key = (layer.index, rows, LayerPlan((), plan.rows, plan.channels, depth=plan.depth))
        if key not in self._blocks:
            self._blocks[key] = self._cost_block(layer, rows, plan)
        return self._blocks[key]

    def _cost_block(self, layer: Layer, rows: int, plan: LayerPlan) -> tuple[float, float, int]:
        shape, windows = row_shape(layer.result), windows_of(layer)
        if layer.op.name == "attention":
            return *attention.cycles(self.costs, layer, rows, plan), attention.steps(self.costs, layer, rows, plan)
        if not windows:
            share = rows / (1 if shape is None else shape.rows)
            widest = max(v.dtype.size_bytes for v in (*layer.op.inputs, layer.result))
            operations = max(vector_operations(layer), layer.result.type.size_bytes) // max(1, layer.result.dtype.size_bytes)
            return 0.0, self.costs.vector(math.ceil(operations * share), widest), 1
        dtype, total, steps = layer.op.inputs[0].dtype, 0.0, 0
        for window, times in windows:
            mine = max(1, round(rows * window.oh / (window.oh if shape is None else shape.rows)))
            part = min(plan.channels or window.oc, window.oc)
            for width, chunks in ((part, window.oc // part), (window.oc % part, 1)):
                if width:
                    cycles, count = self._cost_chunk(window, mine, width, dtype)
                    total, steps = total + times * chunks * cycles, steps + times * chunks * count
        return total, 0.0, steps

    def _cost_chunk(self, window: Window, rows: int, channels: int, dtype: DType) -> tuple[float, int]:
        """Cycles of the array for some rows and channels of a window layer, and the pieces they are cut into."""
        piece = self.costs.accumulator_piece(window, rows, channels, dtype)
        count = -(-rows // piece.rows) * -(-window.ow // piece.columns) * -(-channels // piece.channels)
        return self.costs.product(window, rows, channels, dtype), count

    def _outside(self, group: GroupPlan, there: frozenset[int]) -> tuple[list[tuple[int, int]], set[int], set[int]]:
        """Operands from memory with their bytes, the results that reach memory, and those that are kept."""
        members = self._members(group)
        kept = {id(m.result) for m, p in zip(members, group.layers) if p.kept}
        inside = {id(op) for m in members for op in (m.op, m.lut)}
        made = {id(m.result) for m in members}
        loads = {id(v): v.type.size_bytes for m in members for v in m.op.inputs if not v.is_constant and id(v) not in made | there}
        stored = {
            id(m.result)
            for m in members
            if id(m.result) in self.returned or (id(m.result) not in kept and any(id(user) not in inside for user in m.result.users))
        }
        return list(loads.items()), stored, kept

    def _by_rows(self, group: GroupPlan, there: frozenset[int]) -> _Span:
        """Several iterations: everything overlaps."""
        members = self._members(group)
        array = vector = 0.0
        steps = 0
        for layer, plan in zip(members, group.layers):
            shape = row_shape(layer.result)
            height, images = (1, 1) if shape is None else (shape.rows, shape.images)
            bounds = np.arange(group.iterations + 1) * height // group.iterations
            sizes, counts = np.unique(np.diff(bounds), return_counts=True)
            for rows, count in zip(sizes.tolist(), counts.tolist()):
                if rows:
                    one = self._block(layer, rows, plan)
                    array, vector = array + images * count * one[0], vector + images * count * one[1]
                    steps += images * count * one[2]
        loads, stored, kept = self._outside(group, there)
        weights = sum(weight_bytes(m) for m in members)
        found = row_layers(members)
        held = math.inf if found is None else band_bytes(self.costs, members, RowFlow(*found, group.iterations), stored, kept | there)
        held += sum(m.result.type.size_bytes for m in members if id(m.result) in kept)
        # What comes after a reduction waits for all rows.
        late = [i for i, m in enumerate(members) if is_reduction(m) and i + 1 < len(members)]
        serial = array + vector if late and tallest(members[late[0] + 1 :]) > 1 else max(array, vector)
        reads = (Crossing(v, size, np.zeros(1), np.array([size / group.iterations])) for v, size in loads)
        written = (m.result.type.size_bytes for m in members if id(m.result) in stored)
        first, end = members[0].index, members[0].index + len(members)
        way = _way(first, end, group.iterations, serial, weights, float(weights), reads, written)
        return _Span(way, array, vector, float(weights), held, steps)

    def _in_turn(self, group: GroupPlan, there: frozenset[int]) -> Iterator[_Span]:
        """One iteration: layer after layer, intermediates whole on chip; with several cores, the busiest of them."""
        members = self._members(group)
        loads, stored, kept = self._outside(group, there)
        outside, sizes = dict(loads), dict(loads)
        life: dict[int, tuple[int, int]] = {}
        for index, layer in enumerate(members):
            for value in (*layer.op.inputs, layer.result):
                if not value.is_constant and id(value) not in there:
                    until = len(members) if id(value) in kept else index
                    life[id(value)] = (life.get(id(value), (index, index))[0], until)
                    sizes[id(value)] = value.type.size_bytes
            residual = layer.op.operand(3) if layer.op.name in ("conv", "linear") else None
            if residual is not None and id(residual) in there and self.last[id(residual)] == layer.index:
                sizes[id(layer.result)] = 0  # takes the residual's place
        divided = {id(m.result): p.owners or group.cores for m, p in zip(members, group.layers)}
        sizes = {v: size // divided.get(v, group.cores) for v, size in sizes.items()}
        for index, (layer, plan) in enumerate(zip(members, group.layers)):
            shape, weights = row_shape(layer.result), weight_bytes(layer)
            height, images = (1, 1) if shape is None else (shape.rows, shape.images)
            array, vector, steps = self._block(layer, -(-height // divided[id(layer.result)]), plan)
            chunks = max(1, -(-channels_of(layer) // plan.channels)) if plan.channels else 1
            live = sum(sizes[v] for v, (first, last) in life.items() if first <= index <= last)
            loaded = [(v, size) for v, size in outside.items() if life[v][0] == index]
            reads = (Crossing(v, size, np.zeros(1), np.array([float(size)])) for v, size in loaded)
            written = (layer.result.type.size_bytes,) if id(layer.result) in stored else ()
            array, vector, unit = images * array, images * vector, weights / chunks
            over = way_of(self.costs, layer, plan) if self.last.get(id(layer.op.inputs[0])) == layer.index else None
            if over is not None:
                live += over.beside + over.span - layer.op.inputs[0].type.size_bytes - layer.result.type.size_bytes
                array, vector = over.array, over.vector
                weights *= -(-height // over.block) if over.streamed else 1
            passing = self.costs.passing if plan.exchanged and group.cores > 1 else 0.0
            way = _way(layer.index, layer.index + 1, 1, max(array, vector) + passing, weights, unit, reads, written)
            yield _Span(way, array, vector, unit, live, images * steps)

    def _alone(self, layer: Layer, plan: LayerPlan) -> _Span:
        """From memory to memory."""
        shape = row_shape(layer.result)
        array, vector, steps = self._block(layer, 1 if shape is None else shape.rows, plan)
        weights, fixed = weight_bytes(layer), self.machine["dma.issue"] + self.machine["dram.latency_rd"]
        reads = [Crossing(id(v), v.type.size_bytes, np.zeros(1), np.zeros(1)) for v in layer.op.inputs if not v.is_constant]

        def span(cycles: float, held: float, blocks: int) -> _Span:
            way = _way(layer.index, layer.index + 1, 0, cycles, weights, float(weights), reads, (layer.result.type.size_bytes,))
            return _Span(way, cycles, vector, 0.0, held, blocks)

        if layer.op.name not in ("conv", "linear"):
            # Block after block: while one is computed the next is loaded and the last one stored.
            load, store = (size / self.memory.rate for size in (sum(item.size for item in reads), layer.result.type.size_bytes))
            count = math.ceil(max(load, store) * self.memory.rate / self.costs.vector_block_bytes) or 1
            work = array + vector
            return span((work + load + store + max(work, load + store) * (count - 1)) / count + 2 * fixed, 0.0, steps)
        window = window_of(layer.op)
        numbers = (
            plan.rows or window.oh, plan.channels or window.oc, plan.depth or window.ic, int(plan.order is LoopOrder.CHANNELS), int(plan.resident)
        )  # fmt: skip
        one = Candidates(*(np.asarray([n], np.int64) for n in numbers))
        tile = window_tiles(self.costs, window, WindowTraffic.of(layer), layer.op.inputs[0].dtype, one)
        blocks = -(-window.oh // numbers[0]) * -(-window.oc // numbers[1]) * window.batch
        return span(float(tile.cycles[0]), float(tile.sram_bytes[0]), blocks)
