# SPDX-License-Identifier: Apache-2.0
"""One op for each computation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value


def merge_duplicates(graph: Graph) -> bool:
    """`a = f(x); b = f(x)  -->  a = f(x)`, and b's readers read a. Ops are pure, so both are the same value.

    Small constants count as the same operand when they hold the same bytes. The first op keeps its name and location;
    an op whose result is an output stays.
    """
    first: dict[Hashable, Op] = {}
    outputs = {id(v) for v in graph.outputs}
    changed = False
    for op in list(graph.ops):
        same = first.setdefault(_key(op), op)
        if same is op or any(id(r) in outputs for r in op.results):
            continue
        for old, kept in zip(op.results, same.results):
            graph.replace_uses(old, kept)
        graph.erase(op)
        changed = True
    return changed


def _key(op: Op) -> Hashable:
    operands = tuple(None if v is None else _operand(v) for v in op.operands)
    attrs = tuple((k, _attribute(v)) for k, v in sorted(op.attrs.items()))
    return op.name, operands, attrs, tuple(r.type for r in op.results)


def _operand(value: Value) -> Hashable:
    if value.data is not None and value.data.size <= 16:
        return value.type, value.data.tobytes()
    return id(value)


def _attribute(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    held: Hashable = value
    return held
