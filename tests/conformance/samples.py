# SPDX-License-Identifier: Apache-2.0
"""Random integers, zero points and ratios that reach the edges."""

from __future__ import annotations

from typing import Any

import numpy as np

from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, Requant, Rounding

#: A ratio of one.
IDENTITY = Requant(np.array([1 << 30], np.int32), np.array([30], np.int8))


def pick(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer, both ends included."""
    return int(rng.integers(low, high, endpoint=True))


def ints(rng: np.random.Generator, *shape: int, dtype: Any = np.int8, low: int | None = None) -> Array:
    """Random integers over the type's range; some cases get a share of extreme values."""
    info = np.iinfo(dtype)
    least = info.min if low is None else low
    data = rng.integers(least, info.max, shape, endpoint=True).astype(dtype)
    if rng.random() < 0.4:
        extreme = np.where(rng.random(shape) < 0.5, least, info.max).astype(dtype)
        data = np.where(rng.random(shape) < 0.7, extreme, data)
    return data


def zero_point(rng: np.random.Generator) -> int:
    """Any zero point, the extreme ones often."""
    return int(rng.choice([-128, -128, -1, 0, 0, 127, int(rng.integers(-128, 128))]))


def ratios(rng: np.random.Generator, count: int, typical: float, rounding: Rounding = Rounding.UP, bits: int = 31) -> Requant:
    """Requantisation around a ratio: powers of two (ties), a factor of 2^8 to both sides, 0 for some channels."""
    spread = 2.0 ** rng.uniform(-8, 4, count) if rng.random() < 0.5 else rng.uniform(0.5, 2, count)
    values = typical * spread
    if rng.random() < 0.3:
        values = 2.0 ** np.rint(np.log2(values))
    values = np.minimum(values, 0.999) if rounding is Rounding.TFL2 else values
    if count > 1 and rng.random() < 0.3:
        values[0] = 0
    made = make_requant(values, rounding, bits)
    # TOSA's shifts start at 2.
    assert (made.shift[made.multiplier > 0] >= 2).all()
    return Requant(made.multiplier, np.where(made.multiplier == 0, 31, made.shift).astype(np.int8), rounding)
