# SPDX-License-Identifier: Apache-2.0
"""Division of rows among cores: which rows of every value each core computes, holds on chip, stores for others and loads.

Each of some cores owns an even part of the rows of a value. Where a layer reads beyond that, a core computes the rows of its
neighbours as well, or they are exchanged: their owner stores them, and whoever needs them loads them. Nothing here knows a
machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from .rows import RowLayer

#: Rows `[low, high)`; none where `high` is not above `low`.
Range = tuple[int, int]
NONE: Range = (0, 0)
#: Of each core.
Rows = tuple[Range, ...]


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


def lacks(a: Rows, b: Rows) -> bool:
    """True when some core has rows in `a` that it has not in `b`."""
    return any(without(mine, there) for mine, there in zip(a, b))


def owned(rows: int, cores: int, owners: int = 0) -> Rows:
    """The even part of each of some cores (0: of all); the others own nothing.

    Where there are fewer owners they lie apart, so that a core owns rows that are near those of more owners.
    """
    count, found = owners or cores, [NONE] * cores
    for part in range(count):
        found[part * cores // count] = -(-rows * part // count), -(-rows * (part + 1) // count)
    return tuple(found)


@dataclass(frozen=True)
class Shares:
    """Layers whose rows `cores` divide, and the `heights` of all values (rows).

    `stored` are values that must reach memory whole. `spread` values have one row, of which every core makes a part and none has
    all: whoever needs it loads it. `owners` is how many cores own the rows of a value, where these are not all. Values `apart` are
    made by their owners alone, in any case.
    """

    layers: Sequence[RowLayer]
    heights: Mapping[int, int]
    cores: int
    stored: Set[int]
    spread: Set[int]
    owners: Mapping[int, int]
    apart: Set[int]

    @property
    def none(self) -> Rows:
        """No row on any core."""
        return (NONE,) * self.cores

    def owned(self, value: int, owners: int) -> Rows:
        """The rows that each core owns of a value, where some cores own its rows (0: all)."""
        return owned(self.heights[value], self.cores, owners)

    def made(self, value: int, need: Rows, own: Rows, exchanged: bool) -> Rows:
        """The rows that each core makes: its own where some core needs others and these are exchanged, or else all that it needs."""
        if value in self.spread:
            return self.none
        if (exchanged or value in self.apart) and lacks(need, own):
            return own
        return tuple(hull(n, o) for n, o in zip(need, own)) if value in self.stored else need

    def wanted(self, layer: RowLayer, made: Rows, before: Mapping[int, Rows]) -> dict[int, Rows]:
        """The rows of values that each core wants: what it wanted `before`, and what a layer reads for the rows that are made of it."""
        found, whole = dict(before), ((0, 1),) * self.cores
        for value, rows in layer.reads:
            theirs = list(found.get(value, self.none))
            for core, (low, high) in enumerate(whole if layer.result in self.spread else made):
                if high > low:
                    theirs[core] = hull(theirs[core], (int(rows.low[low]), int(rows.high[high - 1])))
            found[value] = tuple(theirs)
        return found


class Division:
    """The rows of each value on each core, where of `exchanged` values cores load the rows that others own."""

    def __init__(self, shares: Shares, exchanged: Set[int]) -> None:
        self.shares, self.heights, self.stored = shares, shares.heights, shares.stored
        self.needed: dict[int, Rows] = {}
        self.made: dict[int, Rows] = {}
        for layer in reversed(shares.layers):
            value = layer.result
            need = self.needed.setdefault(value, shares.none)
            self.made[value] = shares.made(value, need, self.owned(value), value in exchanged)
            self.needed = shares.wanted(layer, self.made[value], self.needed)

    def owned(self, value: int) -> Rows:
        """The rows that each core owns."""
        return self.shares.owned(value, self.shares.owners.get(value, 0))

    def held(self, value: int, core: int) -> Range:
        """The rows that a core has on chip."""
        return hull(self.made.get(value, self.shares.none)[core], self.needed[value][core])

    def room(self, value: int) -> int:
        """The most rows that any core has on chip."""
        return max(high - low for low, high in (self.held(value, core) for core in range(self.shares.cores)))

    def loads(self, value: int, core: int) -> list[Range]:
        """The rows that a core reads from memory."""
        return without(self.needed[value][core], self.made.get(value, self.shares.none)[core])

    def stores(self, value: int, core: int) -> list[Range]:
        """The rows that a core stores: its own, all of them or those that others load."""
        own = self.owned(value)[core]
        if value in self.stored:
            return [own] if own[1] > own[0] else []
        found: list[Range] = []
        for low, high in sorted(rows for other in range(self.shares.cores) for rows in self.loads(value, other)):
            low, high = max(low, own[0]), min(high, own[1])
            if high <= low:
                continue
            if found and low <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], high)
            else:
                found.append((low, high))
        return found
