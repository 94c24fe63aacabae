# SPDX-License-Identifier: Apache-2.0
"""Division of rows among cores: which rows of every value each core computes, holds on chip, stores for others and loads.

Each of some cores owns an even part of the rows of a value. Where a layer reads beyond that, a core computes the rows of its
neighbours as well, or they are exchanged: their owner stores them, and whoever needs them loads them. Nothing here knows a
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

from .rows import RowLayer

#: Rows `[low, high)`; none where `high` is not above `low`.
Range = tuple[int, int]
NONE: Range = (0, 0)


def hull(a: Range, b: Range) -> Range:
    """The rows of both, and those between."""
    if a[1] <= a[0]:
        return b if b[1] > b[0] else NONE
    return a if b[1] <= b[0] else (min(a[0], b[0]), max(a[1], b[1]))


def without(a: Range, b: Range) -> list[Range]:
    """The rows of `a` that are not in `b`."""
    if b[1] <= b[0]:
        return [a] if a[1] > a[0] else []
    return [r for r in ((a[0], min(a[1], b[0])), (max(a[0], b[1]), a[1])) if r[1] > r[0]]


def owned(rows: int, cores: int, owners: int = 0) -> list[Range]:
    """The even part of each of the first `owners` cores (0: of all); the others own nothing."""
    count = owners or cores
    return [(rows * core // count, rows * (core + 1) // count) if core < count else NONE for core in range(cores)]


@dataclass(frozen=True)
class Case:
    """What a decision on exchanging a value rests on: the value, and per core the rows that are needed and owned."""

    value: int
    needed: list[Range]
    owned: list[Range]


class Division:
    """The rows of each value on each core; `heights` gives the rows of all values.

    `stored` are values that must reach memory whole. `exchange` decides for each value of which some core needs rows that it
    does not own, from the last layer to the first. `spread` values have one row, of which every core makes a part and none has
    all: whoever needs it loads it. `owners` is how many cores own the rows of a value, where these are not all.
    """

    def __init__(
        self, layers: Sequence[RowLayer], heights: Mapping[int, int], cores: int, stored: Set[int], exchange: Callable[[Case], bool],
        spread: Set[int] = frozenset(), owners: Mapping[int, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.cores, self.heights, self.stored, self.owners = cores, heights, stored, owners
        self.needed: dict[int, list[Range]] = {}
        self.made: dict[int, list[Range]] = {}
        self.exchanged: set[int] = set()
        for index in range(len(layers) - 1, -1, -1):
            value = layers[index].result
            own = self.owned(value)
            need = self.needed.setdefault(value, [NONE] * cores)
            if value in spread:
                self.made[value] = [NONE] * cores
            elif any(without(n, o) for n, o in zip(need, own)) and exchange(Case(value, list(need), own)):
                self.exchanged.add(value)
                self.made[value] = own
            else:
                self.made[value] = [hull(n, o) if value in stored else n for n, o in zip(need, own)]
            for read, rows in layers[index].reads:
                theirs = self.needed.setdefault(read, [NONE] * cores)
                for core, (low, high) in enumerate([(0, 1)] * cores if value in spread else self.made[value]):
                    if high > low:
                        theirs[core] = hull(theirs[core], (int(rows.low[low]), int(rows.high[high - 1])))

    def owned(self, value: int) -> list[Range]:
        """The rows that each core owns."""
        return owned(self.heights[value], self.cores, self.owners.get(value, 0))

    def held(self, value: int, core: int) -> Range:
        """The rows that a core has on chip."""
        return hull(self.made.get(value, [NONE] * self.cores)[core], self.needed[value][core])

    def room(self, value: int) -> int:
        """The most rows that any core has on chip."""
        return max(high - low for low, high in (self.held(value, core) for core in range(self.cores)))

    def loads(self, value: int, core: int) -> list[Range]:
        """The rows that a core reads from memory."""
        return without(self.needed[value][core], self.made.get(value, [NONE] * self.cores)[core])

    def stores(self, value: int, core: int) -> list[Range]:
        """The rows that a core stores: its own, all of them or those that others load."""
        own = self.owned(value)[core]
        if value in self.stored:
            return [own] if own[1] > own[0] else []
        found: list[Range] = []
        for low, high in sorted(rows for other in range(self.cores) for rows in self.loads(value, other)):
            low, high = max(low, own[0]), min(high, own[1])
            if high <= low:
                continue
            if found and low <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], high)
            else:
                found.append((low, high))
        return found
