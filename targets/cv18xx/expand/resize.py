# SPDX-License-Identifier: Apache-2.0
"""Upsampling by whole factors: copies, or interpolation as a depthwise filter over an operand with zeros between its samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import Array
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref

from ..layers import Layer, Window, shape_of
from ..local import Span, Tile, View, align
from .context import Block, Expansion
from .instructions import Padding, plain_depthwise
from .kernel import Kernel, shape_or_raise

#: Largest factor of interpolation: the zeros between samples that an instruction can insert, and weights of eight bits.
MOST_FACTOR = 8


def factors_of(op: Op) -> tuple[int, int] | None:
    """Whole factors of rows and columns; None where there are none."""
    x, y = shape_of(op.inputs[0]), shape_of(op.result)
    if x is None or y is None or y.h % x.h or y.w % x.w or (x.n, x.c) != (y.n, y.c):
        return None
    return y.h // x.h, y.w // x.w


def filter_of(factor: int) -> Array:
    """The weights of linear interpolation by a factor, in parts of `2 * factor` (1 for no factor)."""
    if factor == 1:
        return np.ones(1, np.int64)
    rising = 2 * np.arange(factor) + 1
    return np.concatenate([rising, rising[::-1]])


class Nearest(Kernel):
    """Every sample several times."""

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        factors = factors_of(self.op)
        if factors is None:
            raise ValueError("not a whole factor")
        tall, wide = factors
        x = self.source(sources)
        first, end = rows.first // tall, (rows.end - 1) // tall + 1
        for down in range(tall):
            # Operand rows whose copy number `down` is among `rows`.
            low = first + (first * tall + down < rows.first)
            high = end - ((end - 1) * tall + down >= rows.end)
            if high <= low:
                continue
            source = x.view(Span(low, high - low))
            y = target.view(Span(low * tall + down, (high - 1 - low) * tall + 1))
            for right in range(wide):
                made = View(
                    Ref(y.address.buffer, y.address.offset + right), y.n, y.c, high - low, x.w, y.n_str, y.c_str, y.h_str * tall,
                    wide, False, y.region,
                )  # fmt: skip
                self.emit_copy(source, made)


class Bilinear(Kernel):
    """Interpolation between the centres of samples; beyond the border its last sample goes on."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        factors = factors_of(layer.op)
        if factors is None:
            raise ValueError("not a whole factor")
        self.tall, self.wide = factors
        self.operand = shape_or_raise(layer.op.inputs[0])
        self._filter: Block | None = None

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        column, row = filter_of(self.tall), filter_of(self.wide)
        if self._filter is None:
            slots = -(-self.shape.c // self.lanes)
            each = align(len(column) * len(row))

            def make() -> Array:
                weights = np.outer(column, row).astype(np.uint8).reshape(1, -1)
                return np.tile(np.pad(weights, ((0, 0), (0, each - weights.shape[1]))), (1, slots))

            self._filter = self.context.constant(slots * each, make, f"{self.layer.name}.filter")
        around, pads = self._framed(self.source(sources), rows)
        window = Window(len(column), len(row), 1, 1, 1, 1, self.tall - 1, self.wide - 1, 0, 0)
        x, y = around.view(), target.view(rows)
        shift = sum(int(np.log2(2 * f)) for f in (self.tall, self.wide) if f > 1)
        self.emit(plain_depthwise(x, y, self._filter.at(), window, pads, shift), [x, self._filter], y)

    def _framed(self, tile: Tile, rows: Span) -> tuple[Tile, Padding]:
        """Operand rows with a frame of copies where the window reaches over the border; and the zeros around them.

        Sample k stands at `(k + 1) * f` among the zeros, sample -1 being the frame. The window of result r begins at
        `r - (f - 2) / 2` and is 2f long.
        """
        low, count, up, down = 0, self.operand.h, 0, 0
        if self.tall > 1:
            start = rows.first - (self.tall - 2) // 2
            end = rows.end - 1 - (self.tall - 2) // 2 + 2 * self.tall
            low, high = -(-start // self.tall) - 1, (end - 1) // self.tall
            count, up, down = high - low, (low + 1) * self.tall - start, end - 1 - high * self.tall
        else:
            low, count = rows.first, rows.count
        side = int(self.wide > 1)
        inside = Span(max(low, 0), min(low + count, self.operand.h) - max(low, 0))
        around = Span(low, count)
        made = self.copied(tile, inside, around, side, side) if side or around != inside else self.exact(tile, inside)
        if made is not tile and (side or around != inside):
            self._frame(made, inside, side)
        spare = (self.wide - 2) // 2 if side else 0
        return made, Padding(up, down, spare, spare)

    def _frame(self, made: Tile, inside: Span, side: int) -> None:
        """Columns beside the first and last one, then rows above and below."""
        whole = made.view(inside)
        for target, source in ((0, 1), (made.w - 1, made.w - 2)) if side else ():
            self.emit_copy(_column(whole, source), _column(whole, target))
        for target, source in ((made.first, inside.first), (made.rows.end - 1, inside.end - 1)):
            if target != source:
                self.emit_copy(made.view(Span(source, 1)), made.view(Span(target, 1)))


def _column(view: View, number: int) -> View:
    """One column."""
    address = Ref(view.address.buffer, view.address.offset + number)
    return View(address, view.n, view.c, view.h, 1, view.n_str, view.c_str, view.h_str, 1, False, view.region)


def power_of_two(factor: int) -> bool:
    """True for factors whose weights are whole."""
    return factor & (factor - 1) == 0
