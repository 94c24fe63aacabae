# SPDX-License-Identifier: Apache-2.0
"""How well predicted cycles agree with measured ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gadl.compiler.ir.types import Array

from .model import Agreement


def ranks(values: Array) -> Array:
    """Ranks from 0; equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count) - 1
    return (last - (count - 1) / 2)[place.reshape(-1)]


def spearman(a: Array, b: Array) -> float | None:
    """Spearman's rank correlation; None for fewer than two values or where one side is constant."""
    if len(a) < 2:
        return None
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / norm if norm else None


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> Agreement:
    """The score over all rows that take cycles."""
    p, m = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    p, m = p[m > 0], m[m > 0]
    if not len(m):
        return Agreement(0, None, None, None)
    return Agreement(len(m), float(np.median(np.abs(p - m) / m)), float(np.abs(p - m).sum() / m.sum()), spearman(p, m))
