# SPDX-License-Identifier: Apache-2.0
"""Softmax and normalisation of integers: sums that are exact in any order, reciprocals from tables (`docs/numerics.md` section 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..requant import apply_requant, joined_scale, round_shift
from ..types import Array, Requant
from .quant import interpolate

#: Bits behind the point of a variance, and of a normalised value before its bias is added.
VARIANCE_BITS, SUM_BITS = 14, 6


def _table(function: Callable[[Array], Array], first: int) -> Array:
    """513 entries at 0, 128, …, 65536, constant before `first`."""
    points = np.maximum(np.arange(513) * 128, first).astype(np.float64)
    return np.minimum(np.rint(function(points)), 32767).astype(np.int16)


#: 2^30 / w for w in [2^15, 2^16], and 2^21 / sqrt(w) for w in [2^14, 2^16].
RECIPROCAL: Array = _table(lambda w: 2.0**30 / w, 1 << 15)
RECIPROCAL_ROOT: Array = _table(lambda w: 2.0**21 / np.sqrt(w), 1 << 14)


def leading_zeros(values: Array) -> Array:
    """Zeros above the highest one in 32 bits; values are below 2^31 and not negative."""
    return 32 - np.frexp(values.astype(np.float64))[1].astype(np.int64)


def reciprocal(values: Array, fraction: int = 0) -> Array:
    """About 2^(29 + fraction) / v for v in [2^15 - 1, 2^31), at most 2^15 - 1."""
    shift = leading_zeros(values) - 1
    found = interpolate(RECIPROCAL, ((values << shift) >> 15) - 32768)
    return np.minimum(((found << shift) + (1 << (15 - fraction))) >> (16 - fraction), 32767)


def normaliser(values: Array) -> tuple[Array, Array]:
    """1 / v as multiplier and shift, for v in [1, 2^31): `multiplier / 2^shift`, multiplier in [2^30, 2^31)."""
    zeros = leading_zeros(values) - 1
    return interpolate(RECIPROCAL, ((values << zeros) >> 15) - 32768) << 16, 61 - zeros


def reciprocal_root(values: Array) -> Array:
    """About 2^28.5 / sqrt(v) for v in [1, 2^31)."""
    half = (leading_zeros(values) - 1) >> 1
    found = interpolate(RECIPROCAL_ROOT, ((values << 2 * half) >> 15) - 32768)
    return found << half


def softmax_integers(x: Array, axis: int, table: Array, fraction: int, requant: Requant) -> Array:
    """R(e / sum(e)) along `axis`, with e = table[255 + x - max(x)]."""
    powers = table[x - x.max(axis, keepdims=True) + 255].astype(np.int64)
    return apply_requant(powers * reciprocal(powers.sum(axis, keepdims=True), fraction), requant)


def attention_integers(scores: Array, values: Array, table: Array, requant: Requant) -> Array:
    """R(p . v / sum(p)) over the last axis of `scores`, with p = table[255 + s - max(s)] + 128; one scale for each row."""
    powers = table[scores - scores.max(-1, keepdims=True) + 255].astype(np.int64) + 128
    multiplier, shift = joined_scale(*normaliser(powers.sum(-1, keepdims=True)), requant)
    total = np.matmul(powers.astype(np.float64), values.astype(np.float64)).astype(np.int64)
    return round_shift(total * multiplier, shift, requant.rounding)


def centred_rows(x: Array, fraction: int, mean: Requant) -> Array:
    """x - mean(x) along the last axis, with `fraction` bits behind the point."""
    return (x << fraction) - apply_requant(x.sum(-1, keepdims=True), mean)


def variances(x: Array, whole: Requant, square: Requant, rest: Requant) -> Array:
    """Mean square distance from the mean along the last axis: that from the nearest integer, less the square of what is left."""
    total, count = x.sum(-1, keepdims=True), x.shape[-1]
    mean = apply_requant(total, whole)
    squares = np.square(x - mean).sum(-1, keepdims=True)
    return apply_requant(squares, square) - apply_requant(np.square(total - count * mean), rest)


def normalised_rows(centred: Array, squares: Array, offset: int, normal: Requant) -> Array:
    """R(c / sqrt(v + offset))."""
    return apply_requant(centred * reciprocal_root(np.clip(squares + offset, 1, 2**31 - 1)), normal)


def scaled_rows(normal: Array, scale: Array, bias: Array | None, requants: tuple[Requant, ...]) -> Array:
    """R(t * scale), or R1(R(t * scale) + bias); t and inner results are cut to i16."""
    scaled = apply_requant(_i16(normal) * scale, requants[0])
    return scaled if bias is None else apply_requant(_i16(scaled) + bias, requants[1])


def _i16(values: Array) -> Array:
    return np.clip(values, -32768, 32767)
