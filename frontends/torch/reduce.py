# SPDX-License-Identifier: Apache-2.0
"""Reductions."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .importer import Node, Unsupported, importer

_NAMES = {
    "sum": "reduce_sum", "mean": "reduce_mean", "amax": "reduce_max", "amin": "reduce_min", "max": "reduce_max",
    "min": "reduce_min", "prod": "reduce_prod",
}  # fmt: skip


def _axes(node: Node, rank: int) -> tuple[int, ...]:
    """The reduced axes; none given means all."""
    given = node.arg("dim")
    given = [given] if isinstance(given, int) else given
    return tuple(d % rank for d in given) if given else tuple(range(rank))


@importer("sum", "mean", "amax", "amin", "prod", "max.default", "min.default")
def reduction(node: Node) -> Value:
    """Over some axes, or all."""
    x = node.tensor("self")
    name = node.op.removeprefix("aten::")
    x = node.cast(x, node.dtype) if name in ("sum", "mean", "prod") else x
    if x.type.rank == 0:
        return x
    return node.emit(_NAMES[name], x, axes=_axes(node, x.type.rank), keepdims=bool(node.arg("keepdim", False)))


@importer("max.dim", "min.dim")
def extreme(node: Node) -> list[Value]:
    """Extreme values along an axis; for the maximum, also where it stands."""
    x, keep = node.tensor("self"), bool(node.arg("keepdim"))
    axis = node.arg("dim") % x.type.rank
    name = node.op.removeprefix("aten::")
    values = node.emit(_NAMES[name], x, axes=(axis,), keepdims=keep)
    return [values, node.emit("argmax", x, axis=axis, keepdims=keep)] if name == "max" else [values]


@importer("max.other", "min.other")
def elementwise_extreme(node: Node) -> Value:
    """Larger or smaller of two tensors."""
    return node.emit(
        node.op.removeprefix("aten::"), node.operand("self", node.dtype), node.operand("other", node.dtype)
    )


@importer("argmax")
def argmax(node: Node) -> Value:
    """Position of the first maximum, along an axis or of all elements."""
    x, axis, keep = node.tensor("self"), node.arg("dim"), bool(node.arg("keepdim"))
    if axis is not None:
        return node.emit("argmax", x, axis=axis % x.type.rank, keepdims=keep)
    found = node.emit("argmax", node.reshape(x, (math.prod(x.shape),)), axis=0, keepdims=False)
    return node.reshape(found, node.shape)


@importer("cumsum")
def cumsum(node: Node) -> Value:
    """Running sum along an axis."""
    x = node.cast(node.tensor("self"), node.dtype)
    return node.emit("cumsum", x, axis=node.arg("dim") % x.type.rank)


@importer("linalg_vector_norm")
def vector_norm(node: Node) -> Value:
    """The Euclidean and the sum norm."""
    x, order = node.tensor("self"), node.arg("ord")
    axes, keep = _axes(node, x.type.rank), bool(node.arg("keepdim"))
    if order == 2:
        return node.emit("reduce_l2", x, axes=axes, keepdims=keep)
    if order == 1:
        return node.emit("reduce_sum", node.emit("abs", x), axes=axes, keepdims=keep)
    raise Unsupported(f"the norm of order {order}")


@importer("var.correction", "var.dim", "std.correction", "std.dim", "var_mean.correction")
def variance(node: Node) -> Value | list[Value]:
    """Mean of squared differences from the mean, times n / (n - correction)."""
    x = node.tensor("self")
    axes, keep = _axes(node, x.type.rank), bool(node.arg("keepdim"))
    correction = node.arg("correction")
    if correction is None:
        correction = int(bool(node.arg("unbiased", True)))
    count = math.prod(x.shape[a] for a in axes)
    if count <= correction:
        raise Unsupported(f"the variance of {count} elements with correction {correction}")
    mean = node.emit("reduce_mean", x, axes=axes, keepdims=True)
    centred = node.emit("sub", x, mean)
    y = node.emit("reduce_mean", node.emit("mul", centred, centred), axes=axes, keepdims=keep)
    if correction:
        y = node.emit("mul", y, node.const(count / (count - correction), y.dtype))
    if node.op == "aten::std":
        y = node.emit("sqrt", y)
    return [y, node.reshape(mean, y.shape)] if node.op == "aten::var_mean" else y


@importer("any", "all")
def truth(node: Node) -> Value:
    """True if any (all) are: the maximum (minimum) of 0 and 1."""
    x = node.cast(node.cast(node.tensor("self"), DType.BOOL), DType.I32)
    name = "reduce_max" if node.op == "aten::any" else "reduce_min"
    y = node.emit(name, x, axes=_axes(node, x.type.rank), keepdims=bool(node.arg("keepdim", False)))
    return node.emit("cast", y, dtype=DType.BOOL)
