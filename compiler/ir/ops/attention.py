# SPDX-License-Identifier: Apache-2.0
"""Attention of integers: scores, their softmax and its product with values as one op (`docs/numerics.md` section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, Operand, OpError, register
from ..requant import apply_requant
from ..types import Array, Rounding, TensorType
from .common import broadcast, centred, finish_integer, given
from .integer_norm import attention_integers

#: Longest rows of scores: 255 * 255 * n must fit 32 bits. The shift of the result's requantisation, so that no row's is above 62.
MOST_KEYS, MOST_SHIFT = 32768, 38


@register
class Attention(OpDef):
    """softmax(q . k^T + mask) . v of i8: q[..., S, D], k[..., N, D], v[..., N, E], mask[S, N] -> [..., S, E], batch axes broadcast.

    `table` holds 256 powers less 128, i8, by score less its row's largest from -255 to 0. `requant` brings products to scores, whose
    zero point is `zero`, then the mask to scores, where there is one, and last values to the result, divided by the sum of the powers.
    """

    name = "attention"
    operands = (Operand("q"), Operand("k"), Operand("v"), Operand("mask", optional=True))
    attrs = (Attr("table", AttrKind.TENSOR), Attr("zero", AttrKind.INT), Attr("requant", AttrKind.REQUANTS))

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        q, k, v = (given(types, index).static_shape for index in range(3))
        if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2] or not 1 <= k[-2] <= MOST_KEYS:
            raise OpError(f"queries {q}, keys {k} and values {v} do not fit")
        if attrs["table"].shape != (256,) or attrs["table"].dtype != np.int8:
            raise OpError("'table' holds 256 i8")
        mask = types[3] if len(types) > 3 else None
        if len(attrs["requant"]) != 2 + (mask is not None):
            raise OpError("'requant' has one entry for scores, one for a mask, and one for the result")
        last = attrs["requant"][-1]
        if last.rounding in (Rounding.F32, Rounding.TFL2) or last.multiplier.min() < 1 << 30 or last.shift.max() > MOST_SHIFT:
            raise OpError("the result's scale is out of range")
        lead = broadcast(q[:-2], k[:-2], v[:-2])
        if mask is not None and (mask.static_shape[-2:] != (q[-2], k[-2]) or mask.element_count != q[-2] * k[-2]):
            raise OpError(f"a mask of shape {mask.shape} does not fit {q[-2]} rows of {k[-2]} scores")
        return [TensorType(given(types, 0).dtype, (*lead, q[-2], v[-1]))]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        requants, (low, high) = op.attrs["requant"], op.inputs[0].dtype.range
        q, k, v = (centred(op, inputs, index) for index in range(3))
        products = np.matmul(q.astype(np.float64), k.astype(np.float64).swapaxes(-1, -2)).astype(np.int64)
        scores = apply_requant(products, requants[0]) + op.attrs["zero"]
        if op.operand(3) is not None:
            scores = scores + apply_requant(centred(op, inputs, 3), requants[1])
        return [finish_integer(op, attention_integers(np.clip(scores, low, high), v, op.attrs["table"], requants[-1]))]

