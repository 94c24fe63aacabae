# SPDX-License-Identifier: Apache-2.0
"""Synchronisation: which step must wait for which, with nothing redundant.

Engines are in-order queues. Two steps of different engines that touch the same bytes, one of them writing, must keep
their sequential order. From all such pairs this pass keeps a minimal set: a wait is left out when an earlier wait of the same
engine, or a wait of the step waited for, already implies it. Per pair of engines the remaining waits are monotone, so
they fit counting semaphores (one per pair) and running wait numbers alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from gadl.passes.plan.program import Program, Region, Wait


class _AccessMap:
    """Last writer and readers since then, for disjoint ranges of one memory."""

    def __init__(self) -> None:
        self._starts: list[int] = [0]
        self._state: list[tuple[int, tuple[int, ...]]] = [(-1, ())]

    def _split(self, at: int) -> int:
        index = bisect_left(self._starts, at)
        if index == len(self._starts) or self._starts[index] != at:
            self._starts.insert(index, at)
            self._state.insert(index, self._state[index - 1])
        return index

    def read(self, start: int, end: int, step: int, engine_of: Callable[[int], int]) -> Iterator[int]:
        """Record a read; yields the writers it depends on."""
        low, high = self._split(start), self._split(end)
        engine = engine_of(step)
        for index in range(low, high):
            writer, readers = self._state[index]
            if writer >= 0:
                yield writer
            # A later read of the same engine stands for the earlier one: queues are in order.
            kept = tuple([r for r in readers if engine_of(r) != engine]) if readers else ()
            self._state[index] = (writer, (*kept, step))

    def write(self, start: int, end: int, step: int) -> Iterator[int]:
        """Record a write; yields the writers and readers it must follow."""
        low, high = self._split(start), self._split(end)
        for index in range(low, high):
            writer, readers = self._state[index]
            if writer >= 0:
                yield writer
            yield from readers
        self._starts[low:high] = [start]
        self._state[low:high] = [(step, ())]


def _range(region: Region) -> tuple[int, int]:
    address = region.buffer.address
    if address is None:
        raise ValueError(f"buffer '{region.buffer.name}' has no address")
    return address + region.start, address + region.start + region.size


def find_waits(program: Program) -> list[Wait]:
    """The waits that make every legal run of the queues equal to the sequential order of `program.steps`."""
    steps = program.steps
    engines = sorted({s.engine for s in steps})
    number = {engine: i for i, engine in enumerate(engines)}
    engine_of = [number[s.engine] for s in steps]
    maps: dict[str, _AccessMap] = {}
    # known[e][f]: the newest step of engine f that engine e knows to be complete.
    known = [[-1] * len(engines) for _ in engines]
    at_start: list[list[int]] = []
    waits: list[Wait] = []

    for index, step in enumerate(steps):
        needs: set[int] = set()
        for region in step.reads:
            needs.update(maps.setdefault(region.buffer.memory, _AccessMap()).read(*_range(region), index, engine_of.__getitem__))
        for region in step.writes:
            needs.update(maps.setdefault(region.buffer.memory, _AccessMap()).write(*_range(region), index))
        mine = known[engine_of[index]]
        # Newest first: it may imply the others.
        for other in sorted(needs - {index}, reverse=True):
            queue = engine_of[other]
            if queue == engine_of[index] or mine[queue] >= other:
                continue
            waits.append(Wait(index, other))
            mine[queue] = other
            for position, value in enumerate(at_start[other]):
                if value > mine[position]:
                    mine[position] = value
        at_start.append(list(mine))
    return waits

