# SPDX-License-Identifier: Apache-2.0
"""Observers: the range of a tensor from the arrays that pass by, in bounded memory."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gadl.compiler.ir.types import Array


@dataclass(frozen=True)
class Range:
    """The real values that a tensor takes. Made by `of`, which takes zero in: padding and zero points need it exact."""

    low: float
    high: float

    @classmethod
    def of(cls, low: float, high: float) -> Range:
        """The range from `low` to `high`, widened to hold zero."""
        return cls(min(0.0, float(low)), max(0.0, float(high)))

    def union(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, eq=False)
class ChannelRange(Range):
    """A range, and the least and the largest value of every channel (axis 1) inside it: `lows`, `highs`, f64 each."""

    lows: Array
    highs: Array


class Observer(Protocol):
    """Sees every calibration array of one tensor and gives its range in the end."""

    @property
    def finite(self) -> bool:
        """False when infinity or NaN was seen."""

    def update(self, data: Array) -> None:
        """Take in one array of real values."""

    def range(self) -> Range:
        """The range of what was seen."""


class MinMax:
    """The smallest and the largest value. `finite` turns False when infinity or NaN was seen."""

    def __init__(self) -> None:
        self.finite = True
        self._low = 0.0
        self._high = 0.0

    def update(self, data: Array) -> None:
        """Take in one array of real values."""
        if data.size == 0:
            return
        low, high = float(data.min()), float(data.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.finite = False
            return
        self._low, self._high = min(self._low, low), max(self._high, high)

    def range(self) -> Range:
        """The range of what was seen, zero included."""
        return Range.of(self._low, self._high)


class Percentile:
    """The range that holds all but the outermost values: a streaming histogram, `percent` of the values stay inside.

    Bins are uniform over [-limit, limit]; when a value falls outside, the limit doubles and pairs of bins merge, so the memory
    is one vector of `bins` counts. What is cut is `100 - percent` percent, half of it at each side; an end beyond which
    nothing lies stays at the extreme value itself, and so does one that is not more than `tail` times as far out as the cut.
    """

    def __init__(self, percent: float = 99.99, bins: int = 8192, tail: float = 1.0) -> None:
        if not 50 < percent <= 100:
            raise ValueError("percent is above 50 and at most 100")
        if bins < 4 or bins % 4:
            raise ValueError("bins is a multiple of 4")
        if not tail >= 1:
            raise ValueError("tail is at least 1")
        self.percent = percent
        self.tail = tail
        self._counts = np.zeros(bins, np.int64)
        self._limit = 0.0
        self._extremes = MinMax()

    @property
    def finite(self) -> bool:
        """False when infinity or NaN was seen."""
        return self._extremes.finite

    def update(self, data: Array) -> None:
        """Take in one array of real values."""
        self._extremes.update(data)
        if data.size == 0 or not self.finite:
            return
        span = self._extremes.range()
        largest = max(-span.low, span.high)
        if largest == 0:
            self._counts[len(self._counts) // 2] += data.size
            return
        self._widen(largest)
        bins = len(self._counts)
        position = (data.reshape(-1).astype(np.float64) / self._limit + 1) * (bins / 2)
        index = np.clip(position.astype(np.int64), 0, bins - 1)
        self._counts += np.bincount(index, minlength=bins)

    def range(self) -> Range:
        """The range of what was seen, zero included."""
        span, total = self._extremes.range(), int(self._counts.sum())
        if total == 0 or self._limit == 0:
            return span
        bins = len(self._counts)
        tail = total * (100 - self.percent) / 200
        # How many values lie in bins up to and including each one, from either side; a bin is cut when all of these may go.
        below, above = np.cumsum(self._counts), np.cumsum(self._counts[::-1])
        first = int(np.searchsorted(below, tail, side="right"))
        last = bins - int(np.searchsorted(above, tail, side="right"))
        width = 2 * self._limit / bins
        low, high = max(span.low, first * width - self._limit), min(span.high, last * width - self._limit)
        return Range.of(low if span.low < self.tail * low else span.low, high if span.high > self.tail * high else span.high)

    def _widen(self, largest: float) -> None:
        if self._limit == 0:
            self._limit = largest
        bins = len(self._counts)
        while self._limit < largest:
            self._limit *= 2
            inner = self._counts.reshape(bins // 2, 2).sum(1)
            self._counts = np.zeros(bins, np.int64)
            self._counts[bins // 4 : bins // 4 + bins // 2] = inner


class ByChannel:
    """Another observer's range, with the range of every channel (axis 1 of tensors of two axes or more, all alike)."""

    def __init__(self, whole: Observer) -> None:
        self._whole = whole
        self._lows = self._highs = np.zeros(0)

    @property
    def finite(self) -> bool:
        """False when infinity or NaN was seen."""
        return self._whole.finite

    def update(self, data: Array) -> None:
        """Take in one array of real values."""
        self._whole.update(data)
        if data.ndim < 2 or data.size == 0 or not self.finite:
            return
        others = tuple(i for i in range(data.ndim) if i != 1)
        if len(self._lows) != data.shape[1]:
            self._lows = self._highs = np.zeros(data.shape[1])
        self._lows = np.minimum(self._lows, data.min(others))
        self._highs = np.maximum(self._highs, data.max(others))

    def range(self) -> Range:
        """The range of what was seen, zero included."""
        whole = self._whole.range()
        lows, highs = (np.clip(ends, whole.low, whole.high) for ends in (self._lows, self._highs))
        return ChannelRange(whole.low, whole.high, lows, highs)


#: Values a quarter farther out than nearly all others are worth less than the finer step without them.
LONG_TAIL = 1.25


class ObserverKind(enum.Enum):
    """What users may choose; the value is the spelling of the option."""

    MIN_MAX = "minmax"
    PERCENTILE = "percentile"
    LONG_TAILS = "tails"

    def create(self, percent: float = 99.99) -> Observer:
        """A fresh observer of this kind."""
        if self is ObserverKind.MIN_MAX:
            return MinMax()
        return Percentile(percent, tail=LONG_TAIL if self is ObserverKind.LONG_TAILS else 1.0)
