# SPDX-License-Identifier: Apache-2.0
"""`docs/numerics.md` sections 2 and 3 in Python integers and fractions, written apart from the interpreter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from gadl.compiler.ir.types import Array, Requant, Rounding


def rescale(value: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    """`R(value)` of one number."""
    if rounding is Rounding.F32:
        scale = np.array(multiplier, np.int32).view(np.float32)
        return round(float(np.float32(value) * scale))
    exact = Fraction(value * multiplier, 1 << shift)
    below = math.floor(exact)
    rest = exact - below
    match rounding:
        case Rounding.UP:
            return below + (rest >= Fraction(1, 2))
        case Rounding.FLOOR:
            return below
        case Rounding.ZERO:
            return math.trunc(exact)
        case Rounding.EVEN:
            return round(exact)
        case Rounding.AWAY:
            return int(math.copysign(math.floor(abs(exact) + Fraction(1, 2)), exact))
        case _:
            return _gemmlowp(value, multiplier, shift)


def _gemmlowp(value: int, multiplier: int, shift: int) -> int:
    """Doubling high product, then division by a power of two, each rounded to nearest with ties away from zero.

    gemmlowp `SaturatingRoundingDoublingHighMul` (whose ties of negative products go up) and `RoundingDivideByPOT`.
    """
    product = value * multiplier
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    total = product + nudge
    high = abs(total) // (1 << 31) * (1 if total >= 0 else -1)
    right = shift - 31
    if right == 0:
        return high
    mask = (1 << right) - 1
    rest = high & mask
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    return (high >> right) + (1 if rest > threshold else 0)


def requantised(value: int, requant: Requant, channel: int = 0) -> int:
    """`R(value)` with the numbers of `channel`."""
    index = channel if requant.per_channel else 0
    return rescale(int(value), int(requant.multiplier[index]), int(requant.shift[index]), requant.rounding)


def clamped(value: int, limits: tuple[int, int]) -> int:
    """`value` within `limits`."""
    return min(max(value, limits[0]), limits[1])


def taps(x: Array, at: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Kernel positions of the window that makes output `at`, each with the input position, or None in the padding."""
    for tap in itertools.product(*(range(k) for k in kernel)):
        where = tuple(o * s - p + t * d for o, s, p, t, d in zip(at, strides, pads, tap, dilations))
        yield tap, where if all(0 <= i < n for i, n in zip(where, x.shape[2:])) else None
