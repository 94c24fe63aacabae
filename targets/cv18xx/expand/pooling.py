# SPDX-License-Identifier: Apache-2.0
"""Maxima and averages over windows."""

from __future__ import annotations

from collections.abc import Mapping

from gadl.passes.plan.spans import Span

from ..local import Tile
from .instructions import average_pool, max_pool
from .kernel import WindowKernel, small_factor

#: What padding holds: it never wins.
LEAST = -128


class MaxPool(WindowKernel):
    """The largest of each window."""

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        held = self.reads(rows)
        x = self.exact(self.source(sources), held)
        padding = self.padding(rows, held, LEAST)
        made = self.even_result(target, rows)
        for channels in self.channel_chunks():
            source, y = x.view(None, channels), made.view(rows, channels)
            self.emit(max_pool(source, y, self.window, padding), [source], y)
        self.settle(made, target, rows)



class AveragePool(WindowKernel):
    """The mean of each window, by a small factor."""

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        factor, shift = small_factor(self.op.attrs["requant"])
        x, padding = self.prepared(self.source(sources), rows)
        made = self.even_result(target, rows)
        source, y = x.view(), made.view(rows)
        self.emit(average_pool(source, y, self.window, padding, factor, shift), [source], y)
        self.settle(made, target, rows)
