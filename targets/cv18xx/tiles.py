# SPDX-License-Identifier: Apache-2.0
"""What a dense convolution from memory to memory costs by its tile: rows, output channels, input channels at a time, order of loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gadl.passes.plan.tiling import Candidates, Tile, TileCost, depths, enumerate_tiles, search

from .chip import Chip
from .expand.convolution import summed_channels
from .expand.instructions import RECORD
from .expand.kernel import shape_or_raise
from .layers import Layer, window_of

#: Cycles of an instruction beside its rounds.
INSTRUCTION = 72
#: Loop orders (channels outside, and whether what the inner loop reads again stays).
ORDERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def best_tile(layer: Layer, chip: Chip, budget: int, rate: float, price: float) -> Tile | None:
    """The cheapest tile that fits `budget` bytes of a lane; None where none does. `rate`: bytes of DDR per cycle."""
    y = shape_or_raise(layer.result)
    candidates = enumerate_tiles(y.h, y.c, chip.lanes, input_parts(layer, chip), ORDERS)
    return search(candidates, tile_costs(layer, chip, rate, price), budget)


def input_parts(layer: Layer, chip: Chip) -> list[int]:
    """Numbers of input channels that a tile may sum up at a time, all of them first."""
    inputs, unit = summed_channels(shape_or_raise(layer.op.inputs[0]).c), 2 * chip.lanes
    return depths(inputs, unit) if inputs > unit else [inputs]


def tile_costs(layer: Layer, chip: Chip, rate: float, price: float) -> Callable[[Candidates], TileCost]:
    """What tiles cost: cycles of which `price` counts the traffic beside its time, bytes moved, bytes of a lane."""
    x, y, window = shape_or_raise(layer.op.inputs[0]), shape_or_raise(layer.result), window_of(layer.op)
    inputs, lanes = summed_channels(x.c), chip.lanes

    def cost(c: Candidates) -> TileCost:
        step = window.insert_h + 1
        held = np.minimum(x.h, ((c.rows - 1) * window.stride_h + window.reach_h - 1) // step + 1)
        slots, blocks, chunks = -(-c.channels // lanes), -(-y.h // c.rows), -(-y.c // c.channels)
        pieces = -(-inputs // c.depth)
        loop = window.kh * window.kw * -(-c.depth // 2) + 1 + np.where(pieces > 1, 6, 0)
        rounds = blocks * chunks * slots * y.n * -(-(c.rows * y.w) // chip.units)
        cycles = rounds * pieces * np.maximum(loop, chip.units) + blocks * chunks * pieces * INSTRUCTION
        operand = y.n * -(-c.depth // lanes) * align_up(held * x.w)
        result = y.n * slots * align_up(c.rows * y.w) * np.where(pieces > 1, 4, 1)
        weights = slots * window.kh * window.kw * c.depth + 16
        records = slots * RECORD + 16
        loaded = y.n * blocks * held * x.w * x.c
        constants = y.c * (window.kh * window.kw * inputs + RECORD)
        outside, resident = c.channels_outside == 1, c.resident == 1
        # Under rows the weights come again for each block of rows, under channels the operand for each chunk, unless it stays.
        traffic = np.where(outside, loaded * np.where(resident, 1, chunks), loaded) + y.n * y.c * y.h * y.w
        traffic = traffic + np.where(outside | resident, constants, constants * blocks)
        # What the inner loop reads again stays, and what the outer loop holds still while the inner one turns; the next piece comes meanwhile.
        operands = np.where(outside, np.where(resident, pieces * blocks, 1), np.where(chunks > 1, pieces, 1))
        filters = np.where(outside, np.where(blocks > 1, pieces, 1), np.where(resident, pieces * chunks, 1))
        ahead = operand * ~(outside & resident) + weights * ~(resident & ~outside)
        stays = operand * operands + weights * filters + ahead + records * np.where(resident & ~outside, chunks, 2) + 2 * result
        spent = np.maximum(cycles, traffic / rate) + price / rate * traffic
        return TileCost(spent.astype(np.float64), traffic.astype(np.float64), stays.astype(np.float64))

    return cost


def align_up(size: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """`align` of a vector."""
    return np.asarray(-(-size // 16) * 16)


