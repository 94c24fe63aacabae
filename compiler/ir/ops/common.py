# SPDX-License-Identifier: Apache-2.0
"""What the declarations share: shape checks, zero points, the integer and half-precision ends of an op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpError
from ..requant import apply_requant
from ..types import Array, DType, Requant, TensorType

CLAMP = Attr("clamp", AttrKind.FLOATS, None, length=2)
REQUANT = Attr("requant", AttrKind.REQUANT, None)


def given(types: Sequence[TensorType | None], index: int) -> TensorType:
    """Operand type `index`; `OpError` when it is absent."""
    found = types[index] if index < len(types) else None
    if found is None:
        raise OpError(f"operand {index} is missing")
    return found


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape; `OpError` when there is none."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*shapes))
    except ValueError:
        raise OpError(f"shapes {', '.join(map(str, shapes))} do not broadcast") from None


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis; `OpError` when out of range."""
    if not -rank <= axis < rank:
        raise OpError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def zero_point(op: Op, index: int) -> int:
    """Zero point of operand `index`."""
    value = op.operands[index]
    return value.quant.zero_point if value is not None and value.quant is not None else 0


def result_zero_point(op: Op) -> int:
    """Zero point of the result."""
    quant = op.results[0].quant
    return quant.zero_point if quant is not None else 0


def centred(op: Op, inputs: Sequence[Array | None], index: int) -> Array:
    """Operand `index` as i64 minus its zero point."""
    return array(inputs, index).astype(np.int64) - zero_point(op, index)


def array(inputs: Sequence[Array | None], index: int) -> Array:
    """Operand `index`, which must be present."""
    found = inputs[index]
    if found is None:
        raise OpError(f"operand {index} is missing")
    return found


def finish_integer(op: Op, total: Array) -> Array:
    """`clamp(zero point + total)` in the result's type."""
    dtype = op.results[0].dtype
    low, high = op.attrs.get("clamp") or dtype.range
    return np.clip(total + result_zero_point(op), int(low), int(high)).astype(dtype.numpy)


def finish_float(op: Op, total: Array) -> Array:
    """`clamp(total)` rounded to the result's type."""
    bounds = op.attrs.get("clamp")
    if bounds is not None:
        total = np.clip(total, np.float32(bounds[0]), np.float32(bounds[1]))
    return np.asarray(total).astype(op.results[0].dtype.numpy)


def requant_of(op: Op) -> Requant | None:
    """The requantisation of an op in its integer form."""
    found: Any = op.attrs.get("requant")
    return found if isinstance(found, Requant) else None


def requantised(op: Op, total: Array, axis: int | None) -> Array:
    """`R(total)` with the op's requantisation, or `total` where it has none."""
    requant = requant_of(op)
    return total if requant is None else apply_requant(total, requant, axis)


def wide(values: Array) -> Array:
    """Half-precision arrays widened to f32, others as they are."""
    return values.astype(np.float32) if DType.of(values.dtype) in (DType.F16, DType.BF16) else values
