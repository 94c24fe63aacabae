# SPDX-License-Identifier: Apache-2.0
"""Tile search: every tile shape of a layer is costed, the cheapest that fits is taken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .plan import LoopOrder

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Candidates:
    """Tile shapes as parallel vectors: output rows, output channels, input channels at a time, loop order (1: channels outside),
    and whether the inner loop's operand is resident."""

    rows: Ints
    channels: Ints
    depth: Ints
    channels_outside: Ints
    resident: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class TileCost:
    """Analytic cost of each candidate: cycles, bytes moved to and from memory, on-chip bytes needed."""

    cycles: Floats
    dram_bytes: Floats
    sram_bytes: Floats


@dataclass(frozen=True)
class Tile:
    """The chosen tile and its cost."""

    rows: int
    channels: int
    depth: int
    order: LoopOrder
    resident: bool
    cycles: float
    dram_bytes: float


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def even_splits(extent: int, unit: int = 1) -> list[int]:
    """Sizes that cut `extent` into 1, 2, 3, … nearly equal parts, rounded up to `unit`; each size once, descending."""
    sizes = {min(extent, _ceil(_ceil(extent, parts), unit) * unit) for parts in range(1, _ceil(extent, unit) + 1)}
    return sorted(sizes, reverse=True)


def depths(extent: int, unit: int) -> list[int]:
    """Input channels at a time: all, or halves of that down to `unit`, in multiples of it."""
    found = [extent]
    while found[-1] > unit:
        found.append(_ceil(_ceil(found[-1], 2), unit) * unit if found[-1] > 2 * unit else unit)
    return found


def enumerate_tiles(rows: int, channels: int, channel_unit: int, depth: Sequence[int], orders: Sequence[tuple[int, int]]) -> Candidates:
    """All candidates of a layer with `rows` x `channels` outputs; `orders` are pairs of `channels_outside` and `resident`."""
    shapes = itertools.product(even_splits(rows), even_splits(channels, channel_unit), depth, orders)
    columns = np.asarray([(r, c, d, *order) for r, c, d, order in shapes], np.int64).T
    return Candidates(*columns)


def search(candidates: Candidates, cost: Callable[[Candidates], TileCost], capacity: int, byte_cycles: float = 0.0) -> Tile | None:
    """The cheapest candidate among those that fit `capacity` bytes: cycles, and `byte_cycles` for every byte moved.

    No other candidate is better in cycles and bytes moved at once; of equals the one that needs least on chip, and has fewest parts.
    Returns None when nothing fits.
    """
    costs = cost(candidates)
    fits = costs.sram_bytes <= capacity
    if not fits.any():
        return None
    price = np.where(fits, costs.cycles + byte_cycles * costs.dram_bytes, np.inf)
    best = int(np.lexsort((-candidates.depth, costs.sram_bytes, costs.dram_bytes, price))[0])
    return Tile(
        int(candidates.rows[best]),
        int(candidates.channels[best]),
        int(candidates.depth[best]),
        LoopOrder.CHANNELS if candidates.channels_outside[best] else LoopOrder.ROWS,
        bool(candidates.resident[best]),
        float(costs.cycles[best]),
        float(costs.dram_bytes[best]),
    )
