# SPDX-License-Identifier: Apache-2.0
"""Softmax and normalisation over rows in simpler ops, for targets without one of their own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import Array

#: The most rows that are channels; of more, the first axis stays by itself.
MOST_ROWS = 4063


def decompose_rows(graph: Graph, names: frozenset[str] = frozenset()) -> bool:
    """`softmax(x)  -->  e / sum(e)` with `e = exp(x - max(x))`; `layer_norm(x)  -->  c / sqrt(mean(c * c) + eps) * g + b` with
    `c = x - mean(x)`; `rms_norm` likewise with `c = x`. All by definition, for the ops of `names` over the last axis.

    Rows are channels of one row of pixels meanwhile, `[1, R, 1, n]`, so that reductions go over pixels and each channel has one number.
    A softmax that the graph returns stays, since 8 bits are few for what users read, and so does one of a sum: that may mask, and its
    range is cut for a softmax only (`passes/quant/masks.py`).
    """
    changed = False
    outputs = {id(v) for v in graph.outputs}
    for op in list(graph.ops):
        rows = _rows(op) if op.name in names else None
        if rows is None or (op.name == "softmax" and (id(op.result) in outputs or _may_mask(op.inputs[0]))):
            continue
        build = Builder.before(graph, op)
        make = _softmax if op.name == "softmax" else _normalised
        made = build("reshape", make(graph, build, op, build("reshape", op.inputs[0], shape=rows)), shape=op.inputs[0].shape)
        if op.name != "softmax":
            made = _affine(graph, build, op, made)
        made.name, op.result.name = op.result.name, made.name
        graph.replace_uses(op.result, made)
        changed = True
    return bool(graph.remove_dead_ops()) or changed


def _rows(op: Op) -> tuple[int, ...] | None:
    """The shape in which rows are channels; None where it is not rows that an op works on."""
    shape = op.inputs[0].shape
    if len(shape) < 2 or op.attrs["axis"] % len(shape) != len(shape) - 1 or any(v is not None and v.data is None for v in op.operands[1:]):
        return None
    rows = math.prod(shape[:-1])
    if rows <= MOST_ROWS:
        return (1, rows, 1, shape[-1])
    return (shape[0], rows // shape[0], 1, shape[-1]) if rows // shape[0] <= MOST_ROWS else None


def _may_mask(scores: Value) -> bool:
    while scores.producer is not None and scores.producer.name in ("reshape", "transpose"):
        scores = scores.producer.inputs[0]
    return scores.producer is not None and scores.producer.name in ("add", "sub", "where")


def _reduced(build: Builder, name: str, x: Value) -> Value:
    return build(name, x, axes=(2, 3), keepdims=True)


def _softmax(graph: Graph, build: Builder, op: Op, x: Value) -> Value:
    """The sum is 1 at least, which the table of its reciprocal is to know."""
    powers = build("exp", build("sub", x, _reduced(build, "reduce_max", x)))
    total = build("max", _reduced(build, "reduce_sum", powers), _number(graph, op, 1))
    return build("mul", powers, build("reciprocal", total))


def _normalised(graph: Graph, build: Builder, op: Op, x: Value) -> Value:
    if op.name == "layer_norm":
        x = build("sub", x, _reduced(build, "reduce_mean", x))
    mean = build("max", _reduced(build, "reduce_mean", build("mul", x, x)), _number(graph, op, 0))
    return build("mul", x, build("rsqrt", build("add", mean, _number(graph, op, op.attrs["epsilon"]))))


def _number(graph: Graph, op: Op, value: float) -> Value:
    return graph.constant(np.full((), value, op.result.dtype.numpy), op.name)


def _affine(graph: Graph, build: Builder, op: Op, normal: Value) -> Value:
    """Scale and bias: in the weights of the products that alone read the result, or as ops."""
    scale, bias = (None if v is None else v.data for v in (*op.operands[1:], None, None)[:2])
    if op.result.users and all(_takes_affine(user, op.result) for user in op.result.users) and not any(op.result is v for v in graph.outputs):
        for user in op.result.users:
            _into_product(graph, user, scale, bias)
        return normal
    for data, name in ((scale, "mul"), (bias, "add")):
        if data is not None:
            normal = build(name, normal, graph.constant(data, f"{op.result.name}.{name}"))
    return normal


def _takes_affine(user: Op, value: Value) -> bool:
    constant: Callable[[Value | None], bool] = lambda v: v is None or v.data is not None
    return user.name == "linear" and user.operand(0) is value and constant(user.operand(1)) and constant(user.operand(2)) and user.operand(3) is None


def _into_product(graph: Graph, user: Op, scale: Array | None, bias: Array | None) -> None:
    """`(x * g + b) . W^T + c  -->  x . (W * g)^T + (W . b + c)`, in f64 and rounded once."""
    weights, added = user.inputs[1], user.operand(2)
    real = np.asarray(weights.data, np.float64)
    dtype = user.result.dtype.numpy
    if bias is not None:
        total = real @ np.broadcast_to(bias.astype(np.float64), real.shape[1:])
        total = total if added is None or added.data is None else total + added.data
        user.set_operand(2, graph.constant(total.astype(dtype), f"{user.result.name}.bias"))
    if scale is not None:
        user.set_operand(1, graph.constant((real * scale).astype(dtype), weights.name))
