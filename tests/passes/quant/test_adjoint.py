# SPDX-License-Identifier: Apache-2.0
"""Derivatives against differences of the interpreter's own results, in the direction of random changes."""

from __future__ import annotations

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Stage, Value
from gadl.compiler.ir.interpret import interpret, run_graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.quant.adjoint import derivatives

SHAPE = (1, 6, 8, 10)
WINDOW = {"strides": (2, 1), "pads": (1, 0, 0, 2), "dilations": (1, 2)}


def constant(graph: Graph, *shape: int) -> Value:
    return graph.constant(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32))


def conv(g: Graph, b: Builder, x: Value) -> Value:
    return b("conv", x, constant(g, 4, 3, 3, 2), constant(g, 4), groups=2, **WINDOW)


def conv_clamped(g: Graph, b: Builder, x: Value) -> Value:
    return b("conv", x, constant(g, 6, 1, 3, 3), None, groups=6, strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), clamp=(0.0, 6.0))


def conv_transpose(g: Graph, b: Builder, x: Value) -> Value:
    return b("conv_transpose", x, constant(g, 6, 2, 3, 3), None, groups=2, strides=(2, 2), pads=(1, 0, 1, 1), dilations=(1, 1), output_padding=(1, 0))


def attention(g: Graph, b: Builder, x: Value) -> Value:
    rows = b("reshape", x, shape=(1, 6, 80))
    scores = b("matmul", rows, b("transpose", rows, perm=(0, 2, 1)))
    return b("matmul", b("softmax", b("mul", scores, g.constant(np.full((), 0.01, np.float32)))), rows)


def norms(g: Graph, b: Builder, x: Value) -> Value:
    return b("rms_norm", b("layer_norm", x, constant(g, 10), constant(g, 10)), constant(g, 10))


def gate(g: Graph, b: Builder, x: Value) -> Value:
    mean = b("reduce_mean", x, axes=(2, 3), keepdims=True)
    return b("mul", x, b("hard_sigmoid", b("add", mean, constant(g, 1, 6, 1, 1))))


def pools(g: Graph, b: Builder, x: Value) -> Value:
    least = b("max_pool", x, kernel=(3, 2), strides=(2, 2), pads=(1, 0, 1, 0), dilations=(1, 1))
    return b("avg_pool", least, kernel=(2, 2), strides=(1, 1), pads=(1, 1, 0, 0))


def moves(g: Graph, b: Builder, x: Value) -> Value:
    part = b("slice", x, starts=(0, 1, 0, 2), sizes=(1, 4, 8, 4), steps=(1, 1, 1, 2))
    padded = b("pad", part, pads=(0, 1, 0, 1, 0, 1, 0, 5))
    return b("concat", x, padded, axis=1)


def sizes(g: Graph, b: Builder, x: Value) -> Value:
    larger = b("resize", x, sizes=(1, 6, 16, 15), scales=(1.0, 1.0, 2.0, 1.5), mode="linear")
    return b("resize", larger, sizes=(1, 6, 8, 30), scales=(1.0, 1.0, 0.5, 2.0), mode="nearest")


def functions(g: Graph, b: Builder, x: Value) -> Value:
    return b("sub", b("silu", x), b("div", b("gelu", x), b("add", b("sigmoid", x), g.constant(np.ones((), np.float32)))))


CASES = (conv, conv_clamped, conv_transpose, attention, norms, gate, pools, moves, sizes, functions)


@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
def test_derivatives_equal_differences(body: object) -> None:
    graph = Graph("g", Stage.FLOAT)
    x = graph.add_input("x", TensorType(DType.F32, SHAPE))
    y = body(graph, Builder(graph), x)  # type: ignore[operator]
    graph.set_outputs([y], ["y"])
    rng = np.random.default_rng(1)
    data, seed = (rng.standard_normal(v.shape).astype(np.float32) for v in (x, y))
    found = {id(v): grad for v, grad in derivatives(graph, run_graph(graph, {"x": data}), {id(y): seed})}
    step = 1e-3 * rng.standard_normal(SHAPE).astype(np.float32)
    far, near = (interpret(graph, {"x": data + sign * step})["y"].astype(np.float64) for sign in (1, -1))
    difference = float((seed * (far - near)).sum()) / 2
    assert float((found[id(x)] * step.astype(np.float64)).sum()) == pytest.approx(difference, rel=0.03, abs=2e-4)


def test_nothing_flows_through_what_has_no_rule() -> None:
    graph = Graph("g", Stage.FLOAT)
    x = graph.add_input("x", TensorType(DType.F32, (2, 3)))
    y = Builder(graph)("cumsum", x, axis=1)
    graph.set_outputs([y], ["y"])
    values = run_graph(graph, {"x": np.ones((2, 3), np.float32)})
    assert [v for v, _ in derivatives(graph, values, {id(y): np.ones((2, 3), np.float32)})] == [y]
