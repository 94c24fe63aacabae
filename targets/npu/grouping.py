# SPDX-License-Identifier: Apache-2.0
"""What groups of layers cost, for the search of cuts: estimates from sums over layers, for every number of iterations at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gadl.passes.plan.cuts import Crossing, Over, Ways
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.tiling import Floats

from . import attention
from .bounds import windows_of
from .costs import Costs
from .expand.bands import row_shape
from .expand.group import may_keep
from .expand.normalise import OVER_LAST_AXIS, most_iterations, vector_cycles
from .in_place import InPlace, reads_all, ways_in_place
from .layers import Layer, read_once, same_bytes
from .rowwise import band_bytes, is_reduction, row_layers, row_reads, weight_bytes, working_bytes

#: Numbers of iterations that are tried; the last ones for rows of scores, of which all heads together have many, and long ones.
ITERATIONS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 320, 512, 1024])
MOST_OF_IMAGES = 224
#: Longest group, and the most ways to run it that are followed.
MOST_LAYERS, MOST_WAYS = 48, 6
#: Bytes of weights that are loaded at a time where all rows of a layer run at once, and how many such pieces lie on chip.
CHUNK_BYTES, CHUNKS = 32 << 10, 3
#: Cycles that a layer outside any group counts: more than it may take, so that groups are preferred.
ALONE_CYCLES = 1e9


@dataclass(frozen=True)
class Operand:
    """An operand as the estimate sees it: rows, and of these how far a result row reads beyond its own place, and before it."""

    value: int
    size: int  # bytes
    rows: int
    row_bytes: int
    beyond: float
    before: float
    mixed: bool  # another engine than the array takes part


@dataclass
class _Held:
    """A value within a group, from its readers back to who makes it; rows count from the end of the group."""

    operand: Operand
    lead: float = 0.0  # how far it must be ahead of its own place
    behind: float = np.inf  # how far its last reader is ahead

    def band(self, slack: int) -> Floats:
        """Bytes on chip for every number of iterations, with room for `slack` more of them."""
        each = np.ceil(self.operand.rows / ITERATIONS)
        halo = max(0.0, self.lead - min(self.behind, self.lead))
        return np.minimum(self.operand.rows, np.ceil(each + halo + np.maximum(halo, slack * each))) * self.operand.row_bytes

    @property
    def crossing(self) -> Crossing:
        """The value as it comes from memory, or goes there."""
        first = np.minimum(self.operand.rows, np.ceil(self.operand.rows / ITERATIONS + self.lead)) * self.operand.row_bytes
        return Crossing(self.operand.value, self.operand.size, self.band(2), first)


@dataclass(frozen=True)
class LayerFacts:
    """A layer as the estimate sees it; vectors are over `ITERATIONS`."""

    array: Floats  # cycles of the product array, drain included
    vector: Floats  # cycles of the vector unit
    whole: int  # bytes of the result
    working: int  # bytes between its instructions
    most: int  # iterations
    weights: int
    chunk: int  # bytes of weights at a time, in one iteration
    rows: int
    operands: tuple[Operand, ...]
    result: Operand
    images: int
    shared: bool  # a sum whose result may take the place of its second operand
    over: tuple[InPlace, ...]  # ways to put the result over the first operand


class GroupCosts:
    """Estimates for the layers of one segment within `budget` bytes of SRAM. `returned` are values that somebody outside reads;
    `in_place`: results may go over operands.
    """

    def __init__(self, costs: Costs, layers: list[Layer], returned: set[int], budget: int, in_place: bool) -> None:
        self.costs, self.layers, self.returned, self.budget, self.in_place = costs, layers, returned, budget, in_place
        self.last_reader: dict[int, int] = {id(v): index for index, layer in enumerate(layers) for v in layer.op.inputs}
        self.last_reader |= dict.fromkeys(returned, len(layers))
        self.facts = [self._facts(index, layer) for index, layer in enumerate(layers)]

        #: Values that may stay on chip between groups, and their bytes.
        self.sizes = self._keepable()
        self._found: list[list[Ways]] = [[self._alone(index)] for index in range(len(layers))]
        for end in range(1, len(layers) + 1):
            for ways in self._groups(end):
                self._found[ways.first].append(ways)

    def _keepable(self) -> dict[int, int]:
        """Those that only layers by rows read, with none but such layers up to the last of them."""
        others = np.cumsum([0, *(facts is None for facts in self.facts)])
        return {
            id(layer.result): facts.whole
            for index, (layer, facts) in enumerate(zip(self.layers, self.facts))
            if facts is not None and may_keep(layer.result)
            and (last := self.last_reader.get(id(layer.result), len(self.layers))) < len(self.layers)
            and others[last + 1] == others[index]
        }  # fmt: skip

    def _facts(self, index: int, layer: Layer) -> LayerFacts | None:
        reads, shape = row_reads(layer), row_shape(layer.result)
        if reads is None or shape is None:
            return None
        new = np.ceil(shape.rows / ITERATIONS)
        array, vector = np.zeros(len(ITERATIONS)), np.zeros(len(ITERATIONS))
        for position, rows in enumerate(new.astype(int)):
            times = -(-shape.rows // rows) * shape.images
            mma, vec = self._cycles(layer, int(rows))
            array[position], vector[position] = times * mma, times * vec
        operands = []
        for value, rows_of in reads:
            inside = row_shape(value)
            if inside is None:
                return None
            place = np.arange(shape.rows) * (inside.rows / shape.rows)
            beyond = float((rows_of.high - place).max()) - inside.rows / shape.rows
            before = float((place - rows_of.low).max())
            if is_reduction(layer):
                beyond = before = 0.0  # takes rows in as they come
            elif layer.op.name in ("matmul", "attention") and float((rows_of.high - rows_of.low).max()) * inside.row_bytes > CHUNK_BYTES:
                before = 0.0  # rows of a batch item go together; small ones have room to spare
            mixed = layer.op.name not in ("conv", "linear", "conv_transpose")
            size = inside.images * inside.rows * inside.row_bytes
            operands.append(Operand(id(value), size, inside.rows, inside.row_bytes, max(0.0, beyond), max(0.0, before), mixed))
        weights = weight_bytes(layer)
        size = shape.images * shape.rows * shape.row_bytes
        residual = layer.op.operand(3) if layer.op.name in ("conv", "linear") else None
        shared = residual is not None and residual is not layer.op.inputs[0] and row_shape(residual) == shape
        shared = shared and residual is not None and self.last_reader[id(residual)] == index
        chunk = chunk_channels(layer, self.costs.machine.integer("mma.shape.1"))
        piece = weights * chunk // shape.channels if chunk else weights
        mixed = layer.op.name not in ("conv", "linear", "conv_transpose")
        result = Operand(id(layer.result), size, shape.rows, shape.row_bytes, 0.0, 0.0, mixed)
        alone = self.in_place and operands and self.last_reader[operands[0].value] == index
        over = ways_in_place(self.costs, layer) if alone else []
        working = working_bytes(self.costs, layer)
        most = attention.most_iterations(layer) if layer.op.name == "attention" else most_iterations(layer)
        return LayerFacts(
            array, vector, size, working, most, weights, piece, shape.rows, tuple(operands), result, shape.images, shared, tuple(over)
        )

    @lru_cache(maxsize=65536)  # noqa: B019  (lives as long as the search)
    def _cycles(self, layer: Layer, rows: int) -> tuple[float, float]:
        """Array and vector cycles of some rows of a layer."""
        shape = row_shape(layer.result)
        if shape is None:
            return 0.0, 0.0
        if layer.op.name == "attention":
            return attention.cycles(self.costs, layer, rows)
        windows = windows_of(layer)
        if not windows:
            return 0.0, self._vector(layer, rows, shape.width * shape.channels)
        dtype = layer.op.inputs[0].dtype
        total = 0.0
        for window, times in windows:
            mine = max(1, round(rows * window.oh * times / shape.rows))
            total += self.costs.product(window, mine, window.oc, dtype)
        return total, 0.0

    def _vector(self, layer: Layer, rows: int, row_elements: int) -> float:
        op, taps = layer.op, 1
        if op.name in OVER_LAST_AXIS:
            return vector_cycles(self.costs, layer, rows)
        if op.name in ("max_pool", "avg_pool"):
            taps = int(np.prod(op.attrs["kernel"]))
        elif op.name == "resize" and op.attrs["mode"] != "nearest":
            taps = 4
        elif op.name.startswith("reduce_"):
            taps = op.inputs[0].type.element_count // max(1, row_elements)
        widest = max(v.dtype.size_bytes for v in (*op.inputs, layer.result))
        return self.costs.vector(rows * row_elements * taps, widest)

    def ways(self, first: int) -> list[Ways]:
        """Every group that starts at a layer."""
        return self._found[first]

    def _alone(self, index: int) -> Ways:
        """A layer from memory to memory; another look at the same bytes takes no time."""
        zero, none, layer = np.zeros(1), np.zeros(1, bool), self.layers[index]
        if same_bytes(layer.op) and (id(layer.result) not in self.returned or read_once(layer.op.inputs[0], self.returned)):
            return Ways(index, index + 1, zero + 1, zero, zero, 0, none, 0, seen=frozenset({id(layer.op.inputs[0])}))
        return Ways(index, index + 1, zero, zero + ALONE_CYCLES, zero, weight_bytes(layer), none, 0)

    def refuse(self, first: int, end: int, parts: int) -> None:
        """A group does not fit: neither do those that hold it, nor with fewer iterations (one is a matter of its own)."""
        for start in range(first + 1):
            for ways in self.ways(start):
                if ways.end >= end:
                    ways.work[(ways.parts >= min(parts, 2)) & (ways.parts <= parts)] = np.inf

    def need(self, first: int, end: int, parts: int, kept: frozenset[int], there: set[int]) -> float:
        """SRAM in bytes that a group takes, from its row flow; `kept` results stay on chip, values `there` are already."""
        members = self.layers[first:end]
        found = row_layers(members)
        if found is None:
            return np.inf
        stored = {id(m.result) for m in members if self.last_reader.get(id(m.result), -1) >= end} - kept
        flow = RowFlow(*found, parts)
        whole = sum(facts.whole for facts in self.facts[first:end] if facts is not None and facts.result.value in kept)
        return band_bytes(self.costs, members, flow, stored, kept | there) + whole + sum(weight_bytes(m) for m in members)

    def _groups(self, end: int) -> Iterator[Ways]:
        """Groups of layers up to `end` that fit, with estimates for the numbers of iterations worth trying.

        From the last layer backwards: how far a value must be ahead of the group's end follows from who reads it.
        """
        count = len(ITERATIONS)
        array, vector, inside, weights = np.zeros(count), np.zeros(count), np.zeros(count), 0
        held: dict[int, _Held] = {}
        results: list[Crossing] = []
        tallest, most, tall, spoiled = 1, MOST_OF_IMAGES, False, False
        resident = ITERATIONS > 1
        for first in range(end - 1, max(-1, end - 1 - MOST_LAYERS), -1):
            facts = self.facts[first]
            if facts is None:
                return
            array, vector = array + facts.array, vector + facts.vector
            weights += facts.weights
            inside = inside + facts.working
            tallest = max(tallest, facts.rows)
            if facts.working:
                most = facts.most if most == MOST_OF_IMAGES else min(most, facts.most)
            result = held.pop(facts.result.value, None) or _Held(facts.result, 0.0, 0.0)
            if self.last_reader.get(facts.result.value, -1) >= end:
                results.append(result.crossing)
            else:
                inside = inside + result.band(int(facts.result.mixed or result.operand.mixed))
            for operand in facts.operands:
                known = held.setdefault(operand.value, _Held(operand))
                scale = operand.rows / facts.rows
                known.lead = max(known.lead, result.lead * scale + operand.beyond)
                known.behind = min(known.behind, result.lead * scale - operand.before)
                if operand.mixed and not known.operand.mixed:
                    known.operand = operand
            # What comes after a reduction waits for all rows: in several iterations that holds everything up.
            spoiled |= tall and is_reduction(self.layers[first])
            tall |= facts.rows > 1
            fits = ITERATIONS <= max(1, min(tallest, most))
            fits[1:] &= not spoiled
            # One image's layers in one iteration are groups of their own, with what lies between them kept.
            single = first == end - 1
            fits[0] = single or facts.images > 1
            within = inside.copy()
            if not single:
                within[0] = self._peak(first, end)
            least = within + weights * resident
            fits &= least <= self.budget
            if not fits.any():
                if least[-1] > self.budget:
                    return
                continue
            reads = [item.crossing for item in held.values()]
            work = np.where(resident, np.maximum(array, vector), array + vector)
            total = np.asarray(least + sum((c.band for c in (*reads, *results)), np.zeros(count)))
            chosen = _pareto(work, total, fits)
            if single and facts.operands and facts.operands[0].value in self.sizes:
                yield from (self._over(first, facts, way, reads, results) for way in facts.over)
            yield Ways(
                first, end, ITERATIONS[chosen].astype(float), work[chosen], within[chosen], weights, resident[chosen],
                CHUNKS * facts.chunk if single else weights, tuple(_chosen(c, chosen) for c in reads),
                tuple(_chosen(c, chosen) for c in results), single and facts.shared,
            )  # fmt: skip

    def _over(self, index: int, facts: LayerFacts, way: InPlace, reads: list[Crossing], results: list[Crossing]) -> Ways:
        """A layer by itself whose result goes over its operand."""
        whole = reads_all(self.layers[index]) and not way.streamed
        passes = -(-facts.rows // way.block) if way.streamed else 1
        over = Over(facts.operands[0].value, facts.result.value, way.span, way.block, way.streamed)
        one = np.ones(1)
        return Ways(
            index, index + 1, one, one * max(way.array, way.vector), one * way.beside, facts.weights * passes, one < 0,
            facts.weights if whole else CHUNKS * facts.chunk, tuple(_chosen(c, [0]) for c in reads),
            tuple(_chosen(c, [0]) for c in results), over=over,
        )  # fmt: skip

    def _peak(self, first: int, end: int) -> float:
        """SRAM in use at most when every layer runs at once: values from the first to the last layer that touches them."""
        starts: dict[int, tuple[int, int, int]] = {}
        chunks = working = 0
        for index in range(first, end):
            facts = self.facts[index]
            if facts is None:
                return np.inf
            chunks, working = max(chunks, facts.chunk), max(working, facts.working)
            for operand in facts.operands:
                begin, _, size = starts.get(operand.value, (index, index, operand.size))
                starts[operand.value] = (begin, index, size)
            starts[facts.result.value] = (index, index, facts.whole)
        change = [0] * (end - first + 1)
        for begin, last, size in starts.values():
            change[begin - first] += size
            change[last - first + 1] -= size
        peak = total = 0
        for step in change:
            total += step
            peak = max(peak, total)
        return peak + 3 * chunks + working


def _pareto(work: Floats, held: Floats, fits: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Ways that no other beats in both cycles and bytes, at most `MOST_WAYS` of them, evenly chosen; one iteration always."""
    found: list[int] = []
    least = np.inf
    for index in np.lexsort((held, work)):
        if fits[index] and (held[index] < least or index == 0):
            found.append(int(index))
            least = min(least, held[index])
    if len(found) > MOST_WAYS:
        found = [found[i] for i in dict.fromkeys(np.linspace(0, len(found) - 1, MOST_WAYS).round().astype(int).tolist())]
    return found


def _chosen(item: Crossing, ways: list[int]) -> Crossing:
    return Crossing(item.value, item.size, item.band[ways], item.first[ways])


def chunk_channels(layer: Layer, unit: int, parts: int = 0) -> int:
    """Output channels whose weights are loaded at a time, a multiple of `unit`; 0: all.

    Where all rows run at once the weights pass through; in several iterations they stay, and dense ones come in `parts`.
    """
    shape, weights = row_shape(layer.result), weight_bytes(layer)
    if shape is None or layer.op.name not in ("conv", "linear") or weights <= CHUNK_BYTES:
        return 0
    if parts:
        part = -(-shape.channels // parts // unit) * unit
        return part if layer.op.name == "linear" and shape.rows > 1 and part < shape.channels else 0
    return max(unit, shape.channels * CHUNK_BYTES // weights // unit * unit)
