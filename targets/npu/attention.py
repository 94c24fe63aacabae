# SPDX-License-Identifier: Apache-2.0
"""Attention over key tiles: how many rows and keys go together, what that takes on chip, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gadl.compiler.ir.types import DType
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.tiling import depths, even_splits

from .costs import Costs
from .layers import Layer, Window, product_window

#: Part of SRAM for scores: more rows at once make fewer instructions, and take more room.
SCORES = 1 / 5
#: Rows go together in at least so many bands, so that array and vector unit take turns, each of at least so many rows.
BANDS, LEAST_ROWS = 4, 16
#: Part of what one engine does in an iteration of several that the other waits for.
WAITING = 0.25
#: Fewest keys of a tile.
LEAST_KEYS = 64
#: Bytes of tables on chip: of powers, and of reciprocals.
TABLE_BYTES = 2048


@dataclass(frozen=True)
class Extents:
    """One head: rows of queries, their depth, keys, and elements of a value; and how many heads there are."""

    rows: int
    depth: int
    keys: int
    width: int
    heads: int

    @staticmethod
    def of(layer: Layer) -> Extents:
        """The extents of an attention layer."""
        q, v = layer.op.inputs[0], layer.op.inputs[2]
        return Extents(q.shape[-2], q.shape[-1], v.shape[-2], v.shape[-1], math.prod(layer.result.shape[:-2]))

    @property
    def scores(self) -> Window:
        """Products of queries and keys."""
        return product_window(self.rows, self.depth, self.keys)

    @property
    def mixing(self) -> Window:
        """Products of powers and values."""
        return product_window(self.rows, self.keys, self.width)


def tile_of(costs: Costs, layer: Layer, plan: LayerPlan | None = None) -> tuple[int, int]:
    """Rows of queries that go together, and keys of a tile: the plan's, or as many as the room for scores holds, and all keys."""
    one = Extents.of(layer)
    keys = min(plan.depth if plan is not None and plan.depth else one.keys, one.keys)
    rows = plan.rows if plan is not None and plan.rows else max(1, int(costs.machine.sram_bytes * SCORES) // (2 * one.keys + keys))
    most = max(1, costs.half_cells(DType.I8) // one.width)
    unit = costs.machine.integer("mma.shape.0")
    return min(max(1, min(rows, most) // unit * unit), one.rows * one.heads), keys


def legal(layer: Layer, plan: LayerPlan) -> bool:
    """True where the plan's rows and keys are not more than there are."""
    one = Extents.of(layer)
    return 0 <= plan.rows <= one.rows * one.heads and 0 <= plan.depth <= one.keys and not plan.channels


def choices(layer: Layer) -> tuple[list[int], list[int]]:
    """Rows that may go together, and tiles of keys."""
    one = Extents.of(layer)
    return even_splits(one.rows), [0, *depths(one.keys, LEAST_KEYS)[1:]]


def band_of(rows: int, count: int) -> int:
    """Rows of a band where `count` come at once and at most `rows` may go together."""
    return min(rows, max(LEAST_ROWS, -(-count // (4 * BANDS)) * 4), count)


def held_bytes(layer: Layer, rows: int, keys: int) -> int:
    """SRAM between instructions: scores of two bands and of a tile, numbers of rows, the tables and what all columns share."""
    one = Extents.of(layer)
    return rows * (2 * one.keys + keys + 24) + keys + 5 * one.width + TABLE_BYTES


def working_bytes(costs: Costs, layer: Layer, plan: LayerPlan | None = None) -> int:
    """The same for the tile of a plan."""
    return held_bytes(layer, *tile_of(costs, layer, plan))


def most_iterations(layer: Layer) -> int:
    """More of them have less rows than go together at least."""
    one = Extents.of(layer)
    return -(-one.rows * one.heads // LEAST_ROWS)


def band_cycles(costs: Costs, layer: Layer, rows: int, keys: int) -> tuple[float, float]:
    """Cycles of array and vector unit for a band of rows over tiles of keys."""
    one, dtype, element = Extents.of(layer), layer.op.inputs[0].dtype, 1
    tiles = -(-one.keys // keys)
    mine = min(rows, one.rows)
    piece = costs.accumulator_piece(one.scores, mine, keys, dtype)
    pieces = -(-mine // piece.rows) * -(-keys // piece.channels) * -(-rows // mine)
    array = tiles * pieces * costs.piece_cycles(one.scores, piece, dtype)
    array += costs.mma(product_window(rows, one.keys, one.width), rows, 1, one.width, dtype) + costs.epi(rows * one.width)
    array += costs.mma(product_window(1, one.keys, rows), 1, 1, rows, dtype) + costs.epi(rows)
    vector = tiles * 3 * costs.vector(rows * keys, element) + (5 + tiles) * costs.vector(rows, 4)
    return array, vector + rows / costs.machine["vec.sfu_lanes"] + costs.machine["vec.issue"]


def cycles(costs: Costs, layer: Layer, rows: int, plan: LayerPlan | None = None) -> tuple[float, float]:
    """The same for some rows in bands. All rows at once count as work of the array alone: the other engine works beside it, and the
    two wait for each other in the first band and in the last.
    """
    most, keys = tile_of(costs, layer, plan)
    band = band_of(most, rows)
    array, vector = band_cycles(costs, layer, band, keys)
    bands, one = rows / band, Extents.of(layer)
    if rows == one.rows * one.heads:
        return max(bands * array + vector, bands * vector + array), 0.0
    return bands * array + WAITING * vector, bands * vector + WAITING * array


def steps(costs: Costs, layer: Layer, rows: int, plan: LayerPlan | None = None) -> int:
    """Steps of some rows, about."""
    most, keys = tile_of(costs, layer, plan)
    return -(-rows // band_of(most, rows)) * (8 + 7 * -(-Extents.of(layer).keys // keys))


@dataclass(frozen=True)
class MemoryTile:
    """A layer from memory to memory: rows and keys that go together, and whether all keys and values of a head stay on chip."""

    rows: int
    keys: int
    resident: bool


def memory_tile(costs: Costs, layer: Layer, budget: int) -> MemoryTile | None:
    """The tile of least cycles that fits; None where none does."""
    one, machine = Extents.of(layer), costs.machine
    rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
    best: tuple[float, MemoryTile] | None = None
    for tile in _tiles(costs, one):
        bands = -(-one.rows // tile.rows)
        if needed_bytes(layer, tile) > budget:
            continue
        array, vector = band_cycles(costs, layer, tile.rows, tile.keys)
        passes = 1 if tile.resident else bands
        mask = layer.op.operand(3)
        moved = one.rows * (one.depth + one.width) + passes * one.keys * (one.depth + one.width) + (0 if mask is None else one.rows * one.keys)
        transfers = machine["dma.issue"] + machine["dram.latency_rd"]
        memory = moved / rate + (passes * 2 * -(-one.keys // tile.keys) + bands) * transfers / machine.load_queues
        total = max(bands * array + vector, bands * vector + array, memory)
        if best is None or total < best[0]:
            best = (total, tile)
    return None if best is None else best[1]


def _tiles(costs: Costs, one: Extents) -> Iterator[MemoryTile]:
    most = max(1, costs.half_cells(DType.I8) // max(1, one.width))
    for rows in even_splits(one.rows):
        if rows > most:
            continue
        for keys in depths(one.keys, LEAST_KEYS):
            yield from (MemoryTile(rows, keys, resident) for resident in (True, False))


def needed_bytes(layer: Layer, tile: MemoryTile) -> int:
    """SRAM of a tile with its operands and results, what is loaded and stored twice over."""
    one = Extents.of(layer)
    masks = 0 if layer.op.operand(3) is None else 2 * tile.rows * tile.keys
    streamed = 2 * tile.rows * (one.depth + one.width) + masks
    keys = one.keys if tile.resident else min(one.keys, 2 * tile.keys)
    return held_bytes(layer, tile.rows, tile.keys) + streamed + keys * (one.depth + one.width) * (2 if tile.resident else 1)
