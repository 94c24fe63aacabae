# SPDX-License-Identifier: Apache-2.0
"""Strided copies as the DMA takes them: contiguous rows and up to three outer dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CopyDim:
    """One dimension: extent, and the byte strides at the source and the destination."""

    count: int
    source: int
    target: int


@dataclass(frozen=True)
class StridedCopy:
    """`row_bytes` contiguous bytes on both sides, repeated over `dims` (outermost first)."""

    row_bytes: int
    dims: tuple[CopyDim, ...]

    @property
    def rows(self) -> int:
        """Number of contiguous rows."""
        total = 1
        for dim in self.dims:
            total *= dim.count
        return total

    @property
    def size_bytes(self) -> int:
        """Bytes moved."""
        return self.rows * self.row_bytes

    @property
    def source_span(self) -> int:
        """Bytes from the first to the last byte read."""
        return sum((d.count - 1) * d.source for d in self.dims) + self.row_bytes

    @property
    def target_span(self) -> int:
        """Bytes from the first to the last byte written."""
        return sum((d.count - 1) * d.target for d in self.dims) + self.row_bytes


def collapse(dims: Sequence[CopyDim], element_bytes: int) -> StridedCopy:
    """The shortest description of a copy over `dims` (outermost first, strides in bytes)."""
    row, outer = element_bytes, [d for d in dims if d.count != 1]
    while outer and outer[-1].source == row == outer[-1].target:
        row *= outer.pop().count
    merged: list[CopyDim] = []
    for dim in outer:
        last = merged[-1] if merged else None
        if last and last.source == dim.source * dim.count and last.target == dim.target * dim.count:
            merged[-1] = CopyDim(last.count * dim.count, dim.source, dim.target)
        else:
            merged.append(dim)
    return StridedCopy(row, tuple(merged))


def pieces(copy: StridedCopy, most_dims: int = 3) -> Iterator[tuple[int, int, StridedCopy]]:
    """The copy in parts of at most `most_dims` outer dimensions: (source offset, target offset, part)."""
    extra = max(0, len(copy.dims) - most_dims)
    outer, inner = copy.dims[:extra], copy.dims[extra:]
    for index in itertools.product(*(range(d.count) for d in outer)):
        source = sum(i * d.source for i, d in zip(index, outer))
        target = sum(i * d.target for i, d in zip(index, outer))
        yield source, target, StridedCopy(copy.row_bytes, inner)
