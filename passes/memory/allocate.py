# SPDX-License-Identifier: Apache-2.0
"""On-chip allocation: gives every buffer of a program an address.

The buffers of one memory are placed in the order of their first use. Engines run ahead of each other, so a buffer that
takes over memory released only just now would make its writer wait; the place whose last user lies furthest back is
taken instead. Double and triple buffering follow from this without being asked for.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gadl.passes.plan.program import Buffer, Program


class Reuse(enum.Enum):
    """Which free place a buffer takes."""

    #: The one released longest ago: engines that run ahead of each other wait least.
    OLDEST = "oldest"
    #: The lowest address: the least memory.
    LOWEST = "lowest"


class AllocationError(Exception):
    """The buffers do not fit: the planner must choose smaller tiles.

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

    Buffers with overlapping lifetimes never overlap in memory. Raises `AllocationError` when they do not fit.
    """
    spans = program.lifetimes()
    wanted = [b for b in program.buffers if b.memory == memory and b.address is None and id(b) in spans]
    wanted.sort(key=lambda b: spans[id(b)][0])
    map_ = [_Span(0, capacity, -1)]
    for buffer in wanted:
        first, last = spans[id(buffer)]
        place = _best_place(map_, buffer, first, reuse)
        if place is None:
            raise AllocationError(memory, buffer.size, capacity, program.steps[first].op)
        buffer.address = place
        map_ = _occupy(map_, place, place + buffer.size, last)
    return peak_use(program, memory)


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


def peak_use(program: Program, memory: str) -> int:
    """The largest sum of sizes of a memory's buffers alive at one step."""
    spans = program.lifetimes()
    events: list[tuple[int, int]] = []
    for buffer in program.buffers:
        if buffer.memory == memory and id(buffer) in spans:
            first, last = spans[id(buffer)]
            events += [(first, buffer.size), (last + 1, -buffer.size)]
    peak = total = 0
    for _, change in sorted(events):
        total += change
        peak = max(peak, total)
    return peak
