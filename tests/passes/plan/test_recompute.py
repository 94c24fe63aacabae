# SPDX-License-Identifier: Apache-2.0
"""What lies on both sides of a reduction is computed twice where memory would take longer, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Placement
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.plan.recompute import Streaming, recompute

PLAIN = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}


def squeeze_and_excite(wide: int = 32, table: bool = False) -> Graph:
    """`y = conv(x); z = y * sigmoid(mean(y))`, all in one segment."""
    rng = np.random.default_rng(0)
    graph = Graph()
    b = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, (1, 4, 6, 5)))
    weights = graph.constant(rng.standard_normal((wide, 4, 1, 1)).astype(np.float32))
    y = b("conv", x, weights, None, **PLAIN)
    y = b("relu", y) if table else y
    gate = b("sigmoid", b("reduce_mean", y, axes=(2, 3), keepdims=True))
    graph.set_outputs([b("mul", y, gate)], ["z"])
    for op in graph.ops:
        op.placement = Placement("npu", 0)
    return graph


def device(capacity: float = 1000, rate: float = 1.0, cycles: float = 10.0) -> Streaming:
    return Streaming(capacity, rate, lambda op: cycles)


def test_a_large_result_is_made_twice() -> None:
    graph, feeds = squeeze_and_excite(), {"x": np.random.default_rng(1).standard_normal((1, 4, 6, 5)).astype(np.float32)}
    before = interpret(graph, feeds)
    assert recompute(graph, device())
    assert [op.name for op in graph.ops] == ["conv", "reduce_mean", "sigmoid", "conv", "mul"]
    again = graph.ops[3]
    assert again.placement == graph.ops[0].placement and again.inputs[1] is graph.ops[0].inputs[1]
    for name, value in interpret(graph, feeds).items():
        np.testing.assert_array_equal(value, before[name])
    assert not recompute(graph, device())


@pytest.mark.parametrize("graph, machine", [
    (squeeze_and_excite(), device(capacity=1e6)),  # it fits on chip
    (squeeze_and_excite(), device(cycles=1e6)),  # the work takes longer than memory
    (squeeze_and_excite(wide=4), device(capacity=100)),  # the operand is as large
    (squeeze_and_excite(table=True), device()),  # something else than a table lies between
])  # fmt: skip
def test_all_else_stays(graph: Graph, machine: Streaming) -> None:
    count = len(graph.ops)
    assert not recompute(graph, machine) and len(graph.ops) == count


def test_a_result_that_somebody_outside_reads_is_stored_anyway() -> None:
    graph = squeeze_and_excite()
    graph.set_outputs([*graph.outputs, graph.ops[0].result], ["z", "y"])
    assert not recompute(graph, device())
