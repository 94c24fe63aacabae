# SPDX-License-Identifier: Apache-2.0
"""Placement on chip: an address for every buffer, and the step from which each early load may hold its place.

All buffers are placed in the order of their first use. What is loaded ahead of time then
moves to where it may begin as early as it wants to, or as early as there is room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gadl.passes.plan.program import Buffer, Program

from .allocate import AllocationError
from .banks import Banks


class _Map:
    """Placed buffers as rectangles of steps and addresses."""

    def __init__(self, capacity: int, count: int, banks: Banks | None) -> None:
        self.capacity, self.banks = capacity, banks
        self.rows = np.zeros((count, 4), np.int64)  # start, end, first step, last step
        self.used = 0

    def best(self, buffer: Buffer, first: int, last: int) -> int | None:
        """The address where the buffer meets the least company, then the one released longest ago, then the lowest."""
        best: tuple[float, int, int] | None = None
        for gap in self.gaps(first, last):
            for start in _starts(gap, buffer, self.banks):
                released = self.released(start, start + buffer.size, first)
                met = self.banks.meeting(buffer, start) if self.banks is not None else 0.0
                key = (met, released, start)
                if best is None or key < best:
                    best = key
        return None if best is None else best[2]

    def add(self, start: int, size: int, first: int, last: int) -> int:
        """Occupy a rectangle; returns its number."""
        self.used += 1
        self.set(self.used - 1, start, size, first, last)
        return self.used - 1

    def set(self, number: int, start: int, size: int, first: int, last: int) -> None:
        """Give a rectangle other sides."""
        self.rows[number] = start, start + size, first, last

    def remove(self, number: int) -> None:
        """Free a rectangle."""
        self.rows[number] = 0, 0, 1, 0

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """The address ranges that are free in all of the steps."""
        rows = self.rows[: self.used]
        busy = rows[(rows[:, 2] <= last) & (rows[:, 3] >= first)]
        at, found = 0, []
        for start, end in sorted(map(tuple, busy[:, :2].tolist())):
            if start > at:
                found.append((at, start))
            at = max(at, end)
        return [*found, (at, self.capacity)] if at < self.capacity else found

    def released(self, start: int, end: int, first: int) -> int:
        """The last step before `first` in which somebody used the range; -1 for never."""
        rows = self.rows[: self.used]
        before = rows[(rows[:, 0] < end) & (rows[:, 1] > start) & (rows[:, 3] < first), 3]
        return int(before.max()) if len(before) else -1


def place(
    program: Program, memory: str, capacity: int, wanted: Mapping[int, int], banks: Banks | None = None
) -> dict[int, int]:
    """Give every buffer of `memory` an address.

    `wanted` names the buffers that may come early, by `id`, and the step from which they want their place. Returns the step
    from which each of them has it. Where the buffers do not fit in the order of their first use, they are packed, the largest
    first and whatever their company. Raises `AllocationError` when that does not fit either.
    """
    spans = program.lifetimes()
    buffers = [b for b in program.buffers if b.memory == memory and b.address is None and id(b) in spans]
    by_use = sorted(buffers, key=lambda b: spans[id(b)][0])
    try:
        return _place(program, by_use, spans, _Map(capacity, len(program.buffers), banks), wanted)
    except AllocationError:
        for buffer in buffers:
            buffer.address = None
        by_size = sorted(by_use, key=lambda b: b.size, reverse=True)
        return _place(program, by_size, spans, _Map(capacity, len(program.buffers), None), wanted)


def _place(
    program: Program, buffers: list[Buffer], spans: Mapping[int, tuple[int, int]], map_: _Map, wanted: Mapping[int, int]
) -> dict[int, int]:
    """Place buffers in the given order; then let those that may come early begin earlier."""
    rows: dict[int, int] = {}
    for buffer in buffers:
        first, last = spans[id(buffer)]
        address = map_.best(buffer, first, last)
        if address is None:
            raise AllocationError(buffer.memory, buffer.size, map_.capacity, program.steps[first].op)
        buffer.address = address
        rows[id(buffer)] = map_.add(address, buffer.size, first, last)
    begun: dict[int, int] = {}
    for buffer in sorted((b for b in buffers if id(b) in wanted), key=lambda b: spans[id(b)][0]):
        map_.remove(rows[id(buffer)])
        begun[id(buffer)] = _early(map_, buffer, wanted[id(buffer)], spans[id(buffer)])
        map_.set(rows[id(buffer)], buffer.address or 0, buffer.size, begun[id(buffer)], spans[id(buffer)][1])
    return begun


def _early(map_: _Map, buffer: Buffer, wanted: int, span: tuple[int, int]) -> int:
    """Place a buffer from `wanted` on, or from the earliest step from which there is room; returns that step."""
    low, high = min(wanted, span[0]), span[0]
    if not _fits(map_, buffer, low, span[1]):
        while low + 1 < high:
            middle = (low + high) // 2
            if _fits(map_, buffer, middle, span[1]):
                high = middle
            else:
                low = middle
        low = high
    buffer.address = map_.best(buffer, low, span[1])
    return low


def _fits(map_: _Map, buffer: Buffer, first: int, last: int) -> bool:
    """True when some free range holds the buffer; more steps never free one."""
    return any(-(-start // buffer.alignment) * buffer.alignment + buffer.size <= end for start, end in map_.gaps(first, last))


def _starts(gap: tuple[int, int], buffer: Buffer, banks: Banks | None) -> Iterator[int]:
    """Where a buffer may start in a gap: at its ends, and so that it begins or ends with a group of banks."""
    step = buffer.alignment
    first, final = -(-gap[0] // step) * step, (gap[1] - buffer.size) // step * step
    if final < first:
        return
    found = [first, final]
    if banks is not None:
        for edge in range((first // banks.size + 1) * banks.size, gap[1], banks.size):
            found += [edge, (edge - buffer.size) // step * step]
    yield from sorted({start for start in found if first <= start <= final})
