# SPDX-License-Identifier: Apache-2.0
"""Einsum of one or two operands as sums, transposes and one product."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Value

from .node import Node, Unsupported, importer


@importer("Einsum")
def einsum(node: Node) -> Value:
    """Einsum 12 without ellipsis and diagonals."""
    equation = str(node.attr("equation", "")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    if "." in equation or len(terms) not in (1, 2) or len(terms) != len(node.inputs):
        raise Unsupported(f"equation '{equation}'")
    operands = [node.operand(i) for i in range(len(terms))]
    if any(len(set(t)) != len(t) or len(t) != v.type.rank for t, v in zip([*terms, result], operands)):
        raise Unsupported(f"equation '{equation}' on ranks {[v.type.rank for v in operands]}")
    if len(set(result)) != len(result) or not set(result) <= set(left):
        raise Unsupported(f"equation '{equation}'")
    for i, term in enumerate(terms):
        # What only one operand has and the result lacks is summed at once.
        gone = [c for c in term if c not in result and not any(c in other for j, other in enumerate(terms) if j != i)]
        if gone:
            operands[i] = node.emit("reduce_sum", operands[i], axes=tuple(term.index(c) for c in gone), keepdims=False)
            terms[i] = "".join(c for c in term if c not in gone)
    if len(terms) == 1:
        return _ordered(node, operands[0], terms[0], result)
    return _product(node, operands, terms, result)


def _ordered(node: Node, x: Value, have: str, want: str) -> Value:
    return x if have == want else node.emit("transpose", x, perm=tuple(have.index(c) for c in want))


def _product(node: Node, operands: list[Value], terms: list[str], result: str) -> Value:
    """`[batch, M, K] . [batch, K, N]`, then the axes in the result's order."""
    a, b = terms
    extent = {c: max(d for t, v in zip(terms, operands) for label, d in zip(t, v.shape) if label == c) for c in a + b}
    batch = [c for c in a if c in b and c in result]
    summed = [c for c in a if c in b and c not in result]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]

    def size(labels: list[str]) -> int:
        return math.prod(extent[c] for c in labels)

    left = _full(node, operands[0], a, batch + rows + summed, extent)
    right = _full(node, operands[1], b, batch + summed + columns, extent)
    left = node.emit("reshape", left, shape=(size(batch), size(rows), size(summed)))
    right = node.emit("reshape", right, shape=(size(batch), size(summed), size(columns)))
    made = batch + rows + columns
    y = node.emit("reshape", node.emit("matmul", left, right), shape=tuple(extent[c] for c in made))
    return _ordered(node, y, "".join(made), result)


def _full(node: Node, x: Value, have: str, want: list[str], extent: dict[str, int]) -> Value:
    """Axes in an order, extents of 1 broadcast."""
    x = _ordered(node, x, have, "".join(want))
    shape = tuple(extent[c] for c in want)
    return x if x.shape == shape else node.emit("expand", x, shape=shape)
