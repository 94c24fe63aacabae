# SPDX-License-Identifier: Apache-2.0
"""Reductions over axes and along them."""

from __future__ import annotations

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .node import Node, Unsupported, importer

_REDUCTIONS = {
    "ReduceSum": "reduce_sum", "ReduceMean": "reduce_mean", "ReduceMax": "reduce_max", "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod", "ReduceL2": "reduce_l2",
}  # fmt: skip


def _axes(node: Node, x: Value) -> tuple[int, ...]:
    """Axes: an attribute up to opset 12 (ReduceSum) or 17 (the others), then an input; none means all, or nothing."""
    axes = node.ints("axes", 1)
    if not axes:
        return () if node.attr("noop_with_empty_axes", 0) else tuple(range(x.type.rank))
    if any(not -x.type.rank <= a < x.type.rank for a in axes):
        raise Unsupported(f"axes {axes} of rank {x.type.rank}")
    return tuple(a % x.type.rank for a in axes)


@importer(*_REDUCTIONS)
def reduction(node: Node) -> Value:
    """Reductions that the IR has."""
    x = node.operand(0)
    axes, keep = _axes(node, x), bool(node.attr("keepdims", 1))
    if x.dtype is DType.BOOL:
        return node.emit("cast", node.emit(_REDUCTIONS[node.op_type], node.emit("cast", x, dtype=DType.I32), axes=axes, keepdims=keep),
                         dtype=DType.BOOL)  # fmt: skip
    return node.emit(_REDUCTIONS[node.op_type], x, axes=axes, keepdims=keep) if axes or node.op_type == "ReduceL2" else x


@importer("ReduceL1", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def composed_reduction(node: Node) -> Value:
    """Reductions that are a sum of something."""
    x, keep = node.operand(0), bool(node.attr("keepdims", 1))
    axes = _axes(node, x)
    match node.op_type:
        case "ReduceL1":
            return node.emit("reduce_sum", node.emit("abs", x), axes=axes, keepdims=keep)
        case "ReduceSumSquare":
            return node.emit("reduce_sum", node.emit("mul", x, x), axes=axes, keepdims=keep)
        case "ReduceLogSum":
            return node.emit("log", node.emit("reduce_sum", x, axes=axes, keepdims=keep))
    # log(sum(exp(x))) = m + log(sum(exp(x - m))), where no power overflows.
    top = node.emit("reduce_max", x, axes=axes, keepdims=True)
    power = node.emit("exp", node.emit("sub", x, top))
    y = node.emit("add", node.emit("log", node.emit("reduce_sum", power, axes=axes, keepdims=True)), top)
    return y if keep else node.emit("reshape", y, shape=tuple(d for i, d in enumerate(x.shape) if i not in axes))


@importer("GlobalLpPool")
def global_lp_pool(node: Node) -> Value:
    """GlobalLpPool 2 with p = 2."""
    x = node.operand(0)
    if node.attr("p", 2) != 2:
        raise Unsupported(f"p={node.attr('p')}")
    return node.emit("reduce_l2", x, axes=tuple(range(2, x.type.rank)), keepdims=True)


@importer("ArgMax", "ArgMin")
def argmax(node: Node) -> Value:
    """ArgMax and ArgMin 1 to 13; the last of equal values is the first of the mirrored axis."""
    x, keep = node.operand(0), bool(node.attr("keepdims", 1))
    axis = int(node.attr("axis", 0)) % x.type.rank
    if node.op_type == "ArgMin":
        if not x.dtype.is_float:
            raise Unsupported("integers")
        x = node.emit("neg", x)
    if not node.attr("select_last_index", 0):
        return node.emit("argmax", x, axis=axis, keepdims=keep)
    found = node.emit("argmax", _mirrored(node, x, axis), axis=axis, keepdims=keep)
    return node.emit("sub", node.const(x.shape[axis] - 1, DType.I64), found)


@importer("CumSum")
def cumsum(node: Node) -> Value:
    """CumSum 11, 14; `reverse` sums the mirrored axis, `exclusive` shifts the result by one."""
    x, given = node.operand(0), node.constant(1)
    if given is None:
        raise Unsupported("the axis is missing")
    axis, rank = int(given.item()) % x.type.rank, x.type.rank
    reverse = bool(node.attr("reverse", 0))
    x = _mirrored(node, x, axis) if reverse else x
    y = node.emit("cumsum", x, axis=axis)
    if node.attr("exclusive", 0):
        pads = tuple(int(i == axis) for i in range(rank)) + (0,) * rank
        y = node.emit("pad", y, pads=pads, mode="constant", value=0.0)
        y = node.emit("slice", y, starts=(0,) * rank, sizes=x.shape, steps=(1,) * rank)
    return _mirrored(node, y, axis) if reverse else y


def _mirrored(node: Node, x: Value, axis: int) -> Value:
    """x with one axis backwards."""
    starts = tuple(d - 1 if i == axis else 0 for i, d in enumerate(x.shape))
    steps = tuple(-1 if i == axis else 1 for i in range(x.type.rank))
    return node.emit("slice", x, starts=starts, sizes=x.shape, steps=steps)
