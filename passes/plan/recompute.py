# SPDX-License-Identifier: Apache-2.0
"""Recomputation: a large tensor that is read on both sides of a reduction of it is made twice rather than stored and loaded.

What depends on a reduction waits for all of its operand, which does not fit on chip meanwhile. Where that operand comes from a much
smaller tensor, reading this again and repeating the work takes less time than memory does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder

#: Kinds that may be repeated, and by how much their operand must be smaller than their result.
_REPEATED, SMALLER = frozenset({"conv", "linear"}), 2.0


@dataclass(frozen=True)
class Streaming:
    """A device as recomputation sees it: on-chip `capacity` in bytes, off-chip `rate` in bytes per cycle, and `cycles` of an op."""

    capacity: float
    rate: float
    cycles: Callable[[Op], float]


def recompute(graph: Graph, device: Streaming) -> bool:
    """`r = reduce(y), z = f(y, r)  -->  z = f(y again, r)` with `y = g(x)`, where that pays; exact."""
    changed = False
    for op in [op for op in graph.ops if op.name in _REPEATED]:
        chain = _chain(op)
        y = chain[-1].result
        later = _waiting(graph, y) if _pays(op, y, device) and not any(y is v for v in graph.outputs) else []
        if later:
            again = _again(graph, chain, later)
            for user in later:
                for index, operand in enumerate(user.operands):
                    if operand is y:
                        user.set_operand(index, again)
            changed = True
    return changed


def _chain(op: Op) -> list[Op]:
    """The op, and a table that alone reads it."""
    users = op.result.users
    return [op, users[0]] if len(users) == 1 and users[0].name == "lut" and _segment(users[0]) == _segment(op) else [op]


def _segment(op: Op) -> int | None:
    return None if op.placement is None else op.placement.segment


def _pays(op: Op, y: Value, device: Streaming) -> bool:
    """True when a store and a load of the result take longer than another load of the operand and the work."""
    if _segment(op) is None or any(v is not None and not v.is_constant for v in op.operands[1:]):
        return False
    x, size = op.inputs[0].type.size_bytes, y.type.size_bytes
    saved = (2 * size - x) / device.rate
    return size > device.capacity / 2 and size >= SMALLER * x and saved > device.cycles(op)


def _waiting(graph: Graph, y: Value) -> list[Op]:
    """The users in the same segment that need what a reduction of the value gives; none unless all others are such reductions."""
    reductions = [user for user in y.users if user.name.startswith("reduce_")]
    if not reductions or any(_segment(user) != _segment(reductions[0]) for user in y.users):
        return []
    reached = {id(user) for user in reductions}
    for op in graph.ops:
        if any(v is not None and v.producer is not None and id(v.producer) in reached for v in op.operands):
            reached.add(id(op))
    later = [user for user in y.users if user not in reductions]
    return later if all(id(user) in reached for user in later) else []


def _again(graph: Graph, chain: list[Op], later: list[Op]) -> Value:
    """A copy of the ops in front of the first of those that wait."""
    first = min(later, key=graph.ops.index)
    value = chain[0].inputs[0]
    for op in chain:
        build = Builder(graph, graph.ops.index(first), op.loc)
        made = build.create(op.name, [value, *op.operands[1:]], dict(op.attrs), result=f"{op.result.name}.again", type=op.result.type)
        made.placement = op.placement
        value = made.result
    return value
