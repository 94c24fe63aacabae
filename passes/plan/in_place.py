# SPDX-License-Identifier: Apache-2.0
"""In place: a result takes the bytes of its operand, block of rows by block of rows, as far as nobody reads these any more.

Where a layer makes its rows from the top, its result lies a little below its operand, at lower addresses; where it makes them
from the bottom, a little above. Layers that take turns at that move values to and fro within one buffer that is hardly larger
than the largest of them. Nothing here knows a machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .rows import RowMap

#: Offsets within a buffer are multiples of this.
ALIGNMENT = 16


@dataclass(frozen=True)
class Distances:
    """How far the start of a result is from that of its operand at least: `below` it where rows are made from the top in blocks,
    `above` it where they are made from the bottom. Bytes.
    """

    below: int
    above: int


def distances(reads: RowMap, block: int, operand_row: int, result_row: int) -> Distances:
    """For blocks of `block` rows: a block is written while rows that it reads are still wanted, and those of blocks to come.

    `operand_row` and `result_row` are the bytes of a row.
    """
    starts = np.arange(0, len(reads.low), block)
    ends = np.minimum(starts + block, len(reads.low))
    below = (ends * result_row - reads.low[starts] * operand_row).max()
    above = (reads.high[ends - 1] * operand_row - starts * result_row).max()
    return Distances(_aligned(below), _aligned(above))


def _aligned(distance: int) -> int:
    return -(-int(distance) // ALIGNMENT) * ALIGNMENT


@dataclass
class Chain:
    """Values in one buffer: `offsets` of each relative to the first, and the results that are made from the bottom."""

    offsets: dict[int, int] = field(default_factory=dict)
    from_bottom: set[int] = field(default_factory=set)
    low: int = 0
    high: int = 0

    @property
    def size(self) -> int:
        """Bytes of the buffer."""
        return self.high - self.low

    def begin(self, value: int, size: int) -> None:
        """The first value."""
        self.offsets[value], self.high = 0, size

    def replace(self, operand: int, result: int) -> None:
        """A result lies just where an operand was."""
        self.offsets[result] = self.offsets[operand]

    def follow(self, operand: int, result: int, size: int, apart: Distances) -> None:
        """A result takes the place of an operand, on the side where the buffer grows less."""
        at = self.offsets[operand]
        # As far off as the buffer reaches: that leaves most room for the next result on the other side.
        below, above = min(at - apart.below, self.low), max(at + apart.above, self.high - size)
        grown = [max(self.high, start + size) - min(self.low, start) for start in (below, above)]
        start = below if grown[0] <= grown[1] else above
        if start != below:
            self.from_bottom.add(result)
        self.offsets[result] = start
        self.low, self.high = min(self.low, start), max(self.high, start + size)
