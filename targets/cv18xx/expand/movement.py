# SPDX-License-Identifier: Apache-2.0
"""Concatenation within a group, and movement of data in DDR."""

from __future__ import annotations

from collections.abc import Mapping

from gadl.passes.plan.spans import Span

from ..local import Tile, View
from .kernel import Kernel


class Concat(Kernel):
    """Along channels. What begins on another lane than the first goes through the other engine."""

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        first = 0
        for value in self.op.inputs:
            tile = sources[id(value)]
            source, channels = tile.view(rows), Span(first, tile.c)
            if first % self.lanes == 0:
                self.emit_copy(source, target.view(rows, channels))
            else:
                self._shifted(source, target, rows, channels)
            first += tile.c

    def _shifted(self, source: View, target: Tile, rows: Span, channels: Span) -> None:
        """Channels move by some lanes."""
        lane, slot = channels.first % self.lanes, channels.first // self.lanes
        whole = target.view(rows, Span(slot * self.lanes, channels.count + lane))
        fields = {"trans_dir": 3, "src_fmt": 1, "dst_fmt": 1, "src_n": source.n, "dst_lane": lane}
        for side, view in (("src", source), ("dst", whole)):
            fields |= {
                f"{side}_c": source.c, f"{side}_h": source.h, f"{side}_w": source.w, f"{side}_n_stride": view.n_str,
                f"{side}_c_stride": view.c_str, f"{side}_h_stride": view.h_str,
            }  # fmt: skip
        self.context.transfer(fields, source.address, whole.address, [source.region], [whole.region])

