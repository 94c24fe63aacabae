# SPDX-License-Identifier: Apache-2.0
"""Sums whose operands are multiplied by small integers: `y = clamp((a * ca + b * cb + 2^(s-1)) >> s)`.

A subtracted operand is multiplied by `-cb`, a signed number, so that `cb` has one bit less than `ca`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.requant import quantize_multiplier
from gadl.compiler.ir.types import Requant, Rounding

#: The largest shift of a sum.
MOST_SHIFT = 31


@dataclass(frozen=True)
class SumFactors:
    """`a * factors[0] + b * factors[1]`, shifted right by `shift`; factors are magnitudes."""

    factors: tuple[int, int]
    shift: int

    @property
    def ratios(self) -> tuple[float, float]:
        """What each operand is really multiplied by."""
        return self.factors[0] / (1 << self.shift), self.factors[1] / (1 << self.shift)

    @property
    def requant(self) -> tuple[Requant, Requant, Requant]:
        """As `add` and `sub` take it: both operands times an integer, exactly, and the sum shifted half up."""
        first, second = (_requant(*quantize_multiplier(float(factor))) for factor in self.factors)
        return first, second, _requant(1 << 30, 30 + self.shift)


def _requant(multiplier: int, shift: int) -> Requant:
    return Requant(np.array([multiplier], np.int32), np.array([shift], np.int8), Rounding.UP)


def most_factors(bits: int, subtracts: bool) -> tuple[int, int]:
    """The largest factor of each operand."""
    return (1 << bits) - 1, (1 << min(bits, 8 - subtracts)) - 1


def sum_factors(ratios: tuple[float, float], bits: int, subtracts: bool = False) -> SumFactors:
    """The factors nearest to `scale of operand / scale of result`, with the largest shift at which they fit.

    Smaller shifts give nothing nearer: the same factors are at hand with each one doubled. `ValueError` when a ratio is past
    the largest factor.
    """
    limits = most_factors(bits, subtracts)
    for shift in range(MOST_SHIFT, -1, -1):
        first, second = (round(math.ldexp(ratio, shift)) for ratio in ratios)
        if first <= limits[0] and second <= limits[1]:
            return SumFactors((first, second), shift)
    raise ValueError(f"ratios {ratios} are too large for factors of {bits} bits")
