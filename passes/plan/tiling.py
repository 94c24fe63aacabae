# SPDX-License-Identifier: Apache-2.0
"""Tile search: every tile shape of a layer is costed, the cheapest that fits is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .plan import LoopOrder

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Candidates:
    """Tile shapes as parallel vectors: output rows, output channels, loop order (1: channels outside), resident weights."""

    rows: Ints
    channels: Ints
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


def enumerate_tiles(rows: int, channels: int, channel_unit: int, weighted: bool) -> Candidates:
    """All candidates of a layer with `rows` x `channels` outputs."""
    shapes = [
        (r, c, outside, resident)
        for r in even_splits(rows)
        for c in (even_splits(channels, channel_unit) if weighted else [channels])
        for outside, resident in (((0, 1), (0, 0), (1, 0)) if weighted else ((0, 1),))
    ]
    columns = np.asarray(shapes, np.int64).T
    return Candidates(*columns)


def search(candidates: Candidates, cost: Callable[[Candidates], TileCost], capacity: int) -> Tile | None:
    """The candidate with the fewest cycles among those that fit `capacity` bytes; fewer bytes moved, then larger tiles, on a tie.

    Returns None when nothing fits.
    """
    costs = cost(candidates)
    fits = costs.sram_bytes <= capacity
    if not fits.any():
        return None
    keys = np.lexsort(
        (-candidates.rows * candidates.channels, costs.dram_bytes, np.where(fits, costs.cycles, np.inf))
    )
    best = int(keys[0])
    return Tile(
        int(candidates.rows[best]),
        int(candidates.channels[best]),
        LoopOrder.CHANNELS if candidates.channels_outside[best] else LoopOrder.ROWS,
        bool(candidates.resident[best]),
        float(costs.cycles[best]),
        float(costs.dram_bytes[best]),
    )
