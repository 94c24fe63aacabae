# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation and per-channel scale or shift behind a weighted op go into its weights and bias."""

from __future__ import annotations

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

    k and c are constants with one value per output channel (or one for all). Both hold because the sum is linear in w
    and b; products of constants are formed in f64 and rounded once.
    """
    changed = False
    for op in list(graph.ops):
        if op.name not in _WEIGHTED or op.operand(3) is not None or "clamp" in op.attrs:
            continue
        while _absorb(graph, op):
            changed = True
    return changed


def _absorb(graph: Graph, op: Op) -> bool:
    """Fold one following mul, add, sub or div by constants."""
    user = only_user(op.result, graph)
    if user is None or user.name not in ("mul", "add", "sub", "div") or "clamp" in user.attrs:
        return False
    found = split_operands(user, lambda v: v is op.result)
    if found is None or found[1].data is None or user.result.type.shape != op.result.type.shape:
        return False
    if user.name in ("sub", "div") and user.inputs[0] is not op.result:
        return False
    vector = _per_channel(found[1].data, op)
    weights, bias = op.inputs[1], op.operand(2)
    if vector is None or weights.data is None or (bias is not None and bias.data is None):
        return False
    if user.name == "div" and not vector.all():
        return False
    old = np.zeros(len(vector)) if bias is None or bias.data is None else bias.data.astype(np.float64)
    if user.name in ("mul", "div"):
        factor = vector if user.name == "mul" else 1 / vector
        scaled = weights.data.astype(np.float64) * _along_output(factor, op)
        op.set_operand(1, graph.constant(scaled.astype(weights.data.dtype), weights.name))
        new = old * factor
    else:
        new = old + vector if user.name == "add" else old - vector
    if bias is not None or user.name in ("add", "sub"):
        op.set_operand(2, graph.constant(new.astype(weights.data.dtype), bias.name if bias is not None else "bias"))
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
