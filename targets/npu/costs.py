# SPDX-License-Identifier: Apache-2.0
"""Analytic costs (level L0): the simulator's own formulas, without contention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import gadl.targets.npu._sim as _sim
from gadl.compiler.ir.types import DType
from gadl.passes.plan.tiling import even_splits

from .isa import Type
from .layers import Window
from .machine import Machine

TYPES = {
    DType.I8: Type.I8, DType.U8: Type.U8, DType.I16: Type.I16, DType.I32: Type.I32, DType.I64: Type.I64,
    DType.F16: Type.F16, DType.BF16: Type.BF16, DType.F32: Type.F32,
}  # fmt: skip

#: Part of what a product reads from SRAM that counts as read one after the other.
MEETING = 0.75


@dataclass(frozen=True)
class Piece:
    """The part of an output tile that one accumulator buffer holds."""

    rows: int
    columns: int
    channels: int


class Costs:
    """Formulas of one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.native = _sim.Machine(list(machine.values))
        self._pieces: dict[tuple[Window, int, int, DType], Piece] = {}

    @cached_property
    def vector_block_bytes(self) -> int:
        """Bytes of one operand block of the vector unit: eight blocks fit into SRAM at once."""
        return self.machine.sram_bytes // 16

    @cached_property
    def channels_for_full_rate(self) -> int:
        """Transfers that must be under way for the full rate of memory (one moves what it may have outstanding per latency)."""
        machine = self.machine
        alone = machine["dma.max_outstanding"] * machine["dram.burst"] / max(1.0, machine["dram.latency_rd"])
        rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
        return max(1, min(machine.load_queues, math.ceil(rate / alone)))

    @cached_property
    def passing(self) -> float:
        """Cycles that rows take from one core to another beside their bytes: store, signal and load."""
        m = self.machine
        return 3 * m["dma.issue"] + 2 * m["dram.latency_rd"] + m["dram.latency_wr"] + 2 * m["noc.latency"]

    def cell_bytes(self, dtype: DType) -> int:
        """Bytes of an accumulator cell."""
        return 8 if dtype is DType.I16 else 4

    def mma(self, window: Window, rows: int, columns: int, channels: int, dtype: DType) -> float:
        """Cycles of the array for part of a window layer."""
        kind = int(TYPES[dtype])
        if window.depthwise:
            return float(_sim.depthwise_cycles(self.native, rows * columns, channels, window.kh * window.kw, kind))
        args = (rows * columns, channels, window.group_ic, window.kh, window.kw, kind)
        return float(_sim.conv_cycles(self.native, *args))

    def epi(self, outputs: int) -> float:
        """Cycles of the drain."""
        return float(_sim.drain_cycles(self.native, outputs)) + self.machine["mma.fill"]

    def vector(self, operations: int, element_bytes: int) -> float:
        """Cycles of the vector unit."""
        return float(_sim.vector_cycles(self.native, operations, element_bytes)) + self.machine["vec.issue"]

    def dma(self, rows: int, row_bytes: int, store: bool = False) -> float:
        """Cycles of one transfer that has the memory to itself."""
        return self._dma(rows, row_bytes, store)

    @cached_property
    def _dma(self) -> Callable[[int, int, bool], float]:
        @lru_cache(maxsize=65536)
        def cycles(rows: int, row_bytes: int, store: bool) -> float:
            return float(_sim.dma_cycles(self.native, rows, row_bytes, 1, store))

        return cycles

    def piece_cycles(self, window: Window, piece: Piece, dtype: DType) -> float:
        """Cycles of one product, or of the drain behind it where that takes longer, or of what both read from SRAM.

        A group of banks delivers the operand, once for each block of output channels, and another one the weights; now and then
        they share one, which is counted as a part of both.
        """
        rows, columns, channels = piece.rows, piece.columns, piece.channels
        read, weights = self._read_cycles(window, rows, columns, channels, dtype)
        together = MEETING * (read + weights)
        return max(self.mma(window, rows, columns, channels, dtype), self.epi(rows * columns * channels), read, weights, together)

    def product(self, window: Window, rows: int, channels: int, dtype: DType) -> float:
        """Cycles of the array for some rows and channels of a window layer, cut into pieces as fits, and of the last drain."""
        piece = self.accumulator_piece(window, rows, channels, dtype)
        count = -(-rows // piece.rows) * -(-window.ow // piece.columns) * -(-channels // piece.channels)
        return count * self.piece_cycles(window, piece, dtype) + self.epi(piece.rows * piece.columns * piece.channels)

    def _read_cycles(self, window: Window, rows: int, columns: int, channels: int, dtype: DType) -> tuple[float, float]:
        """Cycles in which one group of banks delivers a product's operand, and its weights."""
        machine = self.machine
        bandwidth = machine["sram.banks"] * machine["sram.bank_bytes"] / machine["sram.groups"]
        weights = channels * window.kh * window.kw * (1 if window.depthwise else window.group_ic)
        return self.operand_bytes(window, Piece(rows, columns, channels), dtype) / bandwidth, weights / bandwidth

    def operand_bytes(self, window: Window, piece: Piece, dtype: DType) -> int:
        """Bytes of its operand that one product reads: once for each block of output channels."""
        rows, columns, channels = piece.rows, piece.columns, piece.channels
        reach = [min((n - 1) * s + (k - 1) * d + 1, extent) for n, s, k, d, extent in (
            (rows, window.stride_h, window.kh, window.dilation_h, window.ih),
            (columns, window.stride_w, window.kw, window.dilation_w, window.iw),
        )]  # fmt: skip
        passes = 1 if window.depthwise else -(-channels // self.machine.integer("mma.shape.1"))
        return reach[0] * reach[1] * (channels if window.depthwise else window.ic) * dtype.size_bytes * passes

    def accumulator_piece(self, window: Window, rows: int, channels: int, dtype: DType) -> Piece:
        """The cheapest split of a tile over two accumulator buffers, so that draining overlaps the next product."""
        key = (window, rows, channels, dtype)
        if key not in self._pieces:
            self._pieces[key] = self._search_piece(window, rows, channels, dtype)
        return self._pieces[key]

    def _search_piece(self, window: Window, rows: int, channels: int, dtype: DType) -> Piece:
        cells = self.half_cells(dtype)
        tn = self.machine.integer("mma.shape.1")
        best: tuple[float, Piece] | None = None
        widths = even_splits(channels, tn)
        for part in dict.fromkeys((*widths[:12], *widths[-4:])):
            if part > cells:
                continue
            pixels = cells // part
            if pixels >= window.ow:
                options = [(min(rows, pixels // window.ow), window.ow)]
            else:
                count = -(-window.ow // pixels)
                options = [(1, -(-window.ow // count))]
            for piece_rows, columns in options:
                count = -(-rows // piece_rows) * -(-window.ow // columns) * -(-channels // part)
                piece = Piece(piece_rows, columns, part)
                read, weights = self._read_cycles(window, piece_rows, columns, part, dtype)
                total = count * (self.piece_cycles(window, piece, dtype) + (read + weights) / 8)
                if best is None or total < best[0]:
                    best = (total, piece)
        if best is None:
            return Piece(1, 1, max(1, min(channels, cells)))
        return best[1]

    def tile_piece(self, window: Window, rows: int, channels: int, depth: int, dtype: DType) -> Piece:
        """How a tile is cut into pieces: not at all where its operands come in parts and half the accumulators hold it."""
        if depth < window.ic and rows * window.ow * channels <= self.half_cells(dtype):
            return Piece(rows, window.ow, channels)
        return self.accumulator_piece(window, rows, channels, dtype)

    def half_cells(self, dtype: DType) -> int:
        """Cells of one of two accumulator buffers."""
        return self.machine.acc_bytes // 2 // self.cell_bytes(dtype)
