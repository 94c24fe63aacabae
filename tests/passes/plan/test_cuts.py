# SPDX-License-Identifier: Apache-2.0
"""The search of cuts against every sequence of groups."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.plan.cuts import Crossing, Cut, CutSearch, Memory, Ways

MEMORY = Memory(capacity=1000, rate=4.0, latency=10.0, channels=4)


class Chain:
    """Layers in a row: layer i reads the value of layer i - 1, and has constants."""

    def __init__(self, sizes: list[int], constants: list[int], work: list[int], packed: float = 1.0) -> None:
        self.memory = replace(MEMORY, packed=packed)
        self.sizes, self.constants, self.work = sizes, constants, work
        self.count = len(constants)
        self.last = {value: value + 1 for value in range(self.count)}

    def ways(self, first: int) -> list[Ways]:
        """Every group from a layer on, in one iteration (single layers) and in four."""
        found = []
        for end in range(first + 1, self.count + 1):
            parts = np.array([1.0, 4.0]) if end == first + 1 else np.array([4.0])
            work = np.full(len(parts), float(sum(self.work[first:end]))) + 5 * parts

            def crossing(value: int, parts: np.ndarray = parts) -> Crossing:
                size = self.sizes[value]
                return Crossing(value, size, np.minimum(size, 3 * size / parts), size / parts)

            inside = sum((self.sizes[v] / parts for v in range(first, end - 1)), np.zeros(len(parts)))
            reads = (crossing(first - 1),) if first else ()
            results = (crossing(end - 1),) if end < self.count else ()
            found.append(Ways(first, end, parts, work, inside, sum(self.constants[first:end]), parts > 1, 50, reads, results))
        return found

    def run(self) -> list[Cut]:
        sizes = dict(enumerate(self.sizes[:-1]))
        return CutSearch(self.ways, self.memory, self.last, sizes, self.constants).run()

    def time(self, cuts: list[Cut]) -> float:
        """The recurrence, step by step and in plain numbers."""
        time = stock = 0.0
        kept: set[int] = set()
        for cut in cuts:
            (ways,) = (w for w in self.ways(cut.first) if w.end == cut.end)
            way = ways.parts.tolist().index(cut.parts)
            live = sum(self.sizes[v] for v in kept)
            outside = [c for c in ways.reads if c.value not in kept]
            away = [c for c in ways.results if c.value not in cut.kept]
            held = live + float(ways.inside[way]) + sum(float(c.band[way]) for c in (*outside, *away)) + sum(self.sizes[v] for v in cut.kept)
            resident = ways.constants if ways.resident[way] else 0
            if held + (resident or min(ways.piece, ways.constants)) > MEMORY.capacity:
                return math.inf
            room = MEMORY.capacity - held
            there = min(stock, room)
            mine = min(there, ways.constants)
            rest = ways.constants - mine
            work = float(ways.work[way])
            packed = self.memory.packed
            missing = rest if resident else min(ways.piece, ways.constants) - mine
            late = missing * packed / MEMORY.rate - (work / cut.parts if resident else 0)
            loaded, stored = sum(c.size for c in outside), sum(c.size for c in away)
            ramp = MEMORY.latency * (2 * bool(loaded) + bool(stored)) + loaded / cut.parts / MEMORY.rate
            transfers = cut.parts * (len(ways.reads) + bool(stored)) + 2 * (cut.end - cut.first)
            moved = loaded + stored + rest * packed
            length = max(work + max(0.0, late) + ramp, moved / MEMORY.rate + transfers * MEMORY.latency / 4)
            behind = sum(self.constants[cut.end :])
            stock = min(there - mine + (length * MEMORY.rate - moved) / packed, room - resident, behind)
            time += length
            kept = {v for v in kept | cut.kept if self.last[v] >= cut.end}
        return time

    def every(self) -> list[list[Cut]]:
        """Every sequence of cuts, iterations and kept values."""

        def from_(first: int) -> list[list[Cut]]:
            if first == self.count:
                return [[]]
            found = []
            for ways in self.ways(first):
                values = [c.value for c in ways.results]
                for parts in ways.parts:
                    for n in range(len(values) + 1):
                        for kept in combinations(values, n):
                            found += [[Cut(first, ways.end, int(parts), frozenset(kept)), *rest] for rest in from_(ways.end)]
            return found

        return from_(0)


SMALL = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(1, most), min_size=n, max_size=n) for most in (600, 500, 300)))
)


@settings(max_examples=150, deadline=None)
@given(SMALL, st.sampled_from([1.0, 0.4]))
def test_no_sequence_is_faster(case: tuple[list[int], list[int], list[int]], packed: float) -> None:
    chain = Chain(*case, packed)
    best = min(chain.time(cuts) for cuts in chain.every())
    if best == math.inf:
        with pytest.raises(ValueError, match="no sequence"):
            chain.run()
    else:
        assert chain.time(chain.run()) == pytest.approx(best)


def test_a_small_result_stays_on_chip() -> None:
    """Two layers whose constants do not fit together: the value between them is kept rather than stored."""
    found = Chain([100, 10], [700, 700], [50, 50]).run()
    assert [(c.first, c.end, c.kept) for c in found] == [(0, 1, frozenset({0})), (1, 2, frozenset())]


def test_no_layers() -> None:
    assert CutSearch(lambda first: [], MEMORY, {}, {}, []).run() == []
