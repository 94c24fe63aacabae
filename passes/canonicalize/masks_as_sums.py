# SPDX-License-Identifier: Apache-2.0
"""Masks in front of a softmax are added, not selected."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.pattern import scalar

#: A number that takes part in no softmax. Scores beside it are below its last place.
MASKED = -1e30


def masks_as_sums(graph: Graph) -> bool:
    """`softmax(where(m, x, c))  -->  softmax(x + where(m, 0, -1e30))`, for c = -inf or c <= -1e30.

    Equal for scores below 1e22 in size: x + 0 = x, x - 1e30 = -1e30 in f32, and exp(c - max) = 0 for either number, as long as a
    row keeps one element. Sums have a quantised form and no infinity in them. Likewise `where(m, c, x)`.
    """
    changed = False
    for op in list(graph.ops):
        if op.name != "where" or not op.result.dtype.is_float or not op.result.users or any(u.name != "softmax" for u in op.result.users):
            continue
        number = next((i for i in (1, 2) if _is_masked(op.inputs[i])), 0)
        scores = op.inputs[3 - number] if number else None
        if scores is None or scores.is_constant or scores.shape != op.result.shape:
            continue
        build = Builder.before(graph, op)
        made = build("add", scores, _mask(graph, build, op, number))
        made.name, op.result.name = op.result.name, made.name
        graph.replace_uses(op.result, made)
        changed = True
    return bool(graph.remove_dead_ops()) or changed


def _is_masked(value: Value) -> bool:
    number = scalar(value)
    return number is not None and number <= MASKED


def _mask(graph: Graph, build: Builder, op: Op, number: int) -> Value:
    """0 where the scores count, else `MASKED`; a constant where the condition is one."""
    condition, dtype = op.inputs[0], op.result.dtype.numpy
    pair = [np.zeros((), dtype), np.zeros((), dtype)]
    pair[number - 1] = np.full((), MASKED, dtype)
    if condition.data is not None:
        return graph.constant(np.where(condition.data, pair[0], pair[1]).astype(dtype), f"{op.result.name}.mask")
    return build("where", condition, *(graph.constant(v, "mask") for v in pair))
