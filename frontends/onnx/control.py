# SPDX-License-Identifier: Apache-2.0
"""Control flow that static shapes decide: the nodes of a branch or of every iteration take the node's place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .node import Node, Unsupported, importer

#: Loops longer than this are not written out.
MOST_ITERATIONS = 256


def _inline(node: Node, graph: Any) -> list[Value]:
    """Import the nodes of a subgraph in place and return its outputs."""
    context, location = node.importer, node.importer.builder.loc
    before = len(context.problems)
    for inner in graph:
        context.step(inner, replace(location, node=inner.name or location.node))
    context.builder.loc = location
    if len(context.problems) > before or any(v.name in context.broken for v in graph.outputs):
        raise Unsupported("its body cannot be imported")
    found = [context.value(v) for v in graph.outputs]
    if any(v is None for v in found):
        raise Unsupported("an output of its body has no name")
    return [v for v in found if v is not None]


@importer("If")
def if_(node: Node) -> list[Value]:
    """If 1 to 21 of a constant condition."""
    condition = node.constant(0)
    if condition is None or condition.size != 1:
        raise Unsupported("the condition is missing")
    branch = node.attr("then_branch" if condition.item() else "else_branch")
    if branch is None:
        raise Unsupported("the branch is missing")
    return _inline(node, branch)


@importer("Loop")
def loop(node: Node) -> list[Value]:
    """Loop 1 to 21 with a constant number of iterations, written out; conditions must be constants as well."""
    body, trips, condition = node.attr("body"), node.constant(0), node.constant(1)
    if body is None or (trips is None and condition is None):
        raise Unsupported("it never ends")
    limit = MOST_ITERATIONS + 1 if trips is None else int(trips.item())
    carried = [node.operand(i) for i in range(2, len(node.inputs))]
    if len(body.inputs) != 2 + len(carried) or len(body.outputs) < 1 + len(carried):
        raise Unsupported("its body does not fit it")
    collected: list[list[Value]] = [[] for _ in body.outputs[1 + len(carried) :]]
    goes_on, count = condition is None or bool(condition.item()), 0
    while goes_on and count < limit:
        if count == MOST_ITERATIONS:
            raise Unsupported(f"more than {MOST_ITERATIONS} iterations")
        arguments = [node.const(count, DType.I64), node.const(True, DType.BOOL), *carried]
        node.importer.values.update({str(v.name): value for v, value in zip(body.inputs, arguments)})
        test, *results = _inline(node, body)
        if test.data is None:
            raise Unsupported("its condition must be a constant")
        goes_on, count = bool(test.data.item()), count + 1
        carried = results[: len(carried)]
        for parts, value in zip(collected, results[len(carried) :]):
            parts.append(node.emit("reshape", value, shape=(1, *value.shape)))
    if collected and not count:
        raise Unsupported("it collects the results of no iteration")
    return [*carried, *(parts[0] if len(parts) == 1 else node.emit("concat", *parts, axis=0) for parts in collected)]
