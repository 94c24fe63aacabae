# SPDX-License-Identifier: Apache-2.0
"""What tests of graph passes share: golden text, and equality of the graphs' meaning before and after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.parser import parse
from gadl.compiler.ir.printer import print_graph
from gadl.compiler.ir.types import DType
from gadl.compiler.ir.verify import verify

GraphPass = Callable[[Graph], bool]


def graph_of(body: str) -> Graph:
    """A float graph from the lines between its braces."""
    lines = "\n".join(f"  {line.strip()}" for line in body.strip().splitlines())
    return parse(f'gir 1.0 float\ngraph "main" {{\n{lines}\n}}\n')


def body_of(graph: Graph) -> str:
    """The lines between the braces; long constants only by their hash."""
    lines = print_graph(graph, elide=True).splitlines()[2:]
    return "\n".join(line.strip() for line in lines if line.strip() != "}")


def feeds_of(graph: Graph, seed: int = 11) -> dict[str, np.ndarray]:
    """Seeded inputs around zero, with some exact zeros."""
    random = np.random.default_rng(seed)
    made = {}
    for value in graph.inputs:
        if value.dtype.is_float:
            data = random.normal(0, 3, value.shape)
            made[value.name] = np.where(random.random(value.shape) < 0.1, 0, data).astype(value.dtype.numpy)
        else:
            made[value.name] = random.integers(0, 2 if value.dtype is DType.BOOL else 5, value.shape).astype(value.dtype.numpy)
    return made


def run(rewrite: GraphPass, before: str, *, exact: bool = False, tolerance: float = 1e-5) -> Graph:
    """Apply a pass to a graph given as text; the result is valid and computes the same on random inputs."""
    graph, original = graph_of(before), graph_of(before)
    changed = rewrite(graph)
    verify(graph)
    assert changed == (body_of(graph) != body_of(original)), "the pass reports wrongly whether it changed anything"
    feeds = feeds_of(original)
    for (name, found), wanted in zip(interpret(graph, feeds).items(), interpret(original, feeds).values(), strict=True):
        if exact:
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        else:
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, err_msg=name)
    return graph


def check(rewrite: GraphPass, before: str, after: str, *, exact: bool = False, tolerance: float = 1e-5) -> None:
    """As `run`, and the result reads as `after`."""
    graph = run(rewrite, before, exact=exact, tolerance=tolerance)
    assert body_of(graph) == body_of(graph_of(after))


def unchanged(rewrite: GraphPass, text: str) -> None:
    """The pass must leave this graph alone."""
    graph = graph_of(text)
    assert not rewrite(graph)
    assert body_of(graph) == body_of(graph_of(text))
