# SPDX-License-Identifier: Apache-2.0
"""Products from memory to memory: fully connected layers and products of two tensors, in blocks that fit local memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array
from gadl.passes.plan.program import Ref
from gadl.passes.plan.spans import Span, spans

from ..chip import Chip
from ..layers import Layer
from ..strides import Strides, row_pitch
from .context import Expansion
from .instructions import Parts, matrix_product
from .kernel import folded_bias, integers, relu_of, two_step
from .matrix import MOST_ROWS, Held, Stored, block_width, load_matrix, pitch, room, store_constant, store_matrix

#: Byte planes of partial sums.
PLANES = 4


@dataclass(frozen=True)
class Blocks:
    """Rows, columns and depth of one instruction; `by_rows`: all columns of some rows before the next rows."""

    rows: int
    depth: int
    columns: int
    by_rows: bool


@dataclass(frozen=True)
class Factor:
    """An operand: a matrix in DDR for each element of the batch, or constants u8[batch or 1, rows, columns]."""

    stored: tuple[Stored, ...] = ()
    data: Array | None = None


@dataclass(frozen=True)
class Shape:
    """Of a product of matrices."""

    rows: int
    depth: int
    columns: int


def blocks_of(shape: Shape, chip: Chip, mb_per_s: float) -> Blocks:
    """The fastest blocks that fill half of local memory at most, which leaves room for the next ones. The smallest ones always do."""
    unit = chip.lanes * chip.units
    rows = _parts(shape.rows, 1, MOST_ROWS)
    depths = _parts(shape.depth, chip.units, MOST_ROWS)
    columns = _parts(shape.columns, unit, unit * MOST_ROWS)
    fits = [
        Blocks(m, k, n, by_rows) for m in rows for k in depths for n in columns for by_rows in (False, True)
        if 2 * _lane_bytes(m, k, n, k < shape.depth, chip) <= chip.lane_bytes
    ]  # fmt: skip
    return min(fits, key=lambda blocks: _cost(blocks, shape, chip, mb_per_s))


def _parts(extent: int, unit: int, most: int) -> list[int]:
    """Halves of an extent and so on, in multiples of `unit`."""
    found, count = [], 1
    while True:
        part = min(extent, -(-extent // (count * unit)) * unit)
        if part <= most:
            found.append(part)
        if part <= unit:
            return list(dict.fromkeys(found))
        count *= 2


def _lane_bytes(m: int, k: int, n: int, split: bool, chip: Chip) -> int:
    return m * pitch(k, chip) + k * pitch(n, chip) + (PLANES if split else 1) * m * pitch(n, chip) + PLANES * pitch(n, chip)


def _cost(blocks: Blocks, shape: Shape, chip: Chip, mb_per_s: float) -> tuple[float, bool]:
    """Cycles of the slower engine; rather by columns."""
    m, k, n = -(-shape.rows // blocks.rows), -(-shape.depth // blocks.depth), -(-shape.columns // blocks.columns)
    width = block_width(blocks.columns, chip)
    lanes = -(-blocks.columns // width)
    slots = -(-lanes // chip.lanes) * -(-width // chip.units)
    compute = m * k * n * (72 + blocks.rows * slots * (blocks.depth + 5))
    left, right = shape.rows * shape.depth, shape.depth * shape.columns
    again_left = n if not blocks.by_rows and m * k > 1 or k > 1 else 1
    again_right = m if blocks.by_rows and n * k > 1 or k > 1 else 1
    moved = left * again_left + right * again_right + shape.rows * shape.columns
    return max(compute, moved * chip.mhz / mb_per_s) + 0.25 * min(compute, moved * chip.mhz / mb_per_s), blocks.by_rows


class Product:
    """Runs all blocks of one layer; a block of an operand that is there already is not loaded again."""

    def __init__(self, context: Expansion, layer: Layer, shape: Shape, left: Factor, right: Factor, bias: Array | None) -> None:
        self.context, self.layer, self.shape, self.left, self.right, self.bias = context, layer, shape, left, right, bias
        self.blocks = blocks_of(shape, context.chip, context.mb_per_s)
        multiplier, shift = two_step(layer.op.attrs["requant"], 1)
        self.multiplier, self.shift = int(multiplier[0]), int(shift[0])
        self._there: dict[str, tuple[object, Held]] = {}

    def run(self, batch: int, result: Stored) -> None:
        """One matrix of the batch."""
        depths = list(spans(self.shape.depth, self.blocks.depth))
        for rows, columns in self._order():
            split = len(depths) > 1
            made = room(self.context, rows.count, columns.count, self.layer.result.name, PLANES if split else 1)
            planes = rows.count * pitch(columns.count, self.context.chip) if split else 0
            addend = self._bias(columns)
            for number, depth in enumerate(depths):
                left = self._factor("left", self.left, batch, rows, depth)
                right = self._factor("right", self.right, batch, depth, columns)
                last = number == len(depths) - 1
                parts = Parts.WHOLE if not split else Parts.LAST if last else Parts.MIDDLE if number else Parts.FIRST
                fields = matrix_product(
                    left.matrix, right.matrix, made.matrix, self.multiplier, self.shift, relu_of(self.layer),
                    None if addend is None else addend.block.at(), parts, planes,
                )  # fmt: skip
                reads = [held.block.region for held in (left, right, *([addend] if addend is not None else []))]
                self.context.compute(fields, [*reads, *([made.block.region] if number else [])], [made.block.region])
            store_matrix(self.context, made, result.part(rows, columns))

    def _order(self) -> Iterator[tuple[Span, Span]]:
        rows, columns = list(spans(self.shape.rows, self.blocks.rows)), list(spans(self.shape.columns, self.blocks.columns))
        if self.blocks.by_rows:
            yield from ((r, c) for r in rows for c in columns)
        else:
            yield from ((r, c) for c in columns for r in rows)

    def _factor(self, side: str, factor: Factor, batch: int, rows: Span, columns: Span) -> Held:
        def load() -> Held:
            name = f"{self.layer.name}.{side}"
            if factor.data is not None:
                data = factor.data[min(batch, len(factor.data) - 1)]
                stored = store_constant(self.context, data[rows.first : rows.end, columns.first : columns.end])
            else:
                stored = factor.stored[batch].part(rows, columns)
            return load_matrix(self.context, stored, rows.count, columns.count, name)

        at = min(batch, len(factor.data) - 1) if factor.data is not None else factor.stored[batch].at.offset
        return self._held(side, (at, rows, columns), load)

    def _bias(self, columns: Span) -> Held | None:
        bias = self.bias
        if bias is None:
            return None

        def load() -> Held:
            planes = np.ascontiguousarray(bias[columns.first : columns.end].astype("<i4")).view(np.uint8).reshape(-1, 4).T
            return load_matrix(self.context, store_constant(self.context, planes), PLANES, columns.count, f"{self.layer.name}.bias")

        return self._held("bias", columns, load)

    def _held(self, side: str, key: object, load: Callable[[], Held]) -> Held:
        there = self._there.get(side)
        if there is None or there[0] != key:
            there = self._there[side] = key, load()
        return there[1]


def expand_product(context: Expansion, layer: Layer) -> None:
    """linear: `y[M, N] = x[M, K] . w[N, K]^T + b`. matmul: a product for each element of the batch."""
    op, result = layer.op, layer.result
    y = context.places[id(result)]
    if op.name == "linear":
        x, weights = context.places[id(op.inputs[0])], integers(op.inputs[1])
        between = row_pitch(op.inputs[0].shape, x.strides), row_pitch(result.shape, y.strides)
        if weights is None or between[0] is None or between[1] is None:
            raise ValueError("weights must be constant, and rows evenly apart")
        shape = Shape(math.prod(op.inputs[0].shape[:-1]), op.inputs[0].shape[-1], result.shape[-1])
        left = Factor((Stored(Ref(x.buffer, x.offset), between[0], 1),))
        product = Product(context, layer, shape, left, Factor(data=weights.T[None]), folded_bias(op, weights))
        product.run(0, Stored(Ref(y.buffer, y.offset), between[1], 1))
        return
    a, b = op.inputs
    outer = result.shape[:-2]
    shape = Shape(result.shape[-2], a.shape[-1], result.shape[-1])
    targets = _matrices(Ref(y.buffer, y.offset), outer, result.shape, y.strides)
    left, right = _operand(context, a, outer), _operand(context, b, outer)
    product = Product(context, layer, shape, left, right, None)
    for number, target in enumerate(targets):
        product.run(number, target)


def _operand(context: Expansion, value: Value, outer: tuple[int, ...]) -> Factor:
    data = integers(value)
    if data is not None:
        full = np.broadcast_to(data, (*outer, *data.shape[-2:])) if data.ndim > 2 else data
        return Factor(data=full.reshape(-1, *data.shape[-2:]))
    place = context.places[id(value)]
    return Factor(tuple(_matrices(Ref(place.buffer, place.offset), outer, value.shape, place.strides)))


def _matrices(at: Ref, outer: tuple[int, ...], shape: tuple[int, ...], strides: Strides) -> list[Stored]:
    """The matrices of the last two axes, one for each element of the batch; axes of one element are broadcast."""
    offsets = np.zeros(outer, np.int64)
    for axis, extent in enumerate(shape[:-2]):
        if extent > 1:
            along = np.arange(extent).reshape(-1, *[1] * (len(shape) - 3 - axis))
            offsets = offsets + along * strides[axis]
    row, column = strides[-2:]
    return [Stored(Ref(at.buffer, at.offset + int(offset)), row, column) for offset in offsets.reshape(-1)]
