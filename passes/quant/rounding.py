# SPDX-License-Identifier: Apache-2.0
"""Rounding of weights: to the nearest integer, and so that the errors of a row of weights cancel in what it computes.

All arrays are f64. `weights[G, O, K]` are G groups of O rows with K weights each, `scales[G, O]` the step of each row, and `gram[G, K, K]`
the sum of x xT over operands x. Second-order rounding is GPTQ (Frantar et al., 2022, algorithm 1, columns in order of falling diagonal).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.types import Array

#: Part of the mean of the diagonal that is added to it: of operands that calibration hardly saw nothing is known.
DAMPING = 0.01
#: Columns whose errors reach the others at once.
BLOCK = 128


def nearest(weights: Array, scales: Array, reach: int) -> Array:
    """The nearest integers in `[-reach, reach]`; f64[G, O, K]."""
    return np.clip(np.rint(weights / scales[..., None]), -reach, reach)


@dataclass(frozen=True)
class Factor:
    """Columns in their order, `[G, K]`, and the upper Cholesky factor of the inverse of their gram, `[G, K, K]`."""

    order: Array
    upper: Array


def inverse_factor(gram: Array) -> Factor:
    """What second-order rounding needs to know of operands."""
    order = np.argsort(-np.einsum("gkk->gk", gram), 1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(gram, order[:, :, None], 1), order[:, None, :], 2)
    inverse = np.linalg.inv(damped(ordered, DAMPING))
    return Factor(order, np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2).swapaxes(1, 2))


def second_order(weights: Array, factor: Factor, scales: Array, reach: int) -> Array:
    """Integers in `[-reach, reach]` for which the sum over operands of (rounded - weights) . x squared is small; f64[G, O, K].

    Column by column: what rounding a weight adds to a row's result is taken back, as far as can be, by those that are not rounded yet.
    """
    groups, _, count = weights.shape
    order, upper = factor.order, factor.upper
    left = np.take_along_axis(weights, order[:, None, :], 2) / scales[..., None]
    rounded = np.empty_like(left)
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        part, errors = left[:, :, first:last].copy(), np.empty((groups, left.shape[1], last - first))
        for k in range(last - first):
            found = np.clip(np.rint(part[:, :, k]), -reach, reach)
            rounded[:, :, first + k] = found
            errors[:, :, k] = (part[:, :, k] - found) / upper[:, None, first + k, first + k]
            part[:, :, k + 1 :] -= errors[:, :, k, None] * upper[:, None, first + k, first + k + 1 : last]
        left[:, :, last:] -= errors @ upper[:, first:last, last:]
    result = np.empty_like(rounded)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], rounded.shape), rounded, 2)
    return result


def regression(gram: Array, products: Array, damping: float) -> Array:
    """The change of weights that explains targets best: solves `(gram + damping) d = products[G, K, O]`; f64[G, O, K]."""
    return np.linalg.solve(damped(gram, damping), products).swapaxes(1, 2)


def damped(gram: Array, part: float) -> Array:
    """The matrix with a part of its diagonal's mean added to the diagonal."""
    mean = np.einsum("gkk->g", gram) / gram.shape[1]
    return gram + np.maximum(part * mean, 1e-12)[:, None, None] * np.eye(gram.shape[1])
