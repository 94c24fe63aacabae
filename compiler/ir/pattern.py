# SPDX-License-Identifier: Apache-2.0
"""Small patterns over producer chains, for passes."""

from __future__ import annotations

from collections.abc import Callable

from .graph import Graph, Op, Value


def scalar(value: Value | None) -> float | None:
    """The number that a constant holds in all its elements, or None."""
    if value is None or value.data is None or value.data.size == 0:
        return None
    first = value.data.reshape(-1)[0]
    return float(first) if value.data.size == 1 or bool((value.data == first).all()) else None


def producer(value: Value | None, *names: str) -> Op | None:
    """The op of one of those names that makes `value`, or None."""
    op = value.producer if value is not None else None
    return op if op is not None and (not names or op.name in names) else None


def only_user(value: Value, graph: Graph) -> Op | None:
    """The op that alone reads `value`, or None when there are several or it is an output."""
    if len(value.users) != 1 or any(value is o for o in graph.outputs):
        return None
    return value.users[0]


def with_scalar(op: Op | None, name: str) -> tuple[Value, float] | None:
    """`(x, c)` for `name(x, c)` (or `name(c, x)` where it commutes) with a scalar constant c."""
    if op is None or op.name != name:
        return None
    a, b = op.inputs[0], op.inputs[1]
    number = scalar(b)
    if number is not None and not a.is_constant and b.type.rank <= a.type.rank:
        return a, number
    number = scalar(a)
    if name in ("add", "mul", "min", "max") and number is not None and not b.is_constant and a.type.rank <= b.type.rank:
        return b, number
    return None


def split_operands(op: Op, test: Callable[[Value], bool]) -> tuple[Value, Value] | None:
    """The two operands of a commutative op, the one that passes `test` first."""
    a, b = op.inputs[0], op.inputs[1]
    if test(a):
        return a, b
    return (b, a) if test(b) else None
