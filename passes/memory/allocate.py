# SPDX-License-Identifier: Apache-2.0
"""On-chip allocation: gives every buffer of a program an address.

The buffers of one memory are placed in the order of their first use. Engines run ahead of each other, so a buffer that
takes over memory released only just now would make its writer wait; the place whose last user lies furthest back is
taken instead. Double and triple buffering follow from this without being asked for. Where that order leaves a buffer without
a place, because what is free lies in pieces, buffers of about one size take turns in slots (`gadl.passes.memory.slots`), or else
all places are searched for together: both for a stretch of the program at whose ends nothing is alive.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from gadl.passes.memory.search import Item, lower_bound, search
from gadl.passes.memory.slots import take_turns
from gadl.passes.plan.program import Buffer, Program


class Reuse(enum.Enum):
    """Which free place a buffer takes."""

    #: The one released longest ago: engines that run ahead of each other wait least.
    OLDEST = "oldest"
    #: The lowest address: the least memory.
    LOWEST = "lowest"


class AllocationError(Exception):
    """No places were found, also by search: the planner must choose smaller tiles.

    `needed` is in the memory's unit, `op` what the step belongs to that first uses the buffer without a place.
    """

    def __init__(self, memory: str, needed: int, capacity: int, op: int = 0) -> None:
        super().__init__(f"{memory}: {needed} needed, {capacity} there")
        self.memory, self.needed, self.capacity, self.op = memory, needed, capacity, op


@dataclass(slots=True)
class _Span:
    """Part `[start, end)` of a memory, used by one buffer until step `last` (-1: never used)."""

    start: int
    end: int
    last: int


def allocate(program: Program, memory: str, capacity: int, reuse: Reuse = Reuse.OLDEST) -> int:
    """Place every unplaced buffer of `memory`; returns the peak in use at one step.

    Buffers with overlapping lifetimes never overlap in memory. Raises `AllocationError` when a search finds no places either.
    """
    spans = program.lifetimes()
    wanted = [b for b in program.buffers if b.memory == memory and b.address is None and id(b) in spans]
    wanted.sort(key=lambda b: spans[id(b)][0])
    map_ = [_Span(0, capacity, -1)]
    for stretch in _stretches(wanted, spans):
        try:
            map_ = _in_order(program, stretch, spans, map_, reuse)
        except AllocationError:
            if not (take_turns(stretch, spans, capacity) or search_places(stretch, spans, capacity)):
                raise
            for buffer in stretch:
                if buffer.address is not None:
                    map_ = _occupy(map_, buffer.address, buffer.address + buffer.size, spans[id(buffer)][1])
    return peak_use(program, memory)


def _stretches(buffers: Sequence[Buffer], spans: Mapping[int, tuple[int, int]]) -> Iterator[list[Buffer]]:
    """Buffers in order of first use, cut where none is alive before and behind."""
    found: list[Buffer] = []
    end = -1
    for buffer in buffers:
        first, last = spans[id(buffer)]
        if found and first > end:
            yield found
            found = []
        found.append(buffer)
        end = max(end, last)
    if found:
        yield found


def _in_order(
    program: Program, buffers: Sequence[Buffer], spans: Mapping[int, tuple[int, int]], map_: list[_Span], reuse: Reuse
) -> list[_Span]:
    """Place buffers one after another; returns the map with them in it. `AllocationError`, and nothing done, when one finds no place."""
    places = []
    for buffer in buffers:
        first, last = spans[id(buffer)]
        place = _best_place(map_, buffer, first, reuse)
        if place is None:
            raise AllocationError(buffer.memory, buffer.size, map_[-1].end, program.steps[first].op)
        places.append(place)
        map_ = _occupy(map_, place, place + buffer.size, last)
    for buffer, place in zip(buffers, places):
        buffer.address = place
    return map_


def search_places(buffers: Sequence[Buffer], spans: Mapping[int, tuple[int, int]], capacity: int) -> bool:
    """Give all of the buffers addresses by exact search; False, and nothing done, when it finds none.

    `spans` names the first and last step of each buffer, by `id`.
    """
    lives = [spans[id(b)] for b in buffers]
    found = search([Item(first, last + 1, b.size, b.alignment) for b, (first, last) in zip(buffers, lives)], capacity)
    if found.offsets is None:
        return False
    for buffer, offset in zip(buffers, found.offsets):
        buffer.address = offset
    return True


def _best_place(map_: list[_Span], buffer: Buffer, now: int, reuse: Reuse) -> int | None:
    """The start of the free range that `reuse` prefers; lower addresses on a tie."""
    best: tuple[int, int] | None = None
    bound, count = now, len(map_)
    for index, span in enumerate(map_):
        if span.last >= now:
            continue
        start = -(-span.start // buffer.alignment) * buffer.alignment
        if start >= span.end:
            continue
        end, latest, cursor = start + buffer.size, -1, index
        while cursor < count and (here := map_[cursor]).start < end and here.last < now:
            if here.last > latest:
                latest = here.last
                if latest >= bound:
                    break
            cursor += 1
        if latest < bound and map_[cursor - 1].end >= end:
            best, bound = (latest, start), latest
            if reuse is Reuse.LOWEST:
                break
    return None if best is None else best[1]


def _occupy(map_: list[_Span], start: int, end: int, last: int) -> list[_Span]:
    """The map with `[start, end)` used until `last`."""
    result: list[_Span] = []
    for span in map_:
        if span.end <= start or span.start >= end:
            result.append(span)
            continue
        if span.start < start:
            result.append(_Span(span.start, start, span.last))
        if span.start <= start:
            result.append(_Span(start, end, last))
        if span.end > end:
            result.append(_Span(end, span.end, span.last))
    return result


def peak_use(program: Program, memory: str, without: Set[int] = frozenset()) -> int:
    """The largest sum of sizes of a memory's buffers alive at one step, `without` some (by `id`)."""
    spans = program.lifetimes()
    used = [(b.size, spans[id(b)]) for b in program.buffers if b.memory == memory and id(b) in spans and id(b) not in without]
    return lower_bound([Item(first, last + 1, size) for size, (first, last) in used])
