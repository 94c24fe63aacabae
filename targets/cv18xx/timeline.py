# SPDX-License-Identifier: Apache-2.0
"""What a plan is estimated to cost, group by group and before anything is expanded.

Groups follow one another as in the search of cuts (`gadl.passes.plan.cuts`), whose rule for time and memory this is. On-chip bytes are
those of a lane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.cuts import Crossing, Memory, Ways, advance
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.tiling import Candidates
from gadl.targets.base import Estimate

from .expand.convolution import summed_channels
from .expand.group import kernel_of, row_layers, tile_bytes
from .expand.kernel import shape_or_raise
from .grouping import COPY_CYCLES, COPY_RATE
from .in_place import way_in_place
from .layer_costs import LayerCosts
from .layers import Layer, macs_of, row_reads
from .local import Tile
from .places import is_view
from .tiles import tile_costs

#: Instructions beyond which a plan is not worth expanding.
MOST_BLOCKS = 1 << 15


@dataclass(frozen=True)
class _Span:
    """One group."""

    way: Ways  # one way; reads come from memory and results go there
    work: float  # cycles of the compute unit
    held: float  # bytes of a lane beside constants, what other groups keep aside
    blocks: int  # instructions

    @property
    def loaded(self) -> float:
        """Bytes of values that come from memory."""
        return float(sum(item.size for item in self.way.reads))

    @property
    def stored(self) -> float:
        """Bytes of values that go to memory."""
        return float(sum(item.size for item in self.way.results))

    @property
    def taken(self) -> float:
        """Bytes of a lane in use, constants among them."""
        return self.held + (self.way.constants if self.way.resident[0] else min(self.way.piece, self.way.constants))


class Timeline:
    """Estimates for the plans of some layers. `returned` are the values (by `id`) that somebody outside reads."""

    def __init__(self, costs: LayerCosts, returned: set[int]) -> None:
        self.costs, self.chip, self.returned = costs, costs.chip, returned
        self.by_op = {layer.ops[0]: layer for layer in costs.layers}
        self.last = {id(v): layer.index for layer in costs.layers for v in layer.op.inputs}
        rate = costs.trial.mb_per_s / self.chip.mhz
        self.memory = Memory(float(self.chip.lane_bytes), rate, 0.0, 1, float(self.chip.lanes))
        self._spans: dict[tuple[GroupPlan, frozenset[int], frozenset[int]], _Span] = {}

    def estimate(self, plan: Plan) -> Estimate:
        """Cycles, infinite where a lane is too small; and what a learned correction may look at."""
        spans = self._follow(plan)
        room, blocks = float(self.chip.lane_bytes), sum(span.blocks for span in spans)
        if any(span.taken > room for span in spans) or blocks > MOST_BLOCKS:
            return Estimate(math.inf, ())
        behind, stock, total = float(sum(span.way.constants for span in spans)), np.zeros(1), 0.0
        for span in spans:
            behind -= span.way.constants
            held, loaded = np.array([span.held]), np.array([span.loaded])
            awaited = np.array([float(sum(item.first[0] for item in span.way.reads))])
            way = span.way if span.way.parts[0] else replace(span.way, parts=np.ones(1))
            cycles, stock = advance(self.memory, way, stock, held, loaded, awaited, span.stored, behind)
            total += float(cycles[0])
        work = sum(span.work for span in spans)
        moved = sum(span.loaded + span.stored + span.way.constants * self.memory.packed for span in spans) / self.memory.rate
        fill = sum(span.taken * max(span.work, 1.0) for span in spans) / sum(max(span.work, 1.0) for span in spans) / room
        features = (
            math.log(len(spans)), math.log1p(sum(g.iterations == 0 for g in plan.groups)), math.log1p(blocks),
            math.log1p(sum(g.iterations for g in plan.groups)), work / total, moved / total, fill, max(s.taken for s in spans) / room,
            math.log(total),
        )  # fmt: skip
        return Estimate(total, features)

    def _follow(self, plan: Plan) -> list[_Span]:
        """The spans of all groups; what is kept through a group counts as held."""
        kept: dict[int, int] = {}
        found = []
        by_rows = frozenset(p.ops[0] for g in plan.groups if g.iterations for p in g.layers)
        for group in plan.groups:
            members = [self.by_op[p.ops[0]] for p in group.layers]
            kept = {v: size for v, size in kept.items() if self.last.get(v, -1) >= members[0].index}
            there = frozenset(id(v) for m in members for v in m.op.inputs if id(v) in kept) if group.iterations else frozenset()
            readers = frozenset(self._index(user) for m in members for user in m.result.users)
            span = self._span(members, group, there, by_rows & readers)
            live = float(sum(kept.values()))
            found.append(replace(span, held=span.held + live) if live else span)
            kept |= {id(m.result): self._whole(m) for m, p in zip(members, group.layers) if p.kept and group.iterations}
        return found

    def _index(self, op: object) -> int:
        """Of the layer of an op; -1 for ops outside."""
        return next((index for index, layer in self.by_op.items() if layer.op is op), -1)

    def _whole(self, layer: Layer) -> int:
        return tile_bytes(layer, self.chip.lanes, shape_or_raise(layer.result).h)

    def _span(self, members: Sequence[Layer], group: GroupPlan, there: frozenset[int], by_rows: frozenset[int]) -> _Span:
        key = group, there, by_rows
        if key not in self._spans:
            self._spans[key] = self._by_rows(members, group, there, by_rows) if group.iterations else self._alone(members[0], group.layers[0])
        return self._spans[key]

    def _way(
        self, members: Sequence[Layer], parts: int, work: float, constants: int, piece: int, resident: bool, reads: Sequence[Value],
        results: Sequence[Value],
    ) -> Ways:  # fmt: skip
        """One way to run some layers. The first iteration cannot do without its part of the operands."""
        none = np.zeros(1)
        crossings = tuple(Crossing(id(v), v.type.size_bytes, none, np.array([v.type.size_bytes / max(1, parts)])) for v in reads)
        left = tuple(Crossing(id(v), v.type.size_bytes, none, none) for v in results)
        first, end = members[0].index, members[-1].index + 1
        return Ways(first, end, np.array([float(parts)]), np.array([work]), none, constants, np.array([resident]), piece, crossings, left)

    def _alone(self, layer: Layer, plan: LayerPlan) -> _Span:
        """From memory to memory."""
        values = [v for v in layer.op.inputs if not v.is_constant]
        if is_view(layer, self.returned):
            return _Span(self._way([layer], 0, 0.0, 0, 0, False, (), ()), 0.0, 0.0, 0)
        if not plan.rows:
            work, held = macs_of(layer.op) * 2 / self.chip.macs_per_cycle, 0.0
            constants = sum(v.type.size_bytes for v in layer.op.inputs if v.is_constant) // self.chip.lanes
            return _Span(self._way([layer], 0, work, constants, 0, False, values, [layer.result]), work, held, 4)
        shape, inputs = shape_or_raise(layer.result), summed_channels(shape_or_raise(layer.op.inputs[0]).c)
        numbers = plan.rows, plan.channels, plan.depth or inputs, int(plan.order is LoopOrder.CHANNELS), int(plan.resident)
        cost = tile_costs(layer, self.chip, self.memory.rate, 0.0)(Candidates(*(np.asarray([n], np.int64) for n in numbers)))
        blocks = -(-shape.h // plan.rows) * -(-shape.c // plan.channels) * -(-inputs // numbers[2])
        # Its cycles count its own transfers.
        cycles = float(cost.cycles[0])
        return _Span(self._way([layer], 0, cycles, 0, 0, False, (), ()), cycles, float(cost.sram_bytes[0]), blocks)

    def _by_rows(self, members: Sequence[Layer], group: GroupPlan, there: frozenset[int], by_rows: frozenset[int]) -> _Span:
        parts, constants, piece, work, blocks, inside = group.iterations, 0, 0, 0.0, 0, 0.0
        for layer, plan in zip(members, group.layers):
            shape, facts = shape_or_raise(layer.result), self.costs.facts[layer.index]
            rows = -(-shape.h // parts)
            kernel = kernel_of(self.costs.trial, layer, LayerPlan(layer.ops))
            cycles, beside, all_constants = self.costs.cost(kernel, row_reads(layer) or [], rows, plan.channels)
            work += cycles * shape.h / rows
            inside = max(inside, float(beside))
            chunks = -(-shape.c // plan.channels) if plan.channels else 1
            blocks += parts * chunks
            whole = all_constants if facts is None else facts.constants
            constants += whole if plan.resident else whole * parts
            piece += whole if plan.resident and parts > 1 else -(-whole // chunks) * min(2, chunks)
        flow, tiles, kept = self._flow(members, group), 0.0, {id(m.result) for m, p in zip(members, group.layers) if p.kept}
        sliced = group.layers[0].order is LoopOrder.CHANNELS
        inner = {id(m.op) for m in members}
        stored = [
            m.result for m in members
            if id(m.result) in self.returned or any(
                self._index(user) not in by_rows if id(m.result) in kept else id(user) not in inner for user in m.result.users
            )
        ]  # fmt: skip
        made = {id(m.result): m.result for m in members}
        outside = {id(v): v for m in members for v, _ in row_reads(m) or () if id(v) not in made}
        over = {id(m.op.inputs[0]) for m, p in zip(members, group.layers) if p.in_place and way_in_place(m, self.chip.lanes)}
        live: list[float] = [0.0] * len(members)
        copies = 0.0
        for value, tensor in {**made, **outside}.items():
            if value in there or value in over:
                continue
            size, shape = self._tile(tensor, flow, value in kept), shape_or_raise(tensor)
            touching = [i for i, m in enumerate(members) if tensor is m.result or any(v is tensor for v in m.op.inputs)]
            halo = flow.halo(value) if parts > 1 else 0
            if halo:
                copies += (parts - 1) * (COPY_CYCLES + shape.n * -(-shape.c // self.chip.lanes) * halo * shape.w / COPY_RATE)
            if sliced and value not in kept:
                size *= 2 * group.layers[0].channels / shape.c
            stays = value in kept or halo > 0
            for index in range(0 if halo else touching[0], len(members) if stays else touching[-1] + 1):
                live[index] += size
        tiles = max(live)
        reads = [v for key, v in outside.items() if key not in there]
        way = self._way(members, parts, work + copies, constants, piece, parts > 1 and all(p.resident for p in group.layers), reads, stored)
        return _Span(way, work + copies, tiles + inside, blocks)

    def _flow(self, members: Sequence[Layer], group: GroupPlan) -> RowFlow:
        found = row_layers(members)
        if found is None:
            raise ValueError("a layer of the group does not run by rows")
        return RowFlow(*found, group.iterations)

    def _tile(self, value: Value, flow: RowFlow, whole: bool) -> float:
        """Lane bytes of a value's largest tile."""
        shape = shape_or_raise(value)
        added = np.diff(flow.upto[id(value)], prepend=0)
        rows = shape.h if whole else min(shape.h, int(added.max()) + (flow.halo(id(value)) if flow.iterations > 1 else 0))
        return float(Tile.size(self.chip.lanes, shape.n, shape.c, rows, shape.w))
