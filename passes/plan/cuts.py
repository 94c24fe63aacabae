# SPDX-License-Identifier: Apache-2.0
"""Where to cut a sequence of layers into groups: dynamic programming over all intervals that are possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Interval(Generic[T]):
    """Layers `[first, end)` as one group: its cost and how it is done."""

    first: int
    end: int
    cost: float
    choice: T


def cheapest_cuts(count: int, options: Callable[[int], Iterable[Interval[T]]]) -> list[Interval[T]]:
    """The intervals of least total cost that cover `[0, count)`.

    `options(first)` gives every possible group that starts there. Raises `ValueError` when no cover exists.
    """
    best: list[float] = [math.inf] * count + [0.0]
    chosen: list[Interval[T] | None] = [None] * count
    for first in range(count - 1, -1, -1):
        for option in options(first):
            total = option.cost + best[option.end]
            if total < best[first]:
                best[first], chosen[first] = total, option
    found: list[Interval[T]] = []
    at = 0
    while at < count:
        step = chosen[at]
        if step is None:
            raise ValueError(f"no group starts at layer {at}")
        found.append(step)
        at = step.end
    return found
