# SPDX-License-Identifier: Apache-2.0
"""Weighted ops as matrix products, second-order rounding, and what fitting brings a layer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Op, Stage
from gadl.compiler.ir.interpret import interpret, run_graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.fit_weights import RoundingKind
from gadl.passes.quant.measure import sqnr_db
from gadl.passes.quant.operands import matrix_of, positions, results_at, rows_at, spread, weights_of
from gadl.passes.quant.quantize import quantize_graph
from gadl.passes.quant.recipe import Recipe
from gadl.passes.quant.rounding import inverse_factor, nearest, second_order
from gadl.targets.npu.quant_rules import QUANT_RULES

PLAIN: dict[str, Any] = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
OPS = {
    "conv": ("conv", (2, 6, 7, 9), (4, 6, 3, 2), {"strides": (2, 1), "pads": (1, 0, 0, 2), "dilations": (1, 2)}),
    "grouped": ("conv", (1, 6, 7, 9), (4, 3, 3, 3), PLAIN | {"groups": 2}),
    "depthwise": ("conv", (1, 6, 7, 9), (6, 1, 3, 3), PLAIN | {"groups": 6}),
    "1-d": ("conv", (2, 3, 20), (5, 3, 4), {"strides": (3,), "pads": (2, 1), "dilations": (2,)}),
    "transposed": ("conv_transpose", (2, 4, 5, 6), (4, 3, 3, 2), PLAIN | {"strides": (2, 3), "output_padding": (1, 2)}),
    "transposed in groups": ("conv_transpose", (1, 4, 5, 6), (4, 3, 3, 3), PLAIN | {"groups": 2, "strides": (2, 2), "output_padding": (0, 0)}),
    "linear": ("linear", (3, 4, 8), (5, 8), {}),
}


def layer(name: str) -> tuple[Graph, Op, np.ndarray]:
    kind, shape, weights, attrs = OPS[name]
    rng = np.random.default_rng(0)
    graph = Graph("g", Stage.FLOAT)
    x = graph.add_input("x", TensorType(DType.F32, shape))
    y = Builder(graph)(kind, x, graph.constant(rng.standard_normal(weights).astype(np.float32)), None, **attrs)
    graph.set_outputs([y], ["y"])
    return graph, graph.ops[0], rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", OPS)
def test_rows_times_weights_are_the_result(name: str) -> None:
    graph, op, data = layer(name)
    weights, found = op.inputs[1].data, run_graph(graph, {"x": data})[id(op.result)]
    assert weights is not None
    np.testing.assert_array_equal(weights_of(op, matrix_of(op, weights)), weights)
    for wanted in (10_000, 6):
        (picked,) = spread(positions(op), wanted, 1, 3)
        assert len(picked) == min(wanted, positions(op))
        rows = rows_at(op, data, picked)
        made = np.einsum("rgk,gok->rgo", rows, matrix_of(op, weights))
        np.testing.assert_allclose(made, results_at(op, found, picked), rtol=1e-4, atol=1e-4)


def loss(weights: np.ndarray, integers: np.ndarray, scales: np.ndarray, operands: np.ndarray) -> float:
    return float(np.square((weights - integers * scales[..., None]) @ operands.swapaxes(1, 2)).sum())


def test_second_order_rounding_is_near_the_best_there_is() -> None:
    """Of four weights at two neighbours each all sixteen choices can be tried."""
    rng = np.random.default_rng(2)
    better, gap = 0, []
    for _ in range(40):
        operands = rng.standard_normal((1, 64, 4)) @ rng.standard_normal((4, 4))
        weights, scales = rng.standard_normal((1, 1, 4)) * 5, np.ones((1, 1))
        gram = operands.swapaxes(1, 2) @ operands
        found = loss(weights, second_order(weights, inverse_factor(gram), scales, 127), scales, operands)
        plain = loss(weights, nearest(weights, scales, 127), scales, operands)
        floor = np.floor(weights)
        best = min(loss(weights, floor + np.array(up), scales, operands) for up in itertools.product((0, 1), repeat=4))
        better += found < plain
        gap.append(found / best)
    assert better >= 20
    assert np.median(gap) < 1.5


@pytest.mark.parametrize("count", [1, 130, 300])
def test_blocks_of_columns_round_like_single_columns(count: int) -> None:
    rng = np.random.default_rng(3)
    operands, weights = rng.standard_normal((2, 400, count)), rng.standard_normal((2, 3, count)) * 20
    factor, scales = inverse_factor(operands.swapaxes(1, 2) @ operands), np.full((2, 3), 0.7)
    left = np.take_along_axis(weights, factor.order[:, None, :], 2) / scales[..., None]
    wanted = np.empty_like(left)
    for k in range(count):
        wanted[:, :, k] = np.clip(np.rint(left[:, :, k]), -127, 127)
        error = (left[:, :, k] - wanted[:, :, k]) / factor.upper[:, None, k, k]
        left[:, :, k + 1 :] -= error[..., None] * factor.upper[:, None, k, k + 1 :]
    found = second_order(weights, factor, scales, 127)
    np.testing.assert_array_equal(np.take_along_axis(found, factor.order[:, None, :], 2), wanted)


def test_integers_stay_in_reach() -> None:
    weights, gram = np.full((1, 2, 3), 1000.0), np.eye(3)[None]
    assert np.abs(second_order(weights, inverse_factor(gram), np.ones((1, 2)), 7)).max() == 7
    assert np.abs(nearest(weights, np.ones((1, 2)), 7)).max() == 7


def network() -> tuple[Graph, list[dict[str, np.ndarray]]]:
    """Convolutions with a residual, a depthwise one, and a classifier; inputs with structure, so that operands hang together."""
    rng = np.random.default_rng(5)
    graph = Graph("net", Stage.FLOAT)
    b = Builder(graph)

    def weights(*shape: int) -> Any:
        return graph.constant((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    x = graph.add_input("x", TensorType(DType.F32, (1, 3, 16, 16)))
    first = b("conv", x, weights(24, 3, 3, 3), weights(24), clamp=(0.0, float("inf")), **PLAIN)
    deep = b("conv", first, weights(24, 1, 3, 3), weights(24), clamp=(0.0, 6.0), groups=24, **PLAIN)
    again = b("conv", deep, weights(24, 24, 1, 1), weights(24), first, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    mean = b("reshape", b("reduce_mean", again, axes=(2, 3), keepdims=True), shape=(1, 24))
    graph.set_outputs([b("linear", mean, weights(10, 24), weights(10))], ["y"])
    basis = rng.standard_normal((4, 3, 16, 16))
    mixed = [np.tensordot(rng.standard_normal(4), basis, 1) + 0.1 * rng.standard_normal((3, 16, 16)) for _ in range(40)]
    return graph, [{"x": m[None].astype(np.float32)} for m in mixed]


def test_each_way_to_fit_brings_more_than_the_nearest_integers() -> None:
    graph, feeds = network()
    ranges, seen, held = calibrate(graph, feeds), feeds[:24], feeds[24:]
    wanted = [interpret(graph, f) for f in held]
    found = {}
    for recipe in (Recipe(), *(Recipe(rounding=kind) for kind in RoundingKind)):
        made = quantize_graph(graph, ranges, QUANT_RULES, recipe, seen).graph
        found[recipe.rounding] = np.mean([sqnr_db(w, interpret(made, f)) for w, f in zip(wanted, held)])
    assert found[RoundingKind.SECOND_ORDER] > found[None] + 1
    assert found[RoundingKind.REGRESSION] > found[None] + 1


def test_a_single_sample_changes_no_weight_of_a_linear_layer() -> None:
    """One row says nothing about other rows: weights are the nearest, and the bias stays."""
    graph, feeds = network()
    plain, fitted = (
        quantize_graph(graph, calibrate(graph, feeds[:1]), QUANT_RULES, Recipe(rounding=kind), feeds[:1]).graph for kind in (None, RoundingKind.REGRESSION)
    )
    for made in (plain, fitted):
        assert made.ops[-2].name == "linear"
    for index in (1, 2):
        np.testing.assert_array_equal(plain.ops[-2].inputs[index].data, fitted.ops[-2].inputs[index].data)


def test_the_same_samples_give_the_same_bytes() -> None:
    graph, feeds = network()
    one, two = (quantize_graph(graph, calibrate(graph, feeds), QUANT_RULES, Recipe(fit_ranges=True, rounding=RoundingKind.REGRESSION), feeds).graph for _ in "ab")
    for a, b in zip(one.ops, two.ops, strict=True):
        for x, y in zip(a.inputs, b.inputs, strict=True):
            assert x.quant == y.quant
            if x.data is not None and y.data is not None:
                np.testing.assert_array_equal(x.data, y.data)
