# SPDX-License-Identifier: Apache-2.0
"""Row flow: which rows of every tensor a group of layers computes in which iteration, and how many it keeps on chip.

A group runs in iterations. Each advances all tensors of the group by about the same part of their height; what a layer
needs of its operands follows from its row map, so halos are computed once and kept, never recomputed. Nothing here knows
a machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class RowMap:
    """What one operand gives to each row of a result: result row `r` reads operand rows `[low[r], high[r])`.

    Both ascend, so that an operand can be consumed from top to bottom.
    """

    low: Ints
    high: Ints

    @staticmethod
    def same(rows: int) -> RowMap:
        """Row r reads row r."""
        index = np.arange(rows, dtype=np.int64)
        return RowMap(index, index + 1)

    @staticmethod
    def whole(rows: int, operand_rows: int) -> RowMap:
        """Every row reads the whole operand."""
        return RowMap(np.zeros(rows, np.int64), np.full(rows, operand_rows, np.int64))

    @staticmethod
    def window(rows: int, operand_rows: int, stride: int, reach: int, pad: int) -> RowMap:
        """Windows of `reach` rows every `stride` rows, the first `pad` rows above the operand."""
        first = np.arange(rows, dtype=np.int64) * stride - pad
        low = np.clip(first, 0, operand_rows)
        return RowMap(low, np.maximum(np.clip(first + reach, 0, operand_rows), low))

    @staticmethod
    def of(low: Sequence[int] | Ints, high: Sequence[int] | Ints) -> RowMap:
        """Any map, widened to ascend on both sides."""
        lows = np.minimum.accumulate(np.asarray(low, np.int64)[::-1])[::-1]
        return RowMap(lows, np.maximum.accumulate(np.asarray(high, np.int64)))


@dataclass(frozen=True)
class RowLayer:
    """A layer as the flow sees it: the value it makes, the values it reads with their maps, and how many iterations it starts later.

    Who waits for another engine that in turn waits for its own starts one later, so that both engines have work.
    """

    result: int
    reads: tuple[tuple[int, RowMap], ...]
    lag: int = 0


class RowFlow:
    """The schedule of a group.

    `heights` gives the rows of every value that a layer of the group makes or reads. Where layers lag, there are more iterations by
    the largest lag. `units`: values whose rows come in multiples of so many, as far as readers leave that open.
    """

    def __init__(
        self, layers: Sequence[RowLayer], heights: Mapping[int, int], iterations: int, units: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        lags = max((layer.lag for layer in layers), default=0) if iterations > 1 else 0
        self.layers, self.heights, self.iterations = layers, heights, iterations + lags
        self._needed: dict[int, Ints] = {}
        steps = np.arange(1, self.iterations + 1, dtype=np.int64)
        #: Rows of each value that exist after each iteration.
        self.upto: dict[int, Ints] = {
            layer.result: heights[layer.result] * np.clip(steps - min(layer.lag, lags), 0, iterations) // iterations for layer in layers
        }
        for value, unit in units.items():
            self.upto[value] = np.minimum(-(-self.upto[value] // unit) * unit, heights[value])
        for layer in reversed(layers):
            made = self.upto[layer.result]
            for value, rows in layer.reads:
                need = np.where(made > 0, rows.high[np.maximum(made - 1, 0)], 0)
                self.upto[value] = np.maximum(self.upto.get(value, need), need)

    def rows(self, value: int, iteration: int) -> tuple[int, int]:
        """Rows `[first, end)` that an iteration adds to a value."""
        upto = self.upto[value]
        return (int(upto[iteration - 1]) if iteration else 0), int(upto[iteration])

    def needed_from(self, value: int) -> Ints:
        """The first row of a value that each iteration, or a later one, still reads; its height where none does."""
        if value in self._needed:
            return self._needed[value]
        height = self.heights[value]
        found = np.full(self.iterations, height, np.int64)
        for layer in self.layers:
            done = np.concatenate([[0], self.upto[layer.result][:-1]])
            last = int(self.upto[layer.result][-1])
            for read, rows in layer.reads:
                if read == value and last:
                    first = np.where(done < last, rows.low[np.minimum(done, last - 1)], height)
                    found = np.minimum(found, first)
        self._needed[value] = np.minimum.accumulate(found[::-1])[::-1]
        return self._needed[value]

    def halo(self, value: int) -> int:
        """The most rows that one iteration finds there and still reads."""
        before = np.concatenate([[0], self.upto[value][:-1]])
        return int(np.maximum(before - self.needed_from(value), 0).max())

    def capacity(self, value: int, ahead: int = 0) -> int:
        """Rows to reserve for a value: what one iteration finds there and adds, and `ahead` more iterations' worth for who
        runs ahead (the first iteration, which adds the halos of all layers behind it, aside).

        When the reserve is full the halo moves to its start; there is always room to do so without overlap.
        """
        upto = self.upto[value]
        live = int((upto - np.minimum(self.needed_from(value), np.concatenate([[0], upto[:-1]]))).max())
        later = np.diff(upto)
        steady = int(later.max()) if len(later) else 0
        return min(self.heights[value], live + max(self.halo(value), ahead * steady))
