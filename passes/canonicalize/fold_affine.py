# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation and per-channel scale or shift behind a weighted op go into its weights and bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.pattern import only_user, split_operands
from gadl.compiler.ir.types import Array

_WEIGHTED = ("conv", "conv_transpose", "linear")


def decompose_batch_norm(graph: Graph) -> bool:
    """`batch_norm(x, g, b, m, v)  -->  x * k + (b - m * k)` with `k = g / sqrt(v + eps)`: the definition, k computed in f64."""
    changed = False
    for op in [o for o in graph.ops if o.name == "batch_norm"]:
        arrays = [v.data for v in op.inputs[1:]]
        if any(a is None for a in arrays):
            continue
        scale, bias, mean, var = (np.asarray(a, np.float64) for a in arrays)
        factor = scale / np.sqrt(var + op.attrs["epsilon"])
        shape = (-1, *(1,) * (op.result.type.rank - 2))
        dtype = op.result.dtype.numpy
        build = Builder.before(graph, op)
        product = build("mul", op.inputs[0], graph.constant(factor.astype(dtype).reshape(shape), "bn.scale"))
        shift = graph.constant((bias - mean * factor).astype(dtype).reshape(shape), "bn.shift")
        graph.replace_uses(op.result, build("add", product, shift, result=op.result.name))
        graph.erase(op)
        changed = True
    return changed


def fold_affine(graph: Graph) -> bool:
    """`conv(x, w, b) * k  -->  conv(x, w * k, b * k)` and `conv(x, w, b) + c  -->  conv(x, w, b + c)`.

    k and c are constants with one value per output channel (or one for all); quotients and differences likewise. All hold
    because the sum is linear in w and b. A chain is folded in f64 and rounded once.
    """
    changed = False
    for op in list(graph.ops):
        weights, bias = op.operand(1), op.operand(2)
        constant = weights is not None and weights.data is not None and (bias is None or bias.data is not None)
        if op.name not in _WEIGHTED or not constant or op.operand(3) is not None or "clamp" in op.attrs:
            continue
        folded = _Parameters.of(op)
        count = 0
        while _absorb(graph, op, folded):
            count += 1
        if count:
            folded.store(graph, op)
            changed = True
    return changed


@dataclass
class _Parameters:
    """Weights and bias (None where the op has none) in f64 while a chain is folded."""

    weights: Array
    bias: Array | None

    @classmethod
    def of(cls, op: Op) -> _Parameters:
        weights, bias = (None if v is None or v.data is None else v.data.astype(np.float64) for v in _operands(op))
        if weights is None:
            raise ValueError("weights must be constant")
        return cls(weights, bias)

    def store(self, graph: Graph, op: Op) -> None:
        """Give the op constants of its own: others may share the old ones."""
        weights, bias = _operands(op)
        dtype = op.result.dtype.numpy
        name = weights.name if weights is not None else "weights"
        op.set_operand(1, graph.constant(self.weights.astype(dtype), name))
        if self.bias is not None:
            op.set_operand(2, graph.constant(self.bias.astype(dtype), bias.name if bias is not None else "bias"))


def _operands(op: Op) -> tuple[Value | None, Value | None]:
    return op.operand(1), op.operand(2)


def _absorb(graph: Graph, op: Op, into: _Parameters) -> bool:
    """Fold one following mul, add, sub or div by constants; its result becomes the op's."""
    user = only_user(op.result, graph)
    if user is None or user.name not in ("mul", "add", "sub", "div") or "clamp" in user.attrs:
        return False
    found = split_operands(user, lambda v: v is op.result)
    if found is None or found[1].data is None or user.result.type.shape != op.result.type.shape:
        return False
    if user.name in ("sub", "div") and user.inputs[0] is not op.result:
        return False
    vector = _per_channel(found[1].data, op)
    if vector is None or (user.name == "div" and not vector.all()):
        return False
    if user.name in ("mul", "div"):
        factor = vector if user.name == "mul" else 1 / vector
        into.weights = into.weights * _along_output(factor, op)
        into.bias = None if into.bias is None else into.bias * factor
    else:
        shift = vector if user.name == "add" else -vector
        into.bias = shift if into.bias is None else into.bias + shift
    graph.replace_uses(user.result, op.result)
    op.result.name, user.result.name = user.result.name, op.result.name
    graph.erase(user)
    return True


def _per_channel(data: Array, op: Op) -> Array | None:
    """The constant as f64 per output channel, or None when it varies otherwise."""
    rank = op.result.type.rank
    axis = rank - 1 if op.name == "linear" else 1
    channels = op.result.shape[axis]
    if data.ndim > rank:
        return None
    shape = (1,) * (rank - data.ndim) + data.shape
    if any(d != 1 for i, d in enumerate(shape) if i != axis):
        return None
    return np.broadcast_to(data.astype(np.float64).reshape(-1), (channels,)).copy()


def _along_output(factor: Array, op: Op) -> Array:
    """The factor shaped to multiply the weights along their output axis."""
    weights: Value = op.inputs[1]
    if op.name != "conv_transpose":
        return factor.reshape(-1, *(1,) * (weights.type.rank - 1))
    groups, per_group = op.attrs["groups"], weights.shape[1]
    rows = np.repeat(factor.reshape(groups, per_group), weights.shape[0] // groups, axis=0)
    return rows.reshape(weights.shape[0], per_group, *(1,) * (weights.type.rank - 2))
