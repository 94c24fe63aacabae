# SPDX-License-Identifier: Apache-2.0
"""Softmax and normalisation in simpler ops."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from rewriting import graph_of, run, unchanged

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.canonicalize.decompose_rows import decompose_rows

ALL = frozenset({"softmax", "layer_norm", "rms_norm"})
decompose = partial(decompose_rows, names=ALL)
PRIMITIVE = {"reshape", "reduce_max", "reduce_sum", "reduce_mean", "sub", "exp", "max", "reciprocal", "mul", "add", "rsqrt", "linear", "relu"}


def names(graph: Graph) -> set[str]:
    return {op.name for op in graph.ops}


def test_softmax_between_ops() -> None:
    graph = run(
        decompose,
        """input %x : f32[2,3,5,7]
        %s : f32[2,3,5,7] = softmax(%x) {axis = 3}
        %y : f32[2,3,5,7] = relu(%s)
        output "y" = %y""",
    )
    assert names(graph) <= PRIMITIVE
    assert {op.result.shape for op in graph.ops if op.name == "exp"} == {(1, 30, 1, 7)}


@pytest.mark.parametrize("vectors", ["", ", %g", ", %g, %b"])
def test_layer_norm_with_vectors(vectors: str) -> None:
    graph = run(
        decompose,
        f"""input %x : f32[2,5,4]
        const %g : f32[4] = f32[4] [1.0, 0.5, -2.0, 0.25]
        const %b : f32[4] = f32[4] [0.5, 0.0, 1.0, -1.0]
        %y : f32[2,5,4] = layer_norm(%x{vectors}) {{axis = -1, epsilon = 1e-5}}
        output "y" = %y""",
    )  # fmt: skip
    assert names(graph) <= PRIMITIVE


def normed_product(name: str, shape: tuple[int, ...], bias: bool, twice: bool) -> Graph:
    graph = Graph("test")
    b, rng = Builder(graph), np.random.default_rng(3)
    x = graph.add_input("x", TensorType(DType.F32, shape))

    def random(*extents: int) -> object:
        return graph.constant(rng.standard_normal(extents).astype(np.float32), "w")

    vectors = [random(shape[-1]) for _ in range(2 if name == "layer_norm" else 1)]
    normal = b(name, x, *vectors, axis=-1, epsilon=1e-5)
    y = b("linear", normal, random(6, shape[-1]), *([random(6)] if bias else []))
    graph.set_outputs([b("add", y, b("linear", normal, random(6, shape[-1]))) if twice else y])
    return graph


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_vectors_go_into_the_products_behind(name: str, bias: bool, twice: bool) -> None:
    graph, original = (normed_product(name, (3, 5, 8), bias, twice) for _ in range(2))
    feeds = {"x": np.random.default_rng(4).normal(1, 3, (3, 5, 8)).astype(np.float32)}
    assert decompose(graph)
    verify(graph)
    assert [op.name for op in graph.ops if op.name in ("mul", "add")] == ["mul", "add", "mul", *(["add"] if twice else [])]
    for found, wanted in zip(interpret(graph, feeds).values(), interpret(original, feeds).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_vectors_stay_where_others_read_them() -> None:
    graph = normed_product("layer_norm", (3, 5, 8), True, False)
    (norm,) = (op for op in graph.ops if op.name == "layer_norm")
    before = {id(v) for op in graph.ops if op.name == "linear" for v in op.inputs[1:]}
    graph.set_outputs([*graph.outputs, norm.result])
    assert decompose(graph)
    assert before == {id(v) for op in graph.ops if op.name == "linear" for v in op.inputs[1:]}


def test_more_rows_than_channels_keep_their_first_axis() -> None:
    graph = graph_of("""input %x : f32[3,2000,4]
        %s : f32[3,2000,4] = softmax(%x) {axis = -1}
        %y : f32[3,2000,4] = relu(%s)
        output "y" = %y""")
    assert decompose(graph)
    assert {op.result.shape for op in graph.ops if op.name == "exp"} == {(3, 2000, 1, 4)}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("%y : f32[2,3,5] = softmax(%x) {axis = 2}", "returned"),
        ("%s : f32[2,3,5] = softmax(%x) {axis = 1}\n%y : f32[2,3,5] = relu(%s)", "another axis"),
        ("%m : f32[2,3,5] = add(%x, %x)\n%s : f32[2,3,5] = softmax(%m) {axis = 2}\n%y : f32[2,3,5] = relu(%s)", "a sum, which may mask"),
        ("%y : f32[2,3,5] = layer_norm(%x) {axis = 1, epsilon = 1e-5}", "two axes"),
    ],
    ids=lambda text: text if "%" not in text else "",
)
def test_others_stay(lines: str, reason: str) -> None:
    unchanged(decompose, f'input %x : f32[2,3,5]\n{lines}\noutput "y" = %y')


def test_without_names_nothing_changes() -> None:
    unchanged(decompose_rows, 'input %x : f32[2,3,5]\n%y : f32[2,3,5] = layer_norm(%x) {axis = 2, epsilon = 1e-5}\noutput "y" = %y')
