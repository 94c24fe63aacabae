# SPDX-License-Identifier: Apache-2.0
"""Control flow that static shapes decide."""

from __future__ import annotations

from dataclasses import replace

from gadl.compiler.ir.graph import Value

from .node import Node, Unsupported, importer


@importer("If")
def if_(node: Node) -> list[Value]:
    """If of a constant condition: the nodes of the chosen branch take its place."""
    condition = node.constant(0)
    if condition is None or condition.size != 1:
        raise Unsupported("the condition is missing")
    branch = node.attr("then_branch" if condition.item() else "else_branch")
    if branch is None:
        raise Unsupported("the branch is missing")
    context, location = node.importer, node.importer.builder.loc
    before = len(context.problems)
    for inner in branch:
        context.step(inner, replace(location, node=inner.name or location.node))
    context.builder.loc = location
    if len(context.problems) > before or any(v.name in context.broken for v in branch.outputs):
        raise Unsupported("its branch cannot be imported")
    found = [context.value(v) for v in branch.outputs]
    if any(v is None for v in found):
        raise Unsupported("an output of its branch has no name")
    return [v for v in found if v is not None]
