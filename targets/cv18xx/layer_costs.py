# SPDX-License-Identifier: Apache-2.0
"""What one layer costs: cycles and bytes of a lane for every number of iterations, from the instructions that its kernel emits.

Cycles are those of a stripe of rows in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.passes.memory.allocate import peak_use
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.rows import RowMap
from gadl.passes.plan.spans import Span
from gadl.passes.plan.tiling import Floats

from .chip import Chip
from .expand.context import LOCAL, Trial
from .expand.group import kernel_of, tile_bytes
from .expand.kernel import Kernel, shape_or_raise
from .expand.resize import is_magnified
from .layers import REDUCTIONS, Layer, row_reads
from .local import Tile

#: Numbers of iterations that are tried.
ITERATIONS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 160, 224, 320])
#: Bytes of constants per lane that are loaded at a time where all rows of a layer run at once, and how many such pieces there are.
CHUNK_BYTES, CHUNKS = 4 << 10, 2


@dataclass(frozen=True)
class Operand:
    """An operand: its rows, and how far a result row reads beyond its own place, and before it; lane bytes of so many rows."""

    value: int
    n: int
    c: int
    w: int
    rows: int
    lanes: int
    beyond: float = 0.0
    before: float = 0.0
    spare: float = 1.0  # room for a second byte plane, as a part

    @property
    def size(self) -> int:
        """Bytes in DDR."""
        return self.n * self.c * self.rows * self.w

    def band(self, rows: Floats | float, pitch: int = 0) -> Floats:
        """Lane bytes of a tile."""
        plane = np.ceil(np.asarray(rows) * (pitch or self.w) / 16) * 16
        return np.asarray(self.spare * self.n * -(-self.c // self.lanes) * plane, np.float64)

    @property
    def whole(self) -> int:
        """Lane bytes of all rows."""
        return Tile.size(self.lanes, self.n, self.c, self.rows, self.w)


@dataclass(frozen=True)
class LayerFacts:
    """A layer as the estimate sees it; vectors are over `ITERATIONS`."""

    work: Floats
    inside: Floats  # lane bytes between its instructions
    constants: int
    chunk: int  # lane bytes of constants at a time, in one iteration
    streamed: Floats | None  # cycles where constants come again in every iteration, some channels at a time
    rows: int
    operands: tuple[Operand, ...]
    result: Operand


class LayerCosts:
    """What each layer costs, for any budget."""

    def __init__(self, chip: Chip, mb_per_s: float, layers: list[Layer]) -> None:
        self.chip, self.layers = chip, layers
        self.trial = Trial(chip, mb_per_s)
        self._known: dict[tuple[int, int, int], tuple[float, int, int]] = {}
        self.facts = [self._facts(layer) for layer in layers]

    def _facts(self, layer: Layer) -> LayerFacts | None:
        reads = row_reads(layer)
        if reads is None or is_magnified(layer.op):
            return None
        shape, lanes = shape_or_raise(layer.result), self.chip.lanes
        operands = []
        for value, rows_of in reads:
            x = shape_or_raise(value)
            place = np.arange(shape.h) * (x.h / shape.h)
            beyond = float((rows_of.high - place).max()) - x.h / shape.h
            before = float((place - rows_of.low).max())
            if layer.op.name in REDUCTIONS:
                beyond = float(x.h)  # all rows are there at once
            operands.append(Operand(id(value), x.n, x.c, x.w, x.h, lanes, max(0.0, beyond), max(0.0, before)))
        spare = tile_bytes(layer, lanes, shape.h) / Tile.size(lanes, shape.n, shape.c, shape.h, shape.w)
        result = Operand(id(layer.result), shape.n, shape.c, shape.w, shape.h, lanes, spare=spare)
        chunk = self.chunk(layer)
        kernel = kernel_of(self.trial, layer, LayerPlan(layer.ops))
        each = np.ceil(shape.h / ITERATIONS).astype(int)
        costs = [self.cost(kernel, reads, int(rows), 0) for rows in each]
        work = np.array([cost[0] for cost in costs]) * (shape.h / each)
        work[0], inside, constants = self.cost(kernel, reads, shape.h, chunk)
        streamed = None
        if chunk:
            streamed = np.array([self.cost(kernel, reads, int(rows), chunk)[0] for rows in each]) * (shape.h / each)
        spaces = np.array([inside, *(cost[1] for cost in costs[1:])], np.float64)
        piece = constants * chunk // shape.c if chunk else constants
        return LayerFacts(work, spaces, constants, piece, streamed, shape.h, tuple(operands), result)

    def chunk(self, layer: Layer) -> int:
        """Output channels whose constants are loaded at a time; 0: all."""
        if layer.op.name not in ("conv", "conv_transpose", "reduce_mean", "reduce_sum", "avg_pool"):
            return 0
        shape = shape_or_raise(layer.result)
        constants = self._constants(layer)
        slots = -(-shape.c // self.chip.lanes)
        if constants <= CHUNK_BYTES or slots == 1:
            return 0
        parts = min(slots, -(-constants // CHUNK_BYTES))
        return -(-slots // parts) * self.chip.lanes

    def _constants(self, layer: Layer) -> int:
        """Lane bytes of all constants of a layer."""
        shape = shape_or_raise(layer.result)
        return self.cost(kernel_of(self.trial, layer, LayerPlan(layer.ops)), row_reads(layer) or [], min(1, shape.h), 0)[2]

    def cost(self, kernel: Kernel, reads: list[tuple[Any, RowMap]], rows: int, chunk: int) -> tuple[float, int, int]:
        """Cycles of some rows in the middle, lane bytes beside operands and result, and lane bytes of constants."""
        key = kernel.layer.index, rows, chunk
        if key in self._known:
            return self._known[key]
        if chunk:
            kernel = kernel_of(self.trial, kernel.layer, LayerPlan(kernel.layer.ops, channels=chunk))
        shape = kernel.shape
        first = 0 if rows == shape.h else min(rows, shape.h - rows)
        made = Span(first, rows)
        sources = {}
        for value, rows_of in reads:
            x = shape_or_raise(value)
            low, high = int(rows_of.low[made.first]), int(rows_of.high[made.end - 1])
            held = Span(low, max(1, high - low)) if low < x.h else Span(x.h - 1, 1)
            sources[id(value)] = self.trial.tile(value, x.n, x.c, held, x.w)
        target = self.trial.tile(kernel.layer.result, shape.n, shape.c, made, shape.w)
        own = {id(t.buffer) for t in (*sources.values(), target)}
        self.trial.clear()
        kernel = kernel_of(self.trial, kernel.layer, kernel.plan)
        kernel.rows(made, sources, target)
        loaded = self.trial.loaded
        inside = peak_use(self.trial.program, LOCAL, own | {id(b) for b in loaded})
        found = float(self.trial.cycles), inside, sum(b.size for b in loaded)
        self.trial.clear()
        self._known[key] = found
        return found
