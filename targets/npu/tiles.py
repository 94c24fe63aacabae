# SPDX-License-Identifier: Apache-2.0
"""Analytic costs of the tiles of a conv or linear layer that runs from memory to memory; vectors run over the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.types import DType
from gadl.passes.plan.tiling import Candidates, Floats, Ints, TileCost

from .costs import Costs
from .layers import Layer, Window

#: Cycles that a byte in memory counts when tiles are compared, as a part of its transfer time: idle memory is not free.
BYTE_WEIGHT = 1 / 16


@dataclass(frozen=True)
class WindowTraffic:
    """What a window layer moves: bytes per element of operand, weight, result and residual (0: none)."""

    x: int
    weight: int
    y: int
    residual: int

    @staticmethod
    def of(layer: Layer) -> WindowTraffic:
        """The traffic of a layer."""
        x, weight, residual = layer.op.inputs[0], layer.op.inputs[1], layer.op.operand(3)
        return WindowTraffic(
            x.dtype.size_bytes, weight.dtype.size_bytes, layer.result.dtype.size_bytes, 0 if residual is None else residual.dtype.size_bytes
        )


def splits_depth(window: Window, dtype: DType) -> bool:
    """True when input channels may come in parts: sums of floats keep the order of rows, columns and channels of the kernel."""
    return not window.depthwise and (dtype.is_integer or window.kh * window.kw == 1)


def tile_orders(window: Window) -> tuple[tuple[int, int], ...]:
    """Channels outside, resident: the loop orders worth trying. Chunks of a depthwise layer share no activations."""
    return ((0, 1), (0, 0), (1, 0)) if window.depthwise else ((0, 1), (0, 0), (1, 1), (1, 0))


def window_tiles(costs: Costs, window: Window, traffic: WindowTraffic, dtype: DType, shapes: Candidates) -> TileCost:
    """Cost of every candidate tile."""
    tiles = _Tiles(costs, window, traffic, dtype, shapes)
    return TileCost(tiles.cycles(), tiles.load_bytes + tiles.store_bytes, tiles.held())


@dataclass(frozen=True)
class _Transfer:
    """Cycles of a load or store: of its bytes at the full rate, by itself, and as its part of what all its queues do."""

    moving: Floats
    alone: Floats
    shared: Floats


class _Tiles:
    """The candidates' counts, bytes and cycles."""

    def __init__(self, costs: Costs, window: Window, traffic: WindowTraffic, dtype: DType, shapes: Candidates) -> None:
        self.costs, self.window, self.traffic, self.dtype = costs, window, traffic, dtype
        self.burst = costs.machine.integer("dram.burst")
        self.rate = costs.machine["dram.bytes_per_cycle"] * costs.machine["dram.eff"]
        self.rows, self.channels, self.depth = (v.astype(np.float64) for v in (shapes.rows, shapes.channels, shapes.depth))
        self.outside, self.resident = shapes.channels_outside.astype(bool), shapes.resident.astype(bool)
        self.stripes, self.chunks = np.ceil(window.oh / self.rows), np.ceil(window.oc / self.channels)
        self.tiles = self.stripes * self.chunks
        self.inner = np.where(self.outside, self.stripes, self.chunks)
        #: Parts in which a tile's operands come, and an image's rows that stay on chip.
        self.parts = np.ceil(window.ic / self.depth)
        self.kept_rows = self.outside & self.resident & (not window.depthwise)
        self.x_loads = np.where(self.kept_rows | ~(self.outside | window.depthwise), self.stripes, self.tiles)
        self.weight_loads = np.where(self.resident | self.outside, self.chunks, self.tiles)
        #: A tile is one piece of the accumulators, to which parts add up.
        self.single = (self.parts > 1) & (self.rows * window.ow * self.channels <= costs.half_cells(dtype))
        # Bytes of a tile, as memory moves them.
        self.in_rows: Floats = np.asarray(np.minimum((self.rows - 1) * window.stride_h + (window.kh - 1) * window.dilation_h + 1, window.ih), np.float64)
        self.pixels = self.rows * window.ow
        starts = np.gcd((self.rows * window.stride_h).astype(np.int64), window.pad_top) * window.iw
        row = window.iw * self._pixel(self.channels if window.depthwise else self.depth, window.ic, traffic.x, starts)
        row = row * (1 if window.depthwise else self.parts)
        self.x = self.in_rows * row
        self.more_x = np.where(self.kept_rows, np.minimum(self.rows * window.stride_h, self.in_rows) * row, self.x)
        taps = window.kh * window.kw * (1 if window.depthwise else window.group_ic)
        self.weights = self.channels * (taps * traffic.weight + 9) + 64
        self.y, self.residual = (self.pixels * self._pixel(self.channels, window.oc, n, self.pixels.astype(np.int64)) for n in (traffic.y, traffic.residual))
        #: Loads of weights of all images: under rows outside, resident ones come once.
        self.all_weights = np.where(self.resident & ~self.outside, 1, window.batch) * self.weight_loads
        rows = self.x + (self.x_loads - 1) * self.more_x + self.tiles * self.residual
        self.load_bytes, self.store_bytes = window.batch * rows + self.all_weights * self.weights, window.batch * self.tiles * self.y

    def _pixel(self, channels: Floats, whole: int, element: int, starts: Ints) -> Floats:
        """Bytes that a pixel of some channels takes in memory: where these are not all, whole bursts, on average over where tiles begin.

        `starts`: pixels of which a multiple lies before any tile.
        """
        step = np.gcd(np.gcd(channels.astype(np.int64), starts * whole) * element, self.burst)
        pixel = np.where(channels >= whole, float(whole * element), channels * element + self.burst - step)
        return np.asarray(pixel * float(element > 0), np.float64)

    def held(self) -> Floats:
        """Bytes on chip: what is replaced is there twice. Only parts are, where a tile is one piece and its operand is used once."""
        window, traffic = self.window, self.traffic
        x_row = window.iw * traffic.x * (self.channels if window.depthwise else np.full_like(self.rows, window.ic))
        x_once = np.where(self.outside, ~self.resident, self.chunks == 1)
        weights_once = np.where(self.outside, self.stripes == 1, ~self.resident | (self.stripes * window.batch == 1))
        x = np.where(self.kept_rows, window.ih, np.minimum(2, self.x_loads) * self.in_rows) * x_row
        x = np.where(self.single & x_once, np.minimum(x, 2 * self.in_rows * x_row / self.parts), x)
        kept = np.where(self.resident & ~self.outside, self.chunks, np.minimum(2, self.weight_loads))
        weights = np.where(self.single & weights_once, np.minimum(kept, 2 / self.parts), kept) * self.weights
        return x + weights + np.minimum(2, self.tiles) * self.pixels * self.channels * (traffic.y + traffic.residual) + 512

    def _transfer(self, size: Floats, count: Floats, span: Floats, store: bool = False) -> _Transfer:
        """`size` bytes in `count` loads or stores of which each reaches over `span` bytes of memory."""
        machine = self.costs.machine
        latency, queues = machine["dram.latency_wr" if store else "dram.latency_rd"], 1 if store else machine.load_queues
        single = min(self.rate, machine["dma.max_outstanding"] * self.burst / max(1.0, latency))
        fixed = count * (machine["dma.issue"] + latency + machine["dram.page_miss"] * span / machine["dram.page_bytes"])
        return _Transfer(size / self.rate, fixed + size / single, fixed / queues + size / min(self.rate, queues * single))

    def cycles(self) -> Floats:
        """Loads come in the order in which tiles need them, and stores behind the tiles.

        After the operands of any tile have come, the array has that tile and all behind it to do. This is asked for the first tile,
        the last of the first stripe or chunk, the first of the next, and the last load of all: in between, loads and products
        advance evenly.
        """
        window, traffic, one = self.window, self.traffic, np.ones_like(self.rows)
        row, out = window.iw * window.ic * traffic.x, self.pixels * window.oc
        parts = one if window.depthwise else self.parts
        x = self._transfer(self.x, parts, self.in_rows * row)
        more_x = self._transfer(self.more_x, parts, self.more_x / self.x * self.in_rows * row)
        weights = self._transfer(self.weights, self.parts, self.weights / self.parts)
        residual = self._transfer(self.residual, one * (traffic.residual > 0), out * traffic.residual)
        y = self._transfer(self.y, one, out * traffic.y, store=True)
        array, tiles = self._array(), window.batch * self.tiles
        total = tiles * array
        # Parts of a tile come while its first piece takes them in; every other piece needs all of them.
        both = x.shared + weights.shared
        piece = np.minimum(1, self.costs.half_cells(self.dtype) / (self.pixels * self.channels)) * array
        first = np.maximum.reduce([x.alone / self.parts, weights.alone / self.parts, both / self.parts, both - (1 - 1 / self.parts) * piece])
        again = [np.where(self.outside, m, w + m * window.depthwise) for m, w in ((more_x.shared, weights.shared), (more_x.moving, weights.moving))]
        inside = np.maximum(again[0] + residual.shared, again[1] + residual.moving + y.moving)
        turn = np.maximum(first, both) + (self.inner - 1) * (inside - array) + total
        several = self.tiles > self.inner
        following = turn - array + np.where(several, np.where(self.outside, weights.shared, more_x.shared), array)
        # The last load brings what a whole stripe or chunk needs where the rest of that is resident.
        behind = np.where(self.resident & several & (not window.depthwise), self.inner, 1 / self.parts)
        queued = window.batch * (x.shared + (self.x_loads - 1) * more_x.shared) + self.all_weights * weights.shared + tiles * residual.shared
        moved = (self.load_bytes + self.store_bytes) / self.rate - np.maximum(1, behind) * y.moving
        last = np.maximum(queued, moved) + behind * array
        # Stores share the memory with the loads behind the first as long as there are any.
        crowded = y.alone + self.costs.machine.load_queues * y.moving
        beside = np.minimum(tiles, (self.load_bytes / self.rate - x.moving - weights.moving) / (crowded - y.moving))
        stored = first + beside * crowded + (tiles - beside) * y.alone
        return np.maximum(np.maximum.reduce([first + total, turn, following, last]) + y.alone, stored)

    def _array(self) -> Floats:
        """Cycles of the array for a tile, or of the drain or of what both read from SRAM where that takes longer."""
        costs, window, dtype = self.costs, self.window, self.dtype
        shapes = np.stack([self.rows, self.channels, np.where(self.single, self.depth, window.ic)], axis=1).astype(np.int64)
        different, which = np.unique(shapes, axis=0, return_inverse=True)
        cycles = []
        for rows, channels, depth in different.tolist():
            piece = costs.tile_piece(window, rows, channels, depth, dtype)
            count = -(-rows // piece.rows) * -(-window.ow // piece.columns) * -(-channels // piece.channels)
            cycles.append(count * costs.piece_cycles(window, piece, dtype))
        return np.asarray(cycles)[which.reshape(-1)] + (self.parts - 1) * costs.machine["mma.issue"]
