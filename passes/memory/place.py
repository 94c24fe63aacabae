# SPDX-License-Identifier: Apache-2.0
"""Placement on chip: an address for every buffer, and the step from which each early load may hold its place.

What is loaded ahead of time goes round from the top of memory downwards, in what the others leave free, and begins as early
as it wants to, or as early as there is room. The others are placed first, by one of several rules. A buffer that finds no
room comes first, and all begin again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from gadl.passes.plan.program import Buffer, Program

from .allocate import AllocationError
from .banks import Banks

#: How often a buffer without room may begin everything again.
RESTARTS = 24
#: How often all buffers are looked at again, and what part of the loss a move must leave at most.
ROUNDS, ENOUGH = 3, 0.95


class Order(enum.Enum):
    """Which buffers are placed first, those that come early aside."""

    #: The one that is used first.
    USE = "use"
    #: The one with the most bytes times steps.
    AREA = "area"


class Rule(enum.Enum):
    """Which free address a buffer takes."""

    #: The lowest.
    LOWEST = "lowest"
    #: The lowest or the highest, where it meets the least company in its banks.
    ENDS = "ends"
    #: Any, where it meets the least company, below what wants to come early.
    COMPANY = "company"


@dataclass(frozen=True)
class Policy:
    """An order and a rule. `nearest`: of what comes early, what is used first is placed first, not what wants to come first."""

    order: Order
    rule: Rule
    nearest: bool = False


class _Map:
    """Placed buffers as rectangles of steps and addresses."""

    def __init__(self, capacity: int, count: int) -> None:
        self.capacity = capacity
        self.rows = np.zeros((count, 4), np.int64)  # start, end, first step, last step
        self.used, self.turn = 0, capacity
        self.numbers: dict[int, int] = {}

    def put(self, buffer: Buffer, start: int, first: int, last: int) -> None:
        """A buffer occupies a rectangle, and no other."""
        number = self.numbers.setdefault(id(buffer), self.used)
        self.used = max(self.used, number + 1)
        self.rows[number] = start, start + buffer.size, first, last

    def remove(self, buffer: Buffer) -> tuple[int, int]:
        """A buffer occupies nothing; returns the steps in which it did."""
        number = self.numbers[id(buffer)]
        first, last = self.rows[number, 2:].tolist()
        self.rows[number] = 0, 0, 1, 0
        return first, last

    def gaps(self, first: int, last: int, limit: int | None = None) -> list[tuple[int, int]]:
        """The address ranges below `limit` that are free in all of the steps."""
        end = self.capacity if limit is None else limit
        rows = self.rows[: self.used]
        busy = rows[(rows[:, 2] <= last) & (rows[:, 3] >= first)]
        at, found = 0, []
        for low, high in sorted(map(tuple, busy[:, :2].tolist())):
            if min(low, end) > at:
                found.append((at, min(low, end)))
            at = max(at, high)
        return [*found, (at, end)] if at < end else found

    def next(self, buffer: Buffer, first: int, last: int) -> int | None:
        """The highest address with room below the last that this gave; from the top where there is none."""
        found = None
        for low, high in reversed(self.gaps(first, last)):
            below = _last_start(low, min(high, self.turn), buffer)
            if below >= low:
                found = below
                break
            found = _last_start(low, high, buffer) if found is None and _last_start(low, high, buffer) >= low else found
        self.turn = self.turn if found is None else found
        return found

    def released(self, start: int, end: int, first: int) -> int:
        """The last step before `first` in which somebody used the range; -1 for never."""
        rows = self.rows[: self.used]
        before = rows[(rows[:, 0] < end) & (rows[:, 1] > start) & (rows[:, 3] < first), 3]
        return int(before.max()) if len(before) else -1


def place(
    program: Program, memory: str, capacity: int, wanted: Mapping[int, int], policy: Policy, banks: Banks | None = None
) -> dict[int, int]:
    """Give every buffer of `memory` an address; raises `AllocationError` when they do not fit by this policy.

    `wanted` names the buffers that may come early, by `id`, and the step from which they want their place. Returns the step
    from which each of them has it.
    """
    placement = _Placement(program, memory, capacity, wanted, policy, banks)
    for _ in range(RESTARTS):
        try:
            return placement.run()
        except _NoRoom as problem:
            error = placement.refuse(problem.buffer)
    raise error


class _NoRoom(Exception):
    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer


class _Placement:
    """One call of `place`."""

    def __init__(
        self, program: Program, memory: str, capacity: int, wanted: Mapping[int, int], policy: Policy, banks: Banks | None
    ) -> None:
        self.program, self.memory, self.capacity, self.wanted, self.policy = program, memory, capacity, wanted, policy
        self.banks = banks or Banks(capacity, {})
        self.spans = program.lifetimes()
        self.buffers = [b for b in program.buffers if b.memory == memory and b.address is None and id(b) in self.spans]
        self.urgent: list[Buffer] = []
        self.ahead = np.zeros(len(program.steps), np.int64)
        for buffer in self.buffers:
            if id(buffer) in wanted:
                self.ahead[wanted[id(buffer)] : self.spans[id(buffer)][1] + 1] += buffer.size

    def run(self) -> dict[int, int]:
        """Place everything, those that found no room before first."""
        urgent = {id(b) for b in self.urgent}
        early = [b for b in self.buffers if id(b) in self.wanted and id(b) not in urgent]
        first_use = {id(b): self.spans[id(b)][0] for b in early}
        early.sort(key=lambda b: (first_use[id(b)] if self.policy.nearest else self.wanted[id(b)], first_use[id(b)]))
        others = [b for b in self.buffers if id(b) not in self.wanted and id(b) not in urgent]
        others.sort(key=self._rank)
        self.map = _Map(self.capacity, len(self.program.buffers))
        for buffer in (*self.urgent, *others):
            first, last = self.spans[id(buffer)]
            self._settle(buffer, self._address(buffer, first, last), first, last)
        begun = {id(b): self.spans[id(b)][0] for b in self.urgent if id(b) in self.wanted}
        begun |= {id(b): self._early(b, self.wanted[id(b)]) for b in early}
        for _ in range(ROUNDS):
            if not self._improve():
                break
        return begun

    def _improve(self) -> bool:
        """Move each buffer, the one that loses most first, to where it meets less company; True when one moved."""
        met = {id(b): self.banks.meeting(b, b.address or 0) for b in self.buffers}
        moved = False
        for buffer in sorted(self.buffers, key=lambda b: met[id(b)], reverse=True):
            meeting = self._meeting(buffer)
            now = meeting(buffer.address or 0)
            if now <= 0:
                continue
            first, last = self.map.remove(buffer)
            best = min(self._starts(buffer, first, last, edges=True), key=meeting, default=buffer.address or 0)
            if meeting(best) < now * ENOUGH:
                buffer.address, moved = best, True
            self.map.put(buffer, buffer.address or 0, first, last)
        return moved

    def refuse(self, buffer: Buffer) -> AllocationError:
        """A buffer found no room: it comes first from now on, with those like it. Returns what to say if that does not help."""
        for other in self.buffers:
            other.address = None
        if buffer not in self.urgent:
            alike = [b for b in self.buffers if (b.name, b.size) == (buffer.name, buffer.size) and b not in self.urgent]
            self.urgent[:0] = alike
        return AllocationError(self.memory, buffer.size, self.capacity, self.program.steps[self.spans[id(buffer)][0]].op)

    def _rank(self, buffer: Buffer) -> int:
        first, last = self.spans[id(buffer)]
        return first if self.policy.order is Order.USE else -buffer.size * (last - first)

    def _address(self, buffer: Buffer, first: int, last: int) -> int | None:
        """The address that the rule prefers."""
        match self.policy.rule:
            case Rule.LOWEST:
                return min(self._starts(buffer, first, last), default=None)
            case Rule.ENDS:
                starts = list(self._starts(buffer, first, last))
                ends = (min(starts), max(starts)) if starts else ()
                return min(ends, key=self._meeting(buffer), default=None)
            case _:
                limit = self.capacity - int(self.ahead[first : last + 1].max())
                found = self._company(buffer, first, last, limit)
                return self._company(buffer, first, last, self.capacity) if found is None else found

    def _company(self, buffer: Buffer, first: int, last: int, limit: int) -> int | None:
        """Where the buffer meets the least company, then what was released longest ago, then the lowest address."""

        meeting = self._meeting(buffer)

        def rank(start: int) -> tuple[float, int, int]:
            return meeting(start), self.map.released(start, start + buffer.size, first), start

        return min(self._starts(buffer, first, last, limit, edges=True), key=rank, default=None)

    def _meeting(self, buffer: Buffer) -> Callable[[int], float]:
        """What company costs a buffer, by its address."""
        return partial(self.banks.meeting, buffer, pressure=self.banks.pressure(buffer))

    def _starts(self, buffer: Buffer, first: int, last: int, limit: int | None = None, edges: bool = False) -> Iterator[int]:
        """Where a buffer may start: at the ends of every gap, and with `edges` where it begins or ends with a group of banks, or lies in two."""
        step = buffer.alignment
        for low, high in self.map.gaps(first, last, limit):
            lowest, highest = -(-low // step) * step, _last_start(low, high, buffer)
            if highest >= lowest:
                found = {lowest, highest}
                if edges:
                    halves = {buffer.size, *(greed.start + greed.size // 2 for greed in self.banks.greedy.get(id(buffer), ()))}
                    for edge in range((lowest // self.banks.size + 1) * self.banks.size, high, self.banks.size):
                        found |= {edge, *((edge - below) // step * step for below in halves)}
                yield from sorted(start for start in found if lowest <= start <= highest)

    def _early(self, buffer: Buffer, wanted: int) -> int:
        """Place a buffer from `wanted` on, or from the earliest step from which there is room; returns that step."""
        first, last = self.spans[id(buffer)]
        low, high = min(wanted, first), first
        if not self._fits(buffer, low, last):
            while low + 1 < high:
                middle = (low + high) // 2
                if self._fits(buffer, middle, last):
                    high = middle
                else:
                    low = middle
            low = high
        self._settle(buffer, self.map.next(buffer, low, last), low, last)
        return low

    def _fits(self, buffer: Buffer, first: int, last: int) -> bool:
        """True when some free range holds the buffer; more steps never free one."""
        return next(self._starts(buffer, first, last), None) is not None

    def _settle(self, buffer: Buffer, address: int | None, first: int, last: int) -> None:
        """Give a buffer the address that was found for it."""
        if address is None:
            raise _NoRoom(buffer)
        buffer.address = address
        self.map.put(buffer, address, first, last)


def _last_start(low: int, high: int, buffer: Buffer) -> int:
    """The last aligned address from which the buffer ends at `high`; below `low` where there is no room."""
    return (high - buffer.size) // buffer.alignment * buffer.alignment
