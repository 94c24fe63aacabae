# SPDX-License-Identifier: Apache-2.0
"""How recognition passes rewrite: rules find a composite that an op's result equals, and it takes the op's place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder, OpError
from gadl.compiler.ir.types import Array

#: A composite: op name, operands (arrays become constants) and attributes.
Composite = tuple[str, Sequence[Value | Array | None], dict[str, Any]]
Rule = Callable[[Op], Composite | None]


def near(value: float | None, wanted: float) -> bool:
    """True for a constant that exporters write for `wanted`, rounded or shortened."""
    return value is not None and math.isclose(value, wanted, rel_tol=1e-4, abs_tol=1e-6)


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> bool:
    """Let the first rule that fits replace each op, in execution order; ops that nobody reads any more go."""
    changed = False
    for op in list(graph.ops):
        for rule in rules:
            found = rule(op) if op.attrs.get("clamp") is None and op.result.dtype.is_float else None
            if found is None:
                continue
            name, given, attrs = found
            operands = [v if v is None or isinstance(v, Value) else graph.constant(v, name) for v in given]
            try:
                made = Builder.before(graph, op).create(name, operands, attrs)
            except OpError:
                continue
            if made.result.type.shape != op.result.type.shape:
                graph.erase(made)
                continue
            made.result.name, op.result.name = op.result.name, made.result.name
            graph.replace_uses(op.result, made.result)
            changed = True
            break
    return bool(graph.remove_dead_ops()) or changed
