# SPDX-License-Identifier: Apache-2.0
"""What groups of layers cost, for the search of cuts: estimates for every number of iterations at once, from what their layers cost.

On-chip bytes are those of one lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.passes.plan.cuts import Crossing, Over, Ways
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.tiling import Floats
from gadl.passes.plan.tiling import Tile as TileChoice

from .expand.group import kernel_of, row_pitch, slice_of, takes_strides, tile_bytes
from .expand.resize import is_magnified
from .in_place import way_in_place
from .layer_costs import CHUNKS, ITERATIONS, LayerCosts, LayerFacts, Operand
from .layers import is_depthwise, row_reads
from .places import is_view
from .tiles import best_tile

#: Longest group, and the most ways to run it that are followed.
MOST_LAYERS, MOST_WAYS = 40, 12
#: Cycles that a copy within local memory takes beside its bytes.
COPY_CYCLES, COPY_RATE = 38, 8
#: Cycles that a layer outside any group counts, and those that have no other way.
ALONE_CYCLES, MOVED = 1e9, frozenset({"linear", "matmul", "concat", "slice", "pad", "reshape", "transpose"})


@dataclass
class _Held:
    """A value within a group, from its readers back to who makes it; rows count from the end of the group."""

    operand: Operand
    first: int  # the first layer that touches it
    lead: float = 0.0
    behind: float = np.inf
    in_place: bool = True  # all readers take strides

    @property
    def halo(self) -> float:
        """Rows of one iteration that the next one reads again."""
        return max(0.0, self.lead - min(self.behind, self.lead))

    def rows(self) -> Floats:
        """Of a tile, for every number of iterations."""
        return np.minimum(self.operand.rows, np.ceil(self.operand.rows / ITERATIONS + self.halo))


class GroupCosts:
    """Estimates for the layers of one segment within `budget` bytes of a lane. `returned` are values that somebody outside
    reads. Without `groups`, layers run from memory to memory.
    """

    def __init__(self, costs: LayerCosts, returned: set[int], budget: int, rate: float, price: float, groups: bool = True) -> None:
        self.rate, self.price = rate, price
        self._tiles: dict[int, TileChoice | None] = {}
        self.most = MOST_LAYERS if groups else 1
        self.costs, self.chip, self.layers, self.facts = costs, costs.chip, costs.layers, costs.facts
        self.returned, self.budget = returned, budget
        layers, chip = self.layers, self.chip
        self.last_reader: dict[int, int] = {id(v): index for index, layer in enumerate(layers) for v in layer.op.inputs}
        self.last_reader |= dict.fromkeys(returned, len(layers))
        by_rows = {id(layer.op) for layer, facts in zip(layers, self.facts) if facts is not None}
        #: Values that may stay on chip between groups, and their lane bytes.
        self.sizes = {
            facts.result.value: tile_bytes(layer, chip.lanes, facts.rows)
            for layer, facts in zip(layers, self.facts)
            if groups and facts is not None and id(layer.result) not in returned
            and all(id(user) in by_rows for user in layer.result.users)
        }  # fmt: skip
        self.constants = [0 if f is None else f.constants for f in self.facts]
        self._found: list[list[Ways]] = [list(self._alone(index)) for index in range(len(layers))]
        for end in range(1, len(layers) + 1):
            for ways in self._groups(end):
                self._found[ways.first].append(ways)

    def ways(self, first: int) -> list[Ways]:
        """Every group that starts at a layer."""
        return self._found[first]

    def tile(self, index: int) -> TileChoice | None:
        """The tile of a dense convolution from memory to memory; None where it has none."""
        layer = self.layers[index]
        if layer.op.name not in ("conv", "conv_transpose") or is_depthwise(layer.op) or self.facts[index] is None:
            return None
        if index not in self._tiles:
            self._tiles[index] = best_tile(layer, self.chip, self.budget, self.rate, self.price)
        return self._tiles[index]

    def chunk(self, index: int) -> int:
        """Output channels whose constants are loaded at a time where all rows run at once; 0: all."""
        return self.costs.chunk(self.layers[index])

    def _alone(self, index: int) -> Iterator[Ways]:
        """A layer from memory to memory, where it can run that way."""
        zero, none, layer = np.zeros(1), np.zeros(1, bool), self.layers[index]
        tile = self.tile(index)
        if tile is not None:
            yield Ways(index, index + 1, zero, zero + tile.cycles, zero, 0, none, 0)
        elif is_view(layer, self.returned):
            yield Ways(index, index + 1, zero + 1, zero, zero, 0, none, 0, seen=frozenset({id(layer.op.inputs[0])}))
        elif layer.op.name in MOVED or is_magnified(layer.op):
            yield Ways(index, index + 1, zero, zero + ALONE_CYCLES, zero, 0, none, 0)

    # -- groups ----------------------------------------------------------------

    def _groups(self, end: int) -> Iterator[Ways]:
        """Groups of layers up to `end` that fit, from the last layer backwards."""
        count = len(ITERATIONS)
        work, constants = np.zeros(count), 0
        held: dict[int, _Held] = {}
        tallest = 1
        resident = ITERATIONS > 1
        for first in range(end - 1, max(-1, end - 1 - self.most), -1):
            facts = self.facts[first]
            if facts is None:
                return
            work, constants, tallest = work + facts.work, constants + facts.constants, max(tallest, facts.rows)
            result = held.get(facts.result.value)
            if result is None:
                result = held[facts.result.value] = _Held(facts.result, first, 0.0, 0.0)
            result.first, result.operand = first, facts.result
            for operand in facts.operands:
                known = held.get(operand.value)
                if known is None:
                    known = held[operand.value] = _Held(operand, first)
                known.first = first
                known.in_place &= takes_strides(self.layers[first])
                scale = operand.rows / facts.rows
                known.lead = max(known.lead, result.lead * scale + operand.beyond)
                known.behind = min(known.behind, result.lead * scale - operand.before)
            single = first == end - 1
            fits = max(1, tallest) >= ITERATIONS
            fits[0] = single
            made = {f.result.value for f in self.facts[first:end] if f is not None}
            inner = [h for v, h in held.items() if v in made and self.last_reader.get(v, -1) < end]
            results = [h for v, h in held.items() if v in made and self.last_reader.get(v, -1) >= end]
            outside = [h for v, h in held.items() if v not in made]
            within = self._peak(first, end, inner)
            copies = sum((self._copies(h) for h in (*inner, *results, *outside)), np.zeros(count))
            total = within + constants * resident
            fits &= total <= self.budget
            if not fits.any():
                if not single and (within + constants).min() > self.budget:
                    return
                if not single:
                    continue
            reads, ends = [self._crossing(h) for h in outside], [self._crossing(h) for h in results]
            if single and facts.streamed is not None and facts.rows > 1:
                yield from self._streamed(first, facts, within, copies, reads, ends)
            if not fits.any():
                continue
            if single:
                yield from self._over(first, facts, reads, ends)
                yield from self._by_channels(first, facts, reads, ends)
            if fits[0]:
                yield from self._at_once(first, facts, within, reads, ends)
            fits[0] = False
            if fits.any():
                bands = sum((c.band for c in (*reads, *ends)), np.zeros(count))
                chosen = _pareto(work + copies, total + bands, fits)
                yield Ways(
                    first, end, ITERATIONS[chosen].astype(float), (work + copies)[chosen], within[chosen], constants, resident[chosen],
                    constants, tuple(_chosen(c, chosen) for c in reads), tuple(_chosen(c, chosen) for c in ends), together=True,
                )  # fmt: skip

    def _at_once(self, index: int, facts: LayerFacts, within: Floats, reads: list[Crossing], ends: list[Crossing]) -> Iterator[Ways]:
        """A layer in one iteration: its constants in pieces, large ones or the smallest, or whole."""
        one, lanes = [0], self.chip.lanes
        crossings = tuple(_chosen(c, one) for c in reads), tuple(_chosen(c, one) for c in ends)
        chunk, layer = self.chunk(index), self.layers[index]
        yield Ways(
            index, index + 1, np.ones(1), facts.work[one], within[one], facts.constants, np.zeros(1, bool), CHUNKS * facts.chunk, *crossings,
            chunk=chunk,
        )  # fmt: skip
        if chunk > lanes:
            kernel = kernel_of(self.costs.trial, layer, LayerPlan(layer.ops))
            work = self.costs.cost(kernel, row_reads(layer) or [], facts.rows, lanes)[0]
            piece = CHUNKS * -(-facts.constants * lanes // facts.result.c)
            yield Ways(
                index, index + 1, np.ones(1), np.array([work]), within[one], facts.constants, np.zeros(1, bool), piece, *crossings, chunk=lanes
            )
        if facts.chunk < facts.constants and within[0] + facts.constants <= self.budget:
            yield Ways(
                index, index + 1, np.ones(1), self._whole(index, facts), within[one], facts.constants, np.ones(1, bool), facts.constants,
                *crossings, together=True,
            )  # fmt: skip

    def _over(self, index: int, facts: LayerFacts, reads: list[Crossing], ends: list[Crossing]) -> Iterator[Ways]:
        """A layer in one iteration whose result goes over its operand."""
        layer, operand = self.layers[index], facts.operands[0].value
        if operand not in self.sizes or self.last_reader[operand] != index or id(layer.op.inputs[0]) != operand:
            return
        way = way_in_place(layer, self.chip.lanes)
        if way is None:
            return
        kernel, one = kernel_of(self.costs.trial, layer, LayerPlan(layer.ops)), [0]
        work, inside, _ = self.costs.cost(kernel, row_reads(layer) or [], facts.rows, way.channels)
        piece = min(facts.constants, CHUNKS * (facts.constants * way.channels // facts.result.c if way.channels else facts.constants))
        yield Ways(
            index, index + 1, np.ones(1), np.array([work]), np.array([float(inside)]), facts.constants, np.zeros(1, bool), piece,
            tuple(_chosen(c, one) for c in reads), tuple(_chosen(c, one) for c in ends), over=Over(operand, facts.result.value, way.span),
        )  # fmt: skip

    def _whole(self, index: int, facts: LayerFacts) -> Floats:
        """Cycles of a layer in one iteration whose constants are there from the beginning."""
        layer = self.layers[index]
        kernel = kernel_of(self.costs.trial, layer, LayerPlan(layer.ops))
        return np.array([self.costs.cost(kernel, row_reads(layer) or [], facts.rows, 0)[0]])

    def _by_channels(self, index: int, facts: LayerFacts, reads: list[Crossing], ends: list[Crossing]) -> Iterator[Ways]:
        """A layer whose channels have nothing to do with each other: some channels at a time, and some rows of these."""
        layer = self.layers[index]
        channels, rows = slice_of(layer, self.chip.lanes)
        if not channels:
            return
        kernel, reading = kernel_of(self.costs.trial, layer, LayerPlan(layer.ops)), row_reads(layer) or []
        share = channels / facts.result.c
        work, inside, _ = self.costs.cost(kernel, reading, rows, channels)
        tiles = sum(o.band(min(o.rows, rows * o.rows / facts.rows + o.beyond)) for o in facts.operands) + facts.result.band(rows)
        held = np.array([float(min(1.0, share) * (2 * tiles + inside))])
        one = [0]
        passing = tuple(Crossing(c.value, c.size, np.zeros(1), c.first[one] * min(1.0, share)) for c in reads)
        # Where rows of some channels go to memory, nobody finds the result on chip: as a value it has no name then.
        left = tuple(Crossing(c.value if rows == facts.rows else 0, c.size, np.zeros(1), c.first[one]) for c in ends)
        # Weights come with their channels; factors and filters of interpolation serve all channels, and tables are whole.
        each = facts.constants if layer.op.name == "lut" else int(np.ceil(facts.constants * min(1.0, share)))
        total = each if layer.op.name in ("add", "sub", "resize") else facts.constants
        yield Ways(
            index, index + 1, np.ones(1), np.array([work * facts.rows / rows]), held, total, np.zeros(1, bool), min(total, CHUNKS * each),
            passing, left, sliced=True,
        )  # fmt: skip

    def _streamed(
        self, index: int, facts: LayerFacts, within: Floats, copies: Floats, reads: list[Crossing], ends: list[Crossing]
    ) -> Iterator[Ways]:
        """A layer by itself in several iterations, each of which loads its constants again: as many ways as numbers of iterations."""
        for way in range(1, len(ITERATIONS)):
            parts = int(ITERATIONS[way])
            if parts > min(facts.rows, 16) or facts.streamed is None or within[way] + CHUNKS * facts.chunk > self.budget:
                continue
            yield Ways(
                index, index + 1, np.array([float(parts)]), (facts.streamed + copies)[[way]], within[[way]], facts.constants * parts,
                np.zeros(1, bool), CHUNKS * facts.chunk, tuple(_chosen(c, [way]) for c in reads), tuple(_chosen(c, [way]) for c in ends),
                chunk=self.chunk(index),
            )  # fmt: skip

    def _copies(self, held: _Held) -> Floats:
        """Cycles that the rows take which iterations hand on."""
        if held.halo <= 0:
            return np.zeros(len(ITERATIONS))
        slots = held.operand.n * -(-held.operand.c // held.operand.lanes)
        times = 1 if held.in_place else 2
        return np.asarray(times * (ITERATIONS - 1) * (COPY_CYCLES + slots * np.ceil(held.halo * held.operand.w / 16) * 16 / COPY_RATE))

    def _crossing(self, held: _Held) -> Crossing:
        """The value as it comes from memory, or goes there: its tile, and the one of the iteration before or behind."""
        rows = held.rows()
        band = held.operand.band(rows) * np.where(ITERATIONS > 1, 2, 1)
        first = np.minimum(held.operand.rows, np.ceil(held.operand.rows / ITERATIONS + held.lead))
        return Crossing(held.operand.value, held.operand.size, band, np.asarray(first / held.operand.rows * held.operand.size))

    def _peak(self, first: int, end: int, inner: list[_Held]) -> Floats:
        """Lane bytes in use at most within an iteration, values from outside and constants aside."""
        change = np.zeros((end - first + 1, len(ITERATIONS)))
        for item in inner:
            pitch = row_pitch(item.operand.w, item.halo) if item.in_place and item.halo > 0 else 0
            band = item.operand.band(item.rows(), pitch)
            begin, last = item.first - first, self.last_reader[item.operand.value] - first + 1
            change[begin] += band
            change[last] -= band
            if item.halo > 0:
                # Between iterations there is the whole tile, or the rows that are read again.
                aside = band if item.in_place else item.operand.band(item.halo)
                for start, stop in ((0, begin), (last, end - first)):
                    change[start] += aside * (ITERATIONS > 1)
                    change[stop] -= aside * (ITERATIONS > 1)
        live = np.cumsum(change, 0)[:-1]
        for offset in range(end - first):
            facts = self.facts[first + offset]
            if facts is not None:
                live[offset] += facts.inside
        return np.asarray(live.max(0))


def _pareto(work: Floats, taken: Floats, fits: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Ways that no other beats in both cycles and bytes, at most `MOST_WAYS` of them, evenly chosen."""
    found: list[int] = []
    least = np.inf
    for index in np.lexsort((taken, work)):
        if fits[index] and taken[index] < least:
            found.append(int(index))
            least = min(least, taken[index])
    if len(found) > MOST_WAYS:
        found = [found[i] for i in dict.fromkeys(np.linspace(0, len(found) - 1, MOST_WAYS).round().astype(int).tolist())]
    return found


def _chosen(item: Crossing, ways: list[int]) -> Crossing:
    return Crossing(item.value, item.size, item.band[ways], item.first[ways])


