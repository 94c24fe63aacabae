# SPDX-License-Identifier: Apache-2.0
"""Placement on chip: an address for every buffer, and the step from which each early load may hold its place.

All buffers are placed in the order of their first use, or packed where that order does not fit. What is loaded ahead of time then
moves to where it may begin as early as it wants to, or as early as there is room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gadl.passes.plan.program import Buffer, Program

from .allocate import AllocationError, search_places
from .banks import Banks


class _Map:
    """Placed buffers as rectangles of steps and addresses."""

    def __init__(self, capacity: int, count: int, banks: Banks | None) -> None:
        self.capacity, self.banks = capacity, banks
        self.rows = np.zeros((count, 4), np.int64)  # start, end, first step, last step
        self.numbers: dict[int, int] = {}  # of rows, by id of the buffer

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

    def put(self, buffer: Buffer, first: int, last: int) -> None:
        """A buffer with an address occupies it in steps `first` to `last`, and in no others."""
        start = buffer.address or 0
        self.rows[self.numbers.setdefault(id(buffer), len(self.numbers))] = start, start + buffer.size, first, last

    def remove(self, buffer: Buffer) -> None:
        """Free a buffer's rectangle."""
        self.rows[self.numbers[id(buffer)]] = 0, 0, 1, 0

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """The address ranges that are free in all of the steps."""
        rows = self.rows[: len(self.numbers)]
        busy = rows[(rows[:, 2] <= last) & (rows[:, 3] >= first)]
        at, found = 0, []
        for start, end in sorted(map(tuple, busy[:, :2].tolist())):
            if start > at:
                found.append((at, start))
            at = max(at, end)
        return [*found, (at, self.capacity)] if at < self.capacity else found

    def released(self, start: int, end: int, first: int) -> int:
        """The last step before `first` in which somebody used the range; -1 for never."""
        rows = self.rows[: len(self.numbers)]
        before = rows[(rows[:, 0] < end) & (rows[:, 1] > start) & (rows[:, 3] < first), 3]
        return int(before.max()) if len(before) else -1


def place(
    program: Program, memory: str, capacity: int, wanted: Mapping[int, int], banks: Banks | None = None
) -> dict[int, int]:
    """Give every buffer of `memory` an address.

    `wanted` names the buffers that may come early, by `id`, and the step from which they want their place. Returns the step
    from which each of them has it. Where the buffers do not fit in the order of their first use, they are packed whatever their
    company: the largest first, else by search. Raises `AllocationError` when that finds no places either.
    """
    spans = program.lifetimes()
    buffers = [b for b in program.buffers if b.memory == memory and b.address is None and id(b) in spans]
    order = sorted(buffers, key=lambda b: spans[id(b)][0])
    map_ = _Map(capacity, len(buffers), banks)
    if _place(order, spans, map_) is not None:
        order.sort(key=lambda b: b.size, reverse=True)
        map_ = _Map(capacity, len(buffers), None)
        if (left := _place(order, spans, map_)) is not None:
            if not search_places(order, spans, capacity):
                raise AllocationError(memory, left.size, capacity, program.steps[spans[id(left)][0]].op)
            for buffer in order:
                map_.put(buffer, *spans[id(buffer)])
    begun: dict[int, int] = {}
    for buffer in sorted((b for b in order if id(b) in wanted), key=lambda b: spans[id(b)][0]):
        map_.remove(buffer)
        begun[id(buffer)] = _early(map_, buffer, wanted[id(buffer)], spans[id(buffer)])
        map_.put(buffer, begun[id(buffer)], spans[id(buffer)][1])
    return begun


def _place(buffers: Sequence[Buffer], spans: Mapping[int, tuple[int, int]], map_: _Map) -> Buffer | None:
    """Place buffers in the given order. Where one finds no place, none keeps one; returns it."""
    for buffer in buffers:
        buffer.address = map_.best(buffer, *spans[id(buffer)])
        if buffer.address is None:
            for placed in buffers:
                placed.address = None
            return buffer
        map_.put(buffer, *spans[id(buffer)])
    return None


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
