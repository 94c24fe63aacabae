# SPDX-License-Identifier: Apache-2.0
"""Analytic costs of the tiles of a conv or linear layer that runs from memory to memory; vectors run over the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import gadl.targets.npu._sim as _sim
from gadl.compiler.ir.types import DType
from gadl.passes.plan.tiling import Candidates, Floats, TileCost

from .costs import TYPES, Costs
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


class _Tiles:
    """The candidates' counts, bytes and cycles."""

    def __init__(self, costs: Costs, window: Window, traffic: WindowTraffic, dtype: DType, shapes: Candidates) -> None:
        self.costs, self.window, self.traffic, self.dtype = costs, window, traffic, dtype
        self.burst = costs.machine["dram.burst"]
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
        # Bytes of a tile, as memory moves them.
        self.in_rows = np.minimum((self.rows - 1) * window.stride_h + (window.kh - 1) * window.dilation_h + 1, window.ih)
        self.pixels = self.rows * window.ow
        row = window.iw * self._pixel(self.channels if window.depthwise else self.depth, window.ic, traffic.x)
        row = row * (1 if window.depthwise else self.parts)
        self.x = self.in_rows * row
        self.more_x = np.where(self.kept_rows, np.minimum(self.rows * window.stride_h, self.in_rows) * row, self.x)
        taps = window.kh * window.kw * (1 if window.depthwise else window.group_ic)
        self.weights = self.channels * (taps * traffic.weight + 9) + 64
        self.y, self.residual = (self.pixels * self._pixel(self.channels, window.oc, n) for n in (traffic.y, traffic.residual))
        moved = self.x + (self.x_loads - 1) * self.more_x + self.weight_loads * self.weights + self.tiles * self.residual
        self.load_bytes, self.store_bytes = window.batch * moved, window.batch * self.tiles * self.y

    def _pixel(self, channels: Floats, whole: int, element: int) -> Floats:
        """Bytes that a pixel of some channels takes in memory: whole bursts where these are not all."""
        return np.where(channels >= whole, whole * element, np.ceil(channels * element / self.burst) * self.burst)

    def held(self) -> Floats:
        """Bytes on chip: what is replaced is there twice. Only parts are, where a tile is one piece and its operand is used once."""
        window, traffic = self.window, self.traffic
        x_row = window.iw * traffic.x * (self.channels if window.depthwise else np.full_like(self.rows, window.ic))
        single = (self.parts > 1) & (self.pixels * self.channels <= self.costs.half_cells(self.dtype))
        x_once = np.where(self.outside, ~self.resident | (self.chunks == 1), self.chunks == 1)
        weights_once = np.where(self.outside, self.stripes == 1, ~self.resident | (self.stripes == 1))
        x = np.where(self.kept_rows, window.ih, np.minimum(2, self.x_loads) * self.in_rows) * x_row
        x = np.where(single & x_once, np.minimum(x, 2 * self.in_rows * x_row / self.parts), x)
        kept = np.where(self.resident & ~self.outside, self.chunks, np.minimum(2, self.weight_loads))
        weights = np.where(single & weights_once, np.minimum(kept, 2 / self.parts), kept) * self.weights
        return x + weights + np.minimum(2, self.tiles) * self.pixels * self.channels * (traffic.y + traffic.residual) + 512

    def cycles(self) -> Floats:
        """Loads come in the order in which tiles need them, and stores behind the tiles.

        After the operands of any tile have come, the array has that tile and all behind it to do. This is asked for the first
        tile, the last of the first stripe or chunk, and the last of all: in between, loads and products advance evenly.
        """
        machine, window, traffic = self.costs.machine, self.window, self.traffic
        rate, page = machine["dram.bytes_per_cycle"] * machine["dram.eff"], machine["dram.page_bytes"]
        load, store = (machine["dma.issue"] + machine[f"dram.latency_{way}"] for way in ("rd", "wr"))

        def times(moved: Floats, transfers: Floats, span: Floats | float, queues: int) -> Floats:
            """Cycles of `moved` bytes in transfers that reach over `span` bytes of memory; latencies of several queues overlap."""
            return moved / rate + transfers * (load if queues > 1 else store) / queues + transfers * machine["dram.page_miss"] * span / page / queues

        row, out = window.iw * window.ic * traffic.x, self.pixels * window.oc
        parts = np.ones_like(self.rows) if window.depthwise else self.parts
        queues = machine.load_queues
        x = times(self.x, parts, self.in_rows * row, queues)
        more_x = times(self.more_x, parts, self.more_x / self.x * self.in_rows * row, queues)
        weights = times(self.weights, self.parts, self.weights / self.parts, queues)
        residual = times(self.residual, np.full_like(self.rows, traffic.residual > 0), out * traffic.residual, queues)
        y = times(self.y, np.ones_like(self.rows), out * traffic.y, 1)
        array = self._array()
        total = window.batch * self.tiles * array
        first = load + (x + weights) / self.parts
        again = np.where(self.outside, more_x, weights + (x if window.depthwise else 0)) + residual + self.y / rate
        turn = load + x + weights + (self.inner - 1) * (again - array) + total
        queued = load + window.batch * (x + (self.x_loads - 1) * more_x + self.weight_loads * weights + self.tiles * residual)
        moved = (self.load_bytes + self.store_bytes - self.y) / rate
        last = np.maximum(queued, moved) + array / self.parts
        return np.maximum(np.maximum.reduce([first + total, turn, last]) + y, first + window.batch * self.tiles * y)

    def _array(self) -> Floats:
        """Cycles of the array for a tile, or of the drain where that takes longer."""
        native, window, kind = self.costs.native, self.window, int(TYPES[self.dtype])
        pixels, channels, depth = (v.astype(np.int64) for v in (self.pixels, self.channels, self.depth))
        if window.depthwise:
            cycles = np.asarray(_sim.depthwise_cycles(native, pixels, channels, window.kh * window.kw, kind), np.float64)
        else:
            whole, rest = np.divmod(window.group_ic, depth)
            each, left = (
                np.asarray(_sim.conv_cycles(native, pixels, channels, d, window.kh, window.kw, kind), np.float64)
                for d in (depth, np.maximum(1, rest))
            )
            cycles = whole * each + np.where(rest > 0, left, 0) + (self.parts - 1) * self.costs.machine["mma.issue"]
        return np.maximum(cycles, np.asarray(_sim.drain_cycles(native, pixels * channels), np.float64))
