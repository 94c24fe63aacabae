# SPDX-License-Identifier: Apache-2.0
"""Spans: consecutive rows, channels or columns, and a range cut into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """`count` consecutive items from `first`."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """One past the last."""
        return self.first + self.count


def spans(extent: int, size: int, start: int = 0) -> Iterator[Span]:
    """`extent` items from `start` on, `size` at a time."""
    for first in range(start, start + extent, size):
        yield Span(first, min(size, start + extent - first))
