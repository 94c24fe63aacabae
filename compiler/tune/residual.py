# SPDX-License-Identifier: Apache-2.0
"""What measurements teach about estimates: ridge regression of log(measured / estimated) and of failure on a plan's features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gadl.compiler.ir.types import Array

#: Weight of the penalty, in samples.
RIDGE = 2.0


class Residual:
    """Two linear models on standardised features; before there are samples both say nothing."""

    def __init__(self) -> None:
        self._mean: Array | None = None
        self._scale: Array | None = None
        self._ratio: Array | None = None
        self._failure: Array | None = None

    def fit(self, features: Sequence[Sequence[float]], ratios: Sequence[float | None]) -> None:
        """`ratios`: log(measured / estimated) of each plan, None where it failed."""
        known = [i for i, ratio in enumerate(ratios) if ratio is not None]
        if len(known) < 4:
            return
        x = np.asarray(features, np.float64)
        self._mean, spread = x.mean(0), x.std(0)
        self._scale = np.where(spread > 1e-9, spread, np.inf)
        z = self._expand(x)
        self._ratio = _ridge(z[known], np.asarray([ratios[i] for i in known], np.float64))
        self._failure = _ridge(z, np.asarray([float(r is None) for r in ratios]))

    def ratio(self, features: Sequence[float]) -> float:
        """Expected log(measured / estimated)."""
        return 0.0 if self._ratio is None else float((self._expand(np.asarray([features], np.float64)) @ self._ratio)[0])

    def failure(self, features: Sequence[float]) -> float:
        """Expected part of such plans that fail, 0 .. 1."""
        if self._failure is None:
            return 0.0
        return float(np.clip((self._expand(np.asarray([features], np.float64)) @ self._failure)[0], 0, 1))

    def _expand(self, x: Array) -> Array:
        z = (x - self._mean) / self._scale
        return np.hstack([np.ones((len(z), 1)), np.clip(z, -4, 4)])


def _ridge(x: Array, y: Array) -> Array:
    """The penalised least squares solution; the constant term is free."""
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    return np.linalg.solve(x.T @ x + penalty, x.T @ y)
