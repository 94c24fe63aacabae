# SPDX-License-Identifier: Apache-2.0
"""Upsampling by whole factors: copies, or interpolation as a depthwise filter over an operand with zeros between its samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import Array
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref, Region
from gadl.passes.plan.spans import Span

from ..layers import Layer, Window, shape_of
from ..local import ALIGNMENT, Tile, View
from .context import Block, Expansion
from .instructions import plain_convolution, plain_depthwise
from .kernel import Kernel, by_lane, shape_or_raise

#: The largest weight of an instruction.
MOST_WEIGHT = 127


def factors_of(op: Op) -> tuple[int, int] | None:
    """Whole factors of rows and columns; None where there are none."""
    x, y = shape_of(op.inputs[0]), shape_of(op.result)
    if x is None or y is None or y.h % x.h or y.w % x.w or (x.n, x.c) != (y.n, y.c):
        return None
    return y.h // x.h, y.w // x.w


def taps_of(factor: int, phase: int) -> tuple[int, list[int]]:
    """The samples that results number `phase` behind each sample lie between: the first one relative to it, and weights.

    Weights count `2 * factor` parts.
    """
    if factor == 1:
        return 0, [1]
    ahead = 2 * phase + 1 - factor  # of the sample, in parts
    return (0, [2 * factor - ahead, ahead]) if ahead >= 0 else (-1, [-ahead, 2 * factor + ahead])


def most_weight(tall: int, wide: int) -> int:
    """The largest weight of interpolation by two factors."""
    return (2 * tall - 1) * (2 * wide - 1)


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
    """Interpolation between the centres of samples; beyond the border its last sample goes on.

    Results that lie alike between their samples are a phase, and one filter of two or three taps a side makes all of them, from the
    operand in a frame of copies of its border.
    """

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        factors = factors_of(layer.op)
        if factors is None:
            raise ValueError("not a whole factor")
        self.tall, self.wide = factors
        self.operand = shape_or_raise(layer.op.inputs[0])
        self._known: dict[bytes, Block] = {}

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        first = (rows.first - self.tall // 2) // self.tall if self.tall > 1 else rows.first
        last = (rows.end - 1 + self.tall // 2) // self.tall if self.tall > 1 else rows.end - 1
        x = self._framed(self.source(sources), Span(first, last - first + 1))
        for down in range(self.tall):
            low = -(-(rows.first - down) // self.tall)
            count = (rows.end - 1 - down) // self.tall + 1 - low
            for right in range(self.wide) if count > 0 else ():
                self._phase(x, target, down, right, Span(low, count))

    def _phase(self, x: Tile, target: Tile, down: int, right: int, samples: Span) -> None:
        """The results of one phase behind some rows of samples."""
        (above, column), (before, row) = taps_of(self.tall, down), taps_of(self.wide, right)
        # Taps of no weight stand in front where the filter would not begin where rows and columns of the operand do.
        start = samples.first + above - x.first
        row = [0] * (before + int(self.wide > 1)) + row
        if start * x.w % ALIGNMENT:
            column, start = [0] * start + column, 0
        held = Span(x.first + start, samples.count + len(column) - 1)
        view = x.view(held)
        made = target.view(Span(samples.first * self.tall + down, (samples.count - 1) * self.tall + 1))
        y = View(
            Ref(made.address.buffer, made.address.offset + right), made.n, made.c, samples.count, self.operand.w, made.n_str, made.c_str,
            made.h_str * self.tall, self.wide, False, made.region,
        )  # fmt: skip
        even = y if y.starts_even else self._beside(samples)
        window = Window(len(column), len(row), 1, 1, 1, 1, 0, 0, 0, 0)
        shift = sum(int(np.log2(2 * f)) for f in (self.tall, self.wide) if f > 1)
        block = self._weights(np.outer(column, row))
        self.emit(plain_depthwise(view, even, block.at(), window, shift), [view, block], even)
        if even is not y:
            self.emit_copy(even, y)

    def _beside(self, samples: Span) -> View:
        size = Tile.size(self.lanes, self.shape.n, self.shape.c, samples.count, self.operand.w)
        buffer = self.context.program.buffer("local", size, "phase")
        return Tile(buffer, self.lanes, self.shape.n, self.shape.c, samples.count, self.operand.w).view()

    def _weights(self, weights: Array) -> Block:
        """The filter of one phase for every channel."""
        key = weights.tobytes() + bytes(weights.shape)
        if key not in self._known:
            flat = weights.astype(np.uint8).reshape(1, -1)
            data = np.tile(np.pad(flat, ((0, 0), (0, -flat.shape[1] % 16))), (1, -(-self.shape.c // self.lanes)))
            self._known[key] = self.context.constant(data.shape[1], lambda: data, f"{self.layer.name}.filter")
        return self._known[key]

    def _framed(self, tile: Tile, around: Span) -> Tile:
        """Rows with a frame where they reach over the border, and columns on both sides."""
        side = int(self.wide > 1)
        inside = Span(max(around.first, 0), min(around.end, self.operand.h) - max(around.first, 0))
        if not side and around == inside:
            return self.even(tile, inside)
        made = self.copied(tile, inside, around, side, side)
        frame(self, made, inside, side)
        return made


class Magnified(Kernel):
    """One channel enlarged so much that weights have more than seven bits, from memory to memory.

    A dense convolution adds up channels with the same data, over which each weight is spread. Its output channels are the results that
    lie side by side behind each sample, and the transfer that stores them puts channels innermost.
    """

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        factors = factors_of(layer.op)
        if factors is None:
            raise ValueError("not a whole factor")
        self.tall, self.wide = factors
        self.operand = shape_or_raise(layer.op.inputs[0])
        self.copies = -(-most_weight(*factors) // MOST_WEIGHT)

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        raise ValueError("runs from memory to memory")

    def run(self) -> None:
        """Emit all steps."""
        operand = self.operand
        whole = self.context.tile(self.op.inputs[0], 1, 1, Span(0, operand.h), operand.w)
        self.context.load(self.op.inputs[0], whole.view(), whole.rows)
        spread = self._spread(whole)
        around = Span(-int(self.tall > 1), operand.h + 2 * int(self.tall > 1))
        side = int(self.wide > 1)
        x = self.copied(spread, spread.rows, around, side, side)
        frame(self, x, spread.rows, side)
        for down in range(self.tall):
            self._phase(x.view(), down)

    def _phase(self, x: View, down: int) -> None:
        """All results of the rows that lie alike between samples."""
        column = _three(taps_of(self.tall, down)[1], taps_of(self.tall, down)[0])
        kernels = []
        for right in range(self.wide):
            before, row = taps_of(self.wide, right)
            rest = np.outer(column, _three(row, before))
            parts = []
            for _ in range(self.copies):
                parts.append(np.minimum(rest, MOST_WEIGHT))
                rest = rest - parts[-1]
            kernels.append(np.stack(parts, -1).reshape(-1))
        data = by_lane(np.stack(kernels).astype(np.uint8), self.lanes)
        block = self.context.constant(data.shape[1], lambda: data, f"{self.layer.name}.filter")
        operand, lanes = self.operand, self.lanes
        size = Tile.size(lanes, 1, self.wide, operand.h, operand.w)
        made = Tile(self.context.program.buffer("local", size, "phase"), lanes, 1, self.wide, operand.h, operand.w)
        height, width = (3 if f > 1 else 1 for f in (self.tall, self.wide))
        shift = sum(int(np.log2(2 * f)) for f in (self.tall, self.wide) if f > 1)
        self.emit(plain_convolution(x, made.view(), block.at(), Window(height, width, 1, 1, 1, 1, 0, 0, 0, 0), shift), [x, block], made.view())
        self._store(made.view(), down)

    def _store(self, source: View, down: int) -> None:
        """Channels become neighbouring columns."""
        place = self.context.places[id(self.op.result)]
        fields = {
            "trans_dir": 1, "spec_func": 1, "transpose_md": 3, "src_fmt": 1, "dst_fmt": 1, "src_n": 1, "src_c": source.c, "src_h": source.h,
            "src_w": source.w, "src_n_stride": source.n_str, "src_c_stride": source.c_str, "src_h_stride": source.h_str, "dst_c": source.w,
            "dst_h": source.h, "dst_w": source.c, "dst_n_stride": place.n_str, "dst_c_stride": self.wide, "dst_h_stride": place.h_str * self.tall,
        }  # fmt: skip
        offset = place.offset + down * place.h_str
        size = (source.h - 1) * place.h_str * self.tall + self.shape.w
        self.context.transfer(fields, source.address, Ref(place.buffer, offset), [source.region], [Region(place.buffer, offset, size)])

    def _spread(self, tile: Tile) -> Tile:
        """The channel on as many lanes and slots as weights have parts."""
        lanes, pixels = self.lanes, tile.h * tile.w
        size = Tile.size(lanes, 1, self.copies, tile.h, tile.w)
        made = Tile(self.context.program.buffer("local", size, "spread"), lanes, 1, self.copies, tile.h, tile.w)
        source, target = tile.view(), made.view()
        # Read as rows that lie over each other, written as channels.
        fields = {
            "trans_dir": 3, "src_fmt": 1, "dst_fmt": 1, "src_n": 1, "src_c": 1, "src_h": self.copies, "src_w": pixels, "src_n_stride": 0,
            "src_c_stride": 0, "src_h_stride": 0, "dst_c": self.copies, "dst_h": 1, "dst_w": pixels, "dst_n_stride": target.n_str,
            "dst_c_stride": target.c_str, "dst_h_stride": pixels,
        }  # fmt: skip
        self.context.transfer(fields, source.address, target.address, [source.region], [target.region])
        return made


def frame(kernel: Kernel, made: Tile, inside: Span, side: int) -> None:
    """Copies of the border: columns beside the first and last one, then rows above and below."""
    whole = made.view(inside)
    for target, source in ((0, 1), (made.w - 1, made.w - 2)) if side else ():
        kernel.emit_copy(_column(whole, source), _column(whole, target))
    for target, source in ((made.first, inside.first), (made.rows.end - 1, inside.end - 1)):
        if target != source:
            kernel.emit_copy(made.view(Span(source, 1)), made.view(Span(target, 1)))


def is_magnified(op: Op) -> bool:
    """True for interpolation whose weights have more than seven bits."""
    factors = factors_of(op) if op.name == "resize" and op.attrs["mode"] != "nearest" else None
    return factors is not None and most_weight(*factors) > MOST_WEIGHT


def _three(taps: list[int], first: int) -> list[int]:
    """Weights of a sample and both of its neighbours; of one alone where there is one tap."""
    return taps if len(taps) == 1 else [0, *taps] if first == 0 else [*taps, 0]


def _column(view: View, number: int) -> View:
    """One column."""
    address = Ref(view.address.buffer, view.address.offset + number)
    return View(address, view.n, view.c, view.h, 1, view.n_str, view.c_str, view.h_str, 1, False, view.region)


def power_of_two(factor: int) -> bool:
    """True for factors whose weights are whole."""
    return factor & (factor - 1) == 0
