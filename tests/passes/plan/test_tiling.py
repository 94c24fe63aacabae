# SPDX-License-Identifier: Apache-2.0
"""Enumeration of tiles and the choice among them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gadl.passes.plan.plan import LoopOrder
from gadl.passes.plan.tiling import Candidates, TileCost, depths, enumerate_tiles, even_splits, search


@given(st.integers(1, 700), st.sampled_from((1, 8, 16, 32)))
def test_parts_cover_all_channels(extent: int, unit: int) -> None:
    found = depths(extent, unit)
    assert found[0] == extent
    assert all(a > b and b % unit == 0 for a, b in zip(found, found[1:]))
    assert found[-1] <= max(unit, extent if extent <= unit else unit)


def test_every_tile_is_there_once() -> None:
    found = enumerate_tiles(5, 40, 16, [24, 16], ((0, 1), (1, 1)))
    tiles = set(zip(*(v.tolist() for v in (found.rows, found.channels, found.depth, found.channels_outside, found.resident))))
    assert len(tiles) == len(found) == len(even_splits(5)) * len(even_splits(40, 16)) * 2 * 2


@given(st.lists(st.tuples(*(st.integers(1, 20),) * 3), min_size=1, max_size=30), st.integers(1, 20), st.sampled_from((0.0, 0.25)))
def test_nothing_that_fits_is_better(costs: list[tuple[int, int, int]], capacity: int, weight: float) -> None:
    numbers = np.arange(1, len(costs) + 1)
    candidates = Candidates(numbers, numbers, numbers, numbers % 2, numbers % 2)
    cycles, moved, held = np.asarray(costs, np.float64).T
    found = search(candidates, lambda _: TileCost(cycles, moved, held), capacity, weight)
    fits = held <= capacity
    assert (found is None) == (not fits.any())
    if found is None:
        return
    at = found.rows - 1
    assert fits[at]
    assert found.cycles + weight * found.dram_bytes == (cycles + weight * moved)[fits].min()
    assert not (fits & (cycles <= cycles[at]) & (moved <= moved[at]) & ((cycles < cycles[at]) | (moved < moved[at]))).any()
    assert found.order is (LoopOrder.CHANNELS if (at + 1) % 2 else LoopOrder.ROWS)
