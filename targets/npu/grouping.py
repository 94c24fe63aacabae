# SPDX-License-Identifier: Apache-2.0
"""What groups of layers cost, for the search of cuts: estimates from sums over layers, for every number of iterations at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gadl.passes.plan.cuts import Interval
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.tiling import Floats

from .bounds import windows_of
from .costs import Costs
from .expand.bands import RowShape, row_shape
from .layers import Layer
from .rowwise import band_bytes, is_reduction, row_layers, row_reads, weight_bytes

#: Numbers of iterations that are tried.
ITERATIONS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224])
#: How much dearer a group counts that fills its budget: room that is left over holds what is loaded ahead.
LEAN = 0.05
#: Longest group.
MOST_LAYERS = 96
#: Bytes of weights that are loaded at a time where all rows of a layer run at once.
CHUNK_BYTES = 24 << 10


@dataclass(frozen=True)
class LayerFacts:
    """A layer as the estimate sees it; vectors are over `ITERATIONS`."""

    array: Floats  # cycles of the product array, drain included
    vector: Floats  # cycles of the vector unit
    whole: int  # bytes of the result
    weights: int
    chunk: int  # bytes of weights at a time, in one iteration
    rows: int
    operands: tuple[tuple[int, int, Floats], ...]  # value, bytes, bytes of its band when loaded
    result: int


class GroupCosts:
    """Estimates for the layers of one segment within `budget` bytes of SRAM. `returned` are values that somebody outside reads."""

    def __init__(self, costs: Costs, layers: list[Layer], returned: set[int], budget: int) -> None:
        self.costs, self.layers, self.budget = costs, layers, budget
        self._intervals: dict[int, list[tuple[int, Floats]]] = {}
        self.rate = costs.machine["dram.bytes_per_cycle"] * costs.machine["dram.eff"]
        self.latency = costs.machine["dma.issue"] + costs.machine["dram.latency_rd"]
        self.facts = [self._facts(layer) for layer in layers]
        self.last_reader: dict[int, int] = {}
        for index, layer in enumerate(layers):
            for value in layer.op.inputs:
                self.last_reader[id(value)] = index
        self.last_reader |= dict.fromkeys(returned, len(layers))

    def _facts(self, layer: Layer) -> LayerFacts | None:
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
            whole = inside.rows > 1 and rows_of.high[0] == inside.rows and not is_reduction(layer)
            halo = inside.rows if whole else 0 if is_reduction(layer) else int((rows_of.high - rows_of.low).max()) - 1
            each = np.ceil(inside.rows / ITERATIONS)
            band = np.minimum(inside.rows, halo + 2 * each + np.maximum(halo, 0)) * inside.row_bytes
            operands.append((id(value), inside.images * inside.rows * inside.row_bytes, band))
        weights = weight_bytes(layer)
        size = shape.images * shape.rows * shape.row_bytes
        return LayerFacts(array, vector, size, weights, min(weights, CHUNK_BYTES), shape.rows, tuple(operands), id(layer.result))

    @lru_cache(maxsize=65536)  # noqa: B019  (lives as long as the search)
    def _cycles(self, layer: Layer, rows: int) -> tuple[float, float]:
        """Array and vector cycles of some rows of a layer."""
        shape = row_shape(layer.result)
        if shape is None:
            return 0.0, 0.0
        windows = windows_of(layer)
        if not windows:
            return 0.0, self._vector(layer, rows, shape.width * shape.channels)
        dtype = layer.op.inputs[0].dtype
        total = 0.0
        for window, _ in windows:
            mine = max(1, round(rows * window.oh / shape.rows))
            piece = self.costs.accumulator_piece(window, mine, window.oc, dtype)
            count = -(-mine // piece.rows) * -(-window.ow // piece.columns) * -(-window.oc // piece.channels)
            drained = self.costs.epi(piece.rows * piece.columns * piece.channels)
            total += count * max(self.costs.mma(window, piece.rows, piece.columns, piece.channels, dtype), drained) + drained
        return total, 0.0

    def _vector(self, layer: Layer, rows: int, row_elements: int) -> float:
        op, taps = layer.op, 1
        if op.name in ("max_pool", "avg_pool"):
            taps = int(np.prod(op.attrs["kernel"]))
        elif op.name == "resize" and op.attrs["mode"] != "nearest":
            taps = 4
        elif op.name.startswith("reduce_"):
            taps = op.inputs[0].type.element_count // max(1, row_elements)
        widest = max(v.dtype.size_bytes for v in (*op.inputs, layer.result))
        return self.costs.vector(rows * row_elements * taps, widest)

    def options(self, first: int) -> Iterator[Interval[int]]:
        """Every group that starts at a layer, with its best number of iterations."""
        for end, total in self._starting(first):
            best = int(total.argmin())
            if np.isfinite(total[best]):
                yield Interval(first, end, float(total[best]), int(ITERATIONS[best]))

    def _starting(self, first: int) -> list[tuple[int, Floats]]:
        """The estimates of `_estimate`, made once; refused groups are infinite."""
        if first not in self._intervals:
            self._intervals[first] = list(self._estimate(first))
        return self._intervals[first]

    def refuse(self, first: int, end: int, iterations: int) -> None:
        """A group does not fit: neither do those that hold it, nor with fewer iterations (unless it is one)."""
        position = int(np.searchsorted(ITERATIONS, iterations))
        refused = slice(1, position + 1) if position else slice(0, 1)
        for start in range(first + 1):
            for stop, total in self._starting(start):
                if stop >= end:
                    total[refused] = np.inf

    def need(self, first: int, end: int, iterations: int) -> float:
        """SRAM in bytes that a group takes, from its row flow."""
        members = self.layers[first:end]
        if iterations == 1:
            return self._peak(first, end)
        found = row_layers(members)
        if found is None:
            return np.inf
        stored = {id(m.result) for m in members if self.last_reader.get(id(m.result), -1) >= end}
        flow = RowFlow(*found, iterations)
        return band_bytes(members, flow, stored) + sum(weight_bytes(m) for m in members)

    def _estimate(self, first: int) -> Iterator[tuple[int, Floats]]:
        """Last layers of the groups that start at a layer, and estimated cycles for every number of iterations."""
        count = len(ITERATIONS)
        array, vector, weights = np.zeros(count), np.zeros(count), 0
        bands: dict[int, Floats] = {}
        sizes: dict[int, int] = {}
        made: set[int] = set()
        tallest, reduced, spoiled = 1, False, False
        for end in range(first + 1, min(len(self.layers), first + MOST_LAYERS) + 1):
            facts = self.facts[end - 1]
            if facts is None:
                return
            array += facts.array
            vector += facts.vector
            weights += facts.weights
            tallest = max(tallest, facts.rows)
            for value, size, band in facts.operands:
                bands[value] = np.maximum(bands.get(value, 0), band)
                sizes[value] = size
            made.add(facts.result)
            sizes[facts.result] = facts.whole
            bands.setdefault(facts.result, 2 * np.ceil(facts.whole / ITERATIONS))
            loaded = sum(size for value, size in sizes.items() if value not in made)
            stored = sum(sizes[v] for v in made if self.last_reader.get(v, -1) >= end)
            sram = np.asarray(sum(bands.values())) + weights
            sram[0] = self._peak(first, end)
            moved = loaded + stored + weights
            # What comes after a reduction waits for all rows: in several iterations that holds everything up.
            fits = (sram <= self.budget) & (ITERATIONS <= max(1, tallest))
            spoiled |= reduced and facts.rows > 1
            fits[1:] &= not spoiled
            reduced |= is_reduction(self.layers[end - 1])
            if not fits.any():
                if sram.min() > 2 * self.budget:
                    return
                continue
            transfers = ITERATIONS * 2.0 + 2 * (end - first)
            dram = moved / self.rate + transfers * self.latency / 4
            ramp = self.latency * 2 + (loaded + stored) / ITERATIONS / self.rate
            total = np.maximum(np.maximum(array, dram), vector) + ramp
            total = np.where(fits, total, np.inf)
            yield end, total * (1 + LEAN * sram / self.budget)

    def _peak(self, first: int, end: int) -> float:
        """SRAM in use at most when every layer runs at once: values from the first to the last layer that touches them."""
        starts: dict[int, tuple[int, int, int]] = {}
        chunks = 0
        for index in range(first, end):
            facts = self.facts[index]
            if facts is None:
                return np.inf
            chunks = max(chunks, facts.chunk)
            for value, size, _ in facts.operands:
                begin, _, known = starts.get(value, (index, index, size))
                starts[value] = (begin, index, known)
            starts[facts.result] = (index, index, facts.whole)
        change = [0] * (end - first + 1)
        for begin, last, size in starts.values():
            change[begin - first] += size
            change[last - first + 1] -= size
        peak = total = 0
        for step in change:
            total += step
            peak = max(peak, total)
        return peak + 3 * chunks


def chunk_channels(layer: Layer) -> int:
    """Output channels whose weights are loaded at a time where all rows run at once; 0: all."""
    if layer.op.name not in ("conv", "linear") or weight_bytes(layer) <= CHUNK_BYTES:
        return 0
    channels = (row_shape(layer.result) or RowShape(1, 1, 1, 1, 1)).channels
    return max(16, channels * CHUNK_BYTES // weight_bytes(layer) // 16 * 16)
