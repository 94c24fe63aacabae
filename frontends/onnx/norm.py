# SPDX-License-Identifier: Apache-2.0
"""Normalisation, softmax and reductions."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Value

from .node import Node, Unsupported, importer


@importer("BatchNormalization")
def batch_norm(node: Node) -> Value:
    """BatchNormalization 7, 9, 14, 15 in inference."""
    if node.attr("training_mode", 0) or (node.opset >= 7 and node.attr("spatial", 1) == 0):
        raise Unsupported("training mode and non-spatial statistics")
    return node.emit("batch_norm", *(node.operand(i) for i in range(5)), epsilon=float(node.attr("epsilon", 1e-5)))


@importer("InstanceNormalization")
def instance_norm(node: Node) -> Value:
    """InstanceNormalization 6, 22."""
    return node.emit("instance_norm", *(node.operand(i) for i in range(3)), epsilon=float(node.attr("epsilon", 1e-5)))


@importer("LayerNormalization")
def layer_norm(node: Node) -> Value:
    """LayerNormalization 17."""
    return node.emit("layer_norm", node.operand(0), node.operand(1), node.optional(2),
                     axis=int(node.attr("axis", -1)), epsilon=float(node.attr("epsilon", 1e-5)))


@importer("RMSNormalization")
def rms_norm(node: Node) -> Value:
    """RMSNormalization 23."""
    return node.emit("rms_norm", node.operand(0), node.operand(1), axis=int(node.attr("axis", -1)),
                     epsilon=float(node.attr("epsilon", 1e-5)))


@importer("GroupNormalization")
def group_norm(node: Node) -> Value:
    """GroupNormalization 21 (scale and bias per channel); 18 had them per group."""
    x, scale, bias = node.operand(0), node.operand(1), node.operand(2)
    groups = int(node.attr("num_groups"))
    if node.opset < 21:
        repeats = x.shape[1] // groups
        scale, bias = (
            node.emit("reshape", node.emit("expand", node.emit("reshape", v, shape=(groups, 1)), shape=(groups, repeats)),
                      shape=(x.shape[1],))
            for v in (scale, bias)
        )
    return node.emit("group_norm", x, scale, bias, groups=groups, epsilon=float(node.attr("epsilon", 1e-5)))


@importer("Softmax", "LogSoftmax")
def softmax(node: Node) -> Value:
    """Softmax and LogSoftmax; before opset 13 all axes from `axis` on count as one."""
    name = "softmax" if node.op_type == "Softmax" else "log_softmax"
    x = node.operand(0)
    if node.opset >= 13:
        return node.emit(name, x, axis=int(node.attr("axis", -1)))
    axis = int(node.attr("axis", 1)) % max(1, x.type.rank)
    if axis == x.type.rank - 1:
        return node.emit(name, x, axis=axis)
    flat = node.emit("reshape", x, shape=(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    return node.emit("reshape", node.emit(name, flat, axis=1), shape=x.shape)


_REDUCTIONS = {
    "ReduceSum": "reduce_sum", "ReduceMean": "reduce_mean", "ReduceMax": "reduce_max", "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod", "ReduceL2": "reduce_l2",
}  # fmt: skip


@importer(*_REDUCTIONS)
def reduction(node: Node) -> Value:
    """Reductions: axes are an attribute up to opset 12 (ReduceSum) or 17 (the others), then an input."""
    x = node.operand(0)
    axes = node.ints("axes", 1)
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return x
        axes = tuple(range(x.type.rank))
    return node.emit(_REDUCTIONS[node.op_type], x, axes=tuple(a % x.type.rank for a in axes),
                     keepdims=bool(node.attr("keepdims", 1)))


@importer("ArgMax")
def argmax(node: Node) -> Value:
    """ArgMax 1 to 13; only the first of equal maxima."""
    if node.attr("select_last_index", 0):
        raise Unsupported("select_last_index=1")
    return node.emit("argmax", node.operand(0), axis=int(node.attr("axis", 0)), keepdims=bool(node.attr("keepdims", 1)))


@importer("CumSum")
def cumsum(node: Node) -> Value:
    """CumSum 11, 14."""
    axis = node.constant(1)
    if axis is None or node.attr("exclusive", 0) or node.attr("reverse", 0):
        raise Unsupported("exclusive or reverse")
    return node.emit("cumsum", node.operand(0), axis=int(axis))
