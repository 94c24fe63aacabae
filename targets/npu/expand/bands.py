# SPDX-License-Identifier: Apache-2.0
"""Bands: rows of a tensor in SRAM, and how a layer's tensors are seen as rows of pixels with channels innermost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Layout
from gadl.passes.plan.program import Buffer, Ref, Region
from gadl.passes.plan.spans import Span

from .context import Place


@dataclass(frozen=True)
class RowShape:
    """A tensor as images of rows of pixels: extents and element size in bytes."""

    images: int
    rows: int
    width: int
    channels: int
    element: int

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a dense pixel."""
        return self.channels * self.element

    @property
    def row_bytes(self) -> int:
        """Bytes of a dense row."""
        return self.width * self.pixel_bytes


def by_last_axis(value: Value) -> bool:
    """True where a row is one run of the last axis, whatever the axes before it; else it is one of pixels with channels."""
    if value.type.rank <= 2 or value.layout is not Layout.ROW_MAJOR:
        return value.type.rank <= 2
    return value.type.rank != 4 or not (value.shape[1] == 1 or all(d == 1 for d in value.shape[2:]))


def row_period(value: Value, result: Value) -> int | None:
    """Rows by the last axis after which a smaller operand repeats; None where it broadcasts otherwise."""
    rank = result.type.rank
    shape = (1,) * (rank - value.type.rank) + value.shape
    equal = next((a for a in range(rank) if shape[a:] == result.shape[a:]), rank)
    if not by_last_axis(result) or equal == rank or any(d != 1 for d in shape[:equal]):
        return None
    return math.prod(shape[equal:-1])


def even_rows(value: Value, strides: Sequence[int]) -> bool:
    """True where rows by the last axis lie at one distance in memory."""
    axes = [a for a in range(value.type.rank - 1) if value.shape[a] != 1]
    return not by_last_axis(value) or all(strides[a] == strides[b] * value.shape[b] for a, b in zip(axes, axes[1:]))


def row_shape(value: Value) -> RowShape | None:
    """The tensor as rows, or None where its innermost axis is neither channels nor the last one."""
    shape, element = value.shape, value.dtype.size_bytes
    if by_last_axis(value):
        return RowShape(1, math.prod(shape[:-1]), 1, shape[-1] if shape else 1, element)
    rows, width = (*shape[2:], 1)[:2]
    return RowShape(shape[0], rows, width, shape[1], element)


def row_strides(value: Value, place: Place) -> tuple[int, int, int, int]:
    """Byte strides of image, row, pixel and channel of a placed tensor that has a `row_shape`."""
    strides, rank = place.strides, value.type.rank
    element = value.dtype.size_bytes
    if by_last_axis(value):
        axes = [a for a in range(rank - 1) if value.shape[a] != 1]
        return 0, (strides[axes[-1]] if axes else 0), 0, element
    return strides[0], strides[2], strides[3] if rank == 4 else strides[2], element if value.shape[1] == 1 else strides[1]


@dataclass(frozen=True)
class Band:
    """Rows of a tensor in a buffer: row `first` lies at `offset`, channel `channel` comes first in each pixel."""

    buffer: Buffer
    row_bytes: int
    pixel_bytes: int
    element: int
    first: int = 0
    offset: int = 0
    channel: int = 0

    def byte(self, row: int, column: int = 0, channel: int | None = None) -> int:
        """Byte of an element, from the buffer's start."""
        inside = 0 if channel is None else (channel - self.channel) * self.element
        return self.offset + (row - self.first) * self.row_bytes + column * self.pixel_bytes + inside

    def at(self, row: int, column: int = 0, channel: int | None = None) -> Ref:
        """Address of an element."""
        return Ref(self.buffer, self.byte(row, column, channel))

    def region(self, rows: Span, columns: Span, channels: Span) -> Region:
        """Hull of a block."""
        start = self.byte(rows.first, columns.first, channels.first)
        end = self.byte(rows.end - 1, columns.end - 1, channels.end - 1) + self.element
        return Region(self.buffer, start, end - start)

    def phase(self, row: int, row_step: int, column: int, column_step: int) -> Band:
        """Rows `row, row + row_step, …` and columns alike, as a band of their own."""
        return replace(
            self, first=0, offset=self.byte(row, column, self.channel),
            row_bytes=self.row_bytes * row_step, pixel_bytes=self.pixel_bytes * column_step,
        )  # fmt: skip


@dataclass
class Live:
    """A value on chip: rows `[base, made)` lie in `buffer` from `offset` on, where there is room for `room` rows."""

    shape: RowShape
    buffer: Buffer
    room: int
    base: int = 0
    made: int = 0
    offset: int = 0

    @property
    def band(self) -> Band:
        """The rows there are."""
        return Band(self.buffer, self.shape.row_bytes, self.shape.pixel_bytes, self.shape.element, self.base, self.offset)
