# SPDX-License-Identifier: Apache-2.0
"""Static memory allocation: offsets for items of known size and lifetime, so that no two that live at once overlap.

A heuristic places the items one after another in a few orders. Where it fails, an exact search (`csrc/memory/search.cpp`)
finds a solution, proves that there is none, or runs out of steps. The search follows the ideas of MiniMalloc (Moffitt,
"MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023):

- Of all solutions the lowest is sought. In it every item rests on another one, so the lowest unplaced item either lies on
  what is placed, or above an unplaced one that keeps it from there: two choices, and the second is a bound.
- Items that live at once need the sum of their sizes above the lowest of them.
- Items that no unplaced item connects in time are independent parts.

Which of several equally low items comes first decides how long a search takes. It therefore runs in rounds of limited length
(Luby, Sinclair and Zuckerman, "Optimal Speedup of Las Vegas Algorithms", 1993); each round prefers the items around which the
last ones failed. Offsets depend on the items, the capacity and the steps only, never on time.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gadl.passes.memory import _search

#: Steps of a search within compilation: some 20 ms.
STEPS = 10_000_000


@dataclass(frozen=True)
class Item:
    """Takes `size` bytes (or cells) at a multiple of `alignment` from moment `start` until `end`, which is the first without it."""

    start: int
    end: int
    size: int
    alignment: int = 1


@dataclass(frozen=True)
class Found:
    """Outcome of a search: `offsets` in the order of the items, or None; then `decided` says that no solution exists."""

    offsets: list[int] | None
    decided: bool
    steps: int


def solve(items: Sequence[Item], capacity: int, steps: int = STEPS) -> list[int] | None:
    """Offsets in `[0, capacity)` such that no two items that live at once overlap: by heuristic, else by search.

    `capacity` is in the unit of the sizes. None when the search has not found a solution in about `steps` steps, each a look at
    one item. Raises `ValueError` for an item without a lifetime, a size or an alignment above 0.
    """
    offsets = heuristic(items, capacity)
    return search(items, capacity, steps).offsets if offsets is None else offsets


def search(items: Sequence[Item], capacity: int, steps: int = STEPS) -> Found:
    """The exact search alone; arguments and errors as for `solve`."""
    decided, taken, offsets = _search.search([(i.start, i.end, i.size, i.alignment) for i in items], capacity, steps)
    return Found(offsets, decided, taken)


def heuristic(items: Sequence[Item], capacity: int) -> list[int] | None:
    """Offsets from placing the items by first use, size, or size times lifetime, each in the smallest gap that holds it."""
    orders: tuple[Callable[[Item], tuple[int, int]], ...] = (
        lambda i: (i.start, -i.size),
        lambda i: (-i.size, i.start),
        lambda i: (-i.size * (i.end - i.start), i.start),
    )
    for order in orders:
        offsets = _best_fit(items, sorted(range(len(items)), key=lambda n: order(items[n])), capacity)
        if offsets is not None:
            return offsets
    return None


def lower_bound(items: Sequence[Item]) -> int:
    """The largest sum of sizes of items that live at once: no capacity below it suffices."""
    changes = [change for i in items for change in ((i.start, i.size), (i.end, -i.size))]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _best_fit(items: Sequence[Item], order: Sequence[int], capacity: int) -> list[int] | None:
    """Each item in the smallest gap between those placed before that live with it; the lower of equal ones."""
    offsets = [0] * len(items)
    placed: list[int] = []  # by offset
    for number in order:
        item, at = items[number], 0
        best: tuple[int, int] | None = None
        met = [n for n in placed if items[n].start < item.end and item.start < items[n].end]
        for below in [*((offsets[n], offsets[n] + items[n].size) for n in met), (capacity, capacity)]:
            offset = -(-at // item.alignment) * item.alignment
            if offset + item.size <= below[0]:
                best = min(best or (capacity + 1, 0), (below[0] - at, offset))
            at = max(at, below[1])
        if best is None:
            return None
        offsets[number] = best[1]
        insort(placed, number, key=lambda n: offsets[n])
    return offsets
