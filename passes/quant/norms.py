# SPDX-License-Identifier: Apache-2.0
"""Numbers of the integer softmax and normalisation (`docs/numerics.md` section 4) from real scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.ops.integer_norm import SUM_BITS, VARIANCE_BITS
from gadl.compiler.ir.types import Array, Requant

#: Ops that take i8 only, over the last axis; longest axes whose sums fit.
OVER_LAST_AXIS = frozenset({"softmax", "layer_norm", "rms_norm"})
MOST_ELEMENTS = {"softmax": 65535, "layer_norm": 32768, "rms_norm": 32768}
#: A requantisation by one ratio, in the target's rounding.
Rescale = Callable[[float], Requant]


def no_integer_form(op: Op) -> str:
    """Why a softmax or normalisation stays float; the empty string where it has an integer form."""
    rank = op.inputs[0].type.rank
    if rank == 0 or op.attrs["axis"] % rank != rank - 1:
        return "only over the last axis it has an integer form"
    if op.inputs[0].shape[-1] > MOST_ELEMENTS[op.name]:
        return "its sums do not fit 32 bits"
    vectors = op.operands[1:]
    if any(v is not None and (v.data is None or not np.isfinite(v.data).all()) for v in vectors):
        return "its scale or bias is not constant"
    return ""


def softmax_numbers(scale: float, result_scale: float, rescale: Rescale) -> dict[str, Any]:
    """Powers of a difference, with 15 bits behind the point, and the requantisation of powers times 2^(29 + fraction) / sum.

    Where the result's largest number is below 1/2, a sum that is not cut is above 2^16, and its reciprocal has room for more bits.
    """
    fraction = min(15, max(0, math.floor(-math.log2(255 * result_scale) + 1e-6)))
    powers = np.rint(32767 * np.exp(-scale * np.arange(255.0, -1.0, -1.0))).astype(np.int16)
    return {"table": powers, "fraction": fraction, "requant": rescale(2.0 ** (-29 - fraction) / result_scale)}


def norm_numbers(op: Op, scale: float, result_scale: float, rescale: Rescale) -> tuple[dict[str, Any], list[Array]]:
    """Attributes, and scale and bias as i16.

    A normalised value is at most sqrt(n), which leaves the other bits of an i16 behind the point; times its reciprocal root and a
    multiplier of 31 bits it must fit 63.
    """
    count = op.inputs[0].shape[-1]
    half = math.log2(count) / 2
    centred, bits = op.name == "layer_norm", 15 - math.ceil(half)
    fraction = min(7, math.floor(10.85 - half)) if centred else 0
    gain, bias = ((None if v is None or v.data is None else v.data.astype(np.float64)) for v in (*op.operands[1:], None, None)[:2])
    square = 2.0**VARIANCE_BITS / count
    ratios = [2.0**fraction / count, 1 / count, square, square / count] if centred else [square]
    steps = [rescale(ratio) for ratio in ratios]
    attrs: dict[str, Any] = {"offset": int(np.clip(np.rint(op.attrs["epsilon"] / scale**2 * 2.0**VARIANCE_BITS), 0, 1 << 30))}
    if centred:
        attrs["fraction"] = fraction
    vectors: list[Array] = []
    if gain is None and bias is None:
        steps.append(rescale(2.0 ** (-fraction - 21.5) / result_scale))
    else:
        gain = np.broadcast_to(np.ones(1) if gain is None else gain, (count,))
        most = float(np.abs(gain).max()) or 1.0
        extra = 0 if bias is None else SUM_BITS
        steps.append(rescale(2.0 ** (bits - fraction - 21.5)))
        steps.append(rescale(most / 32767 * 2.0 ** (extra - bits) / result_scale))
        vectors.append(np.rint(gain / most * 32767).astype(np.int16))
        if bias is not None:
            wide = np.rint(np.broadcast_to(bias, (count,)) / result_scale * 2.0**SUM_BITS)
            vectors.append(np.clip(wide, -32768, 32767).astype(np.int16))
            steps.append(rescale(2.0**-SUM_BITS))
    return attrs | {"requant": tuple(steps)}, vectors
