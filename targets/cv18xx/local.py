# SPDX-License-Identifier: Apache-2.0
"""Local memory: how tensors lie across the lanes.

Element (n, c, h, w) of a tensor that starts at byte offset A is on lane `c mod LANES`, at `A + n*n_str + (c div LANES)*c_str +
h*h_str + w`. In the aligned form `h_str = W` and `c_str` is `H*W` rounded up to 16, which the units compute by themselves. A buffer
is the same bytes of every lane, so one address serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gadl.passes.plan.program import Buffer, Ref, Region
from gadl.passes.plan.spans import Span

ALIGNMENT = 16


def align(size: int, unit: int = ALIGNMENT) -> int:
    """`size` rounded up to a multiple of `unit`."""
    return -(-size // unit) * unit


@dataclass(frozen=True)
class View:
    """A tensor in local memory as an instruction sees it: address, extents, byte strides; `aligned`: in the aligned form."""

    address: Ref
    n: int
    c: int
    h: int
    w: int
    n_str: int
    c_str: int
    h_str: int
    w_str: int
    aligned: bool
    region: Region

    @property
    def starts_even(self) -> bool:
        """True where the first element lies at a multiple of 16, as all but elementwise instructions want it."""
        return self.address.offset % ALIGNMENT == 0


@dataclass(frozen=True)
class Tile:
    """Rows `[first, first + h)` of a value: extents, and its place. `lanes` are those of the chip, `element` bytes of an element.

    `room`: rows that a channel has room for, where there are more than `h`. `offset`: where it begins in its buffer. `pitch`: elements
    from row to row, where these are more than `w`.
    """

    buffer: Buffer
    lanes: int
    n: int
    c: int
    h: int
    w: int
    first: int = 0
    element: int = 1
    room: int = 0
    offset: int = 0
    pitch: int = 0

    @staticmethod
    def size(lanes: int, n: int, c: int, h: int, w: int, element: int = 1) -> int:
        """Bytes per lane of a tensor in the aligned form."""
        return n * -(-c // lanes) * align(h * w * element)

    @property
    def rows(self) -> Span:
        """The rows that it holds."""
        return Span(self.first, self.h)

    @property
    def c_str(self) -> int:
        """Bytes between channels of one lane."""
        return align(max(self.h, self.room) * self.row)

    @property
    def row(self) -> int:
        """Bytes from row to row."""
        return max(self.w, self.pitch) * self.element

    @property
    def n_str(self) -> int:
        """Bytes between images."""
        return -(-self.c // self.lanes) * self.c_str

    @property
    def whole(self) -> Region:
        """All bytes of its buffer."""
        return Region(self.buffer, 0, self.buffer.size)

    def view(self, rows: Span | None = None, channels: Span | None = None) -> View:
        """Some rows and channels; channels begin on lane 0."""
        rows, channels = rows or self.rows, channels or Span(0, self.c)
        if channels.first % self.lanes:
            raise ValueError("channels begin on lane 0")
        row = self.row
        offset = self.offset + channels.first // self.lanes * self.c_str + (rows.first - self.first) * row
        slots = -(-channels.count // self.lanes)
        size = (self.n - 1) * self.n_str + (slots - 1) * self.c_str + rows.count * row
        dense = row == self.w * self.element
        # A transfer between lanes and rows of 16 bytes never touches more than the aligned form of the rows.
        aligned = dense and align(rows.count * row) == self.c_str and rows.count == self.h and (self.n == 1 or channels.count == self.c)
        return View(
            Ref(self.buffer, offset), self.n, channels.count, rows.count, self.w, self.n_str, self.c_str, row, self.element, aligned,
            Region(self.buffer, offset, size),
        )  # fmt: skip
