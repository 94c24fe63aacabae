# SPDX-License-Identifier: Apache-2.0
"""Weighted ops as matrix products: rows of what the weights of an op multiply, and its weights as a matrix.

A row is one position of the result: `[G, K]` for G groups, K = channels of a group times kernel positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import Array


def groups_of(op: Op) -> int:
    """Groups of channels that do not meet."""
    return int(op.attrs.get("groups", 1))


def matrix_of(op: Op, weights: Array) -> Array:
    """Weights in the op's own layout as `[G, O, K]`."""
    groups = groups_of(op)
    if op.name == "conv_transpose":
        return weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1).swapaxes(1, 2).reshape(groups, weights.shape[1], -1)
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def weights_of(op: Op, matrix: Array) -> Array:
    """`matrix_of` back."""
    shape = op.inputs[1].shape
    if op.name == "conv_transpose":
        groups = groups_of(op)
        return matrix.reshape(groups, shape[1], shape[0] // groups, -1).swapaxes(1, 2).reshape(shape)
    return matrix.reshape(shape)


def positions(op: Op) -> int:
    """Positions of the result in one sample."""
    shape = op.result.shape
    return int(np.prod(shape[:-1] if op.name == "linear" else (shape[0], *shape[2:])))


def results_at(op: Op, values: Array, picked: Array) -> Array:
    """Elements of a tensor of the result's shape at some positions: `[R, G, O]`."""
    groups = groups_of(op)
    if op.name == "linear":
        return values.reshape(-1, values.shape[-1])[picked][:, None, :]
    flat = values.reshape(*values.shape[:2], -1)
    batch, place = np.divmod(picked, flat.shape[2])
    return flat[batch, :, place].reshape(len(picked), groups, -1)


def rows_at(op: Op, x: Array, picked: Array) -> Array:
    """What the weights multiply at some positions: `[R, G, K]` of an operand in which zero is zero."""
    if op.name == "linear":
        return x.reshape(-1, x.shape[-1])[picked][:, None, :]
    space, kernel = op.result.shape[2:], op.inputs[1].shape[2:]
    batch, *at = np.unravel_index(picked, (x.shape[0], *space))
    taps = np.array(list(itertools.product(*(range(k) for k in kernel)))).T
    inside = np.ones((len(picked), taps.shape[1]), np.bool_)
    index: list[Any] = [batch[:, None], slice(None)]
    for axis, (place, tap) in enumerate(zip(at, taps)):
        found, valid = _sources(op, axis, place[:, None], tap[None, :])
        inside &= valid & (found >= 0) & (found < x.shape[2 + axis])
        index.append(np.clip(found, 0, x.shape[2 + axis] - 1))
    # Advanced indices on both sides of the channels come first: [R, T, C].
    rows = np.where(inside[:, :, None], x[tuple(index)], 0)
    groups = groups_of(op)
    return rows.reshape(len(picked), -1, groups, x.shape[1] // groups).transpose(0, 2, 3, 1).reshape(len(picked), groups, -1)


def _sources(op: Op, axis: int, place: Array, tap: Array) -> tuple[Array, Array]:
    """Where along an axis of the operand a tap of a position reads, and whether it reads at all."""
    stride, dilation, pad = op.attrs["strides"][axis], op.attrs["dilations"][axis], op.attrs["pads"][axis]
    if op.name == "conv_transpose":
        whole, rest = np.divmod(place + pad - tap * dilation, stride)
        return whole, rest == 0
    found = place * stride + tap * dilation - pad
    return found, np.ones(found.shape, np.bool_)


def spread(total: int, wanted: int, samples: int, seed: int) -> Sequence[Array]:
    """For each of some samples the sorted positions out of `total` that are looked at: about `wanted` in all, drawn once."""
    each = min(total, -(-wanted // samples))
    rng = np.random.default_rng(seed)
    return [np.arange(total) if each == total else np.sort(rng.choice(total, each, replace=False)) for _ in range(samples)]
