# SPDX-License-Identifier: Apache-2.0
"""Requantisation on numpy arrays, exactly as `docs/numerics.md` section 2 defines it."""

from __future__ import annotations

import math

import numpy as np

from .types import Array, Requant, Rounding


def quantize_multiplier(ratio: float, bits: int = 31) -> tuple[int, int]:
    """Multiplier and shift of a positive real ratio: `ratio ~ multiplier / 2**shift`, multiplier in [2^(bits-1), 2^bits).

    `ValueError` when the ratio is too large for a shift of at least 1.
    """
    if ratio == 0:
        return 0, 1
    if not (ratio > 0 and math.isfinite(ratio)):
        raise ValueError(f"{ratio} is not a positive ratio")
    mantissa, exponent = math.frexp(ratio)
    multiplier = int(np.rint(mantissa * (1 << bits)))
    if multiplier == 1 << bits:
        multiplier, exponent = multiplier >> 1, exponent + 1
    shift = bits - exponent
    if shift < 1:
        raise ValueError(f"ratio {ratio} is too large")
    return (multiplier, shift) if shift <= 62 else (0, 1)


def make_requant(ratios: Array | float, rounding: Rounding = Rounding.UP, bits: int = 31) -> Requant:
    """The requantisation by one ratio or by one ratio per channel; `ValueError` when one is out of range."""
    values = np.atleast_1d(np.asarray(ratios, np.float64))
    if rounding is Rounding.F32:
        return Requant(values.astype(np.float32).view(np.int32), np.ones(len(values), np.int8), rounding)
    pairs = [quantize_multiplier(float(v), bits) for v in values]
    if rounding is Rounding.TFL2 and any(m and s < 31 for m, s in pairs):
        raise ValueError(f"ratio {values.max()} is too large for rounding 'tfl2'")
    return Requant(np.array([p[0] for p in pairs], np.int32), np.array([p[1] for p in pairs], np.int8), rounding)


def apply_requant(values: Array, requant: Requant, axis: int | None = None) -> Array:
    """`R(values)` as i64, without zero point and clamp.

    values: integers of magnitude below 2^32 (31-bit multipliers) or 2^47 (15-bit). `axis` is the channel axis of per-channel
    requantisation.
    """
    multiplier = requant.multiplier.astype(np.int64)
    shift = requant.shift.astype(np.int64)
    if requant.per_channel:
        if axis is None:
            raise ValueError("per-channel requantisation needs an axis")
        shape = [1] * values.ndim
        shape[axis] = -1
        multiplier, shift = multiplier.reshape(shape), shift.reshape(shape)
    else:
        multiplier, shift = multiplier.reshape(()), shift.reshape(())
    if requant.rounding is Rounding.F32:
        scale = multiplier.astype(np.int32).view(np.float32)
        return np.asarray(np.rint(values.astype(np.float32) * scale), np.float64).astype(np.int64)
    product = values.astype(np.int64) * multiplier
    return round_shift(product, shift, requant.rounding)


def joined_scale(multiplier: Array, shift: Array, requant: Requant) -> tuple[Array, Array]:
    """Multiplier and shift of the product of two scales, each with a multiplier in [2^30, 2^31); the product's is one too."""
    product = multiplier * int(requant.multiplier[0])
    small = (product + (1 << 30)) >> 31 < 1 << 30
    bits = np.where(small, 30, 31)
    return (product + (1 << (bits - 1))) >> bits, shift + int(requant.shift[0]) - bits


def round_shift(product: Array, shift: Array, rounding: Rounding) -> Array:
    """`product / 2**shift` rounded; i64 arrays, shift >= 1."""
    one = np.int64(1)
    floor = product >> shift
    rest = product - (floor << shift)
    half = one << (shift - 1)
    match rounding:
        case Rounding.UP:
            return floor + (rest >= half)
        case Rounding.FLOOR:
            return floor
        case Rounding.ZERO:
            return floor + ((product < 0) & (rest != 0))
        case Rounding.AWAY:
            return floor + np.where(product >= 0, rest >= half, rest > half)
        case Rounding.EVEN:
            return floor + ((rest > half) | ((rest == half) & ((floor & 1) == 1)))
        case Rounding.TFL2:
            high = np.where(product >= 0, (product + (one << 30)) >> 31, -((-(product + one - (one << 30))) >> 31))
            left = np.maximum(shift - 31, 0)
            low = high >> left
            remainder = high - (low << left)
            point = np.where(left > 0, one << np.maximum(left - 1, 0), 0)
            up = np.where(high >= 0, remainder >= point, remainder > point)
            return np.where(left > 0, low + up, high)
        case _:
            raise ValueError(f"{rounding} is not an integer rounding")
