# SPDX-License-Identifier: Apache-2.0
"""Ranges by what they cost, and the search over recipes: what comes back, and that it is never worse than plain min-max."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Stage
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import Array, DType, TensorType
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.choose_params import integer_ops
from gadl.passes.quant.fit_ranges import PARTS, _beyond, least_cost, output_costs
from gadl.passes.quant.fit_weights import RoundingKind
from gadl.passes.quant.measure import sqnr_db
from gadl.passes.quant.observers import ObserverKind
from gadl.passes.quant.quantize import quantize_graph
from gadl.passes.quant.recipe import Effort, Recipe, Switches
from gadl.passes.quant.search import Search
from gadl.targets.npu.quant_rules import QUANT_RULES


def outlier_network(matters: bool) -> tuple[Graph, list[dict[str, Array]]]:
    """A hidden tensor with one channel of giants, which the next layer multiplies by nothing, or by something."""
    rng = np.random.default_rng(0)
    graph = Graph("g", Stage.FLOAT)
    b = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, (1, 16)))
    first, second = rng.standard_normal((32, 16)), rng.standard_normal((8, 32))
    first[0] *= 60
    second[:, 0] = 1.0 if matters else 0.0
    hidden = b("linear", x, graph.constant(first.astype(np.float32)), None, result="hidden")
    graph.set_outputs([b("linear", hidden, graph.constant(second.astype(np.float32)), None)], ["y"])
    return graph, [{"x": rng.standard_normal((1, 16)).astype(np.float32)} for _ in range(40)]


@pytest.mark.parametrize("matters", [False, True])
def test_what_outputs_do_not_feel_is_cut(matters: bool) -> None:
    graph, feeds = outlier_network(matters)
    ranges = calibrate(graph, feeds)
    costs = output_costs(graph, ranges, QUANT_RULES, integer_ops(graph, QUANT_RULES), feeds[:16])
    found = least_cost(costs, ranges, QUANT_RULES)["hidden"]
    kept = (found.high - found.low) / (ranges["hidden"].high - ranges["hidden"].low)
    assert kept > 0.7 if matters else kept < 0.2


def test_products_with_what_is_cut() -> None:
    rng = np.random.default_rng(1)
    values, slopes = rng.standard_normal(500) * 3, rng.standard_normal(500)
    end = float(values.max())
    wanted = [float((slopes * (np.minimum(values, end * part) - values)).sum()) for part in PARTS]
    np.testing.assert_allclose(_beyond(values, slopes, end), wanted, atol=1e-9)


def measured(graph: Graph, made: Graph, held: Sequence[dict[str, Array]]) -> float:
    return float(np.mean([sqnr_db(interpret(graph, f), interpret(made, f)) for f in held]))


@pytest.mark.parametrize("effort", list(Effort))
def test_the_best_recipe_comes_back(effort: Effort) -> None:
    graph, feeds = outlier_network(False)
    search = Search(graph, QUANT_RULES, feeds, effort)
    made = search.run()
    told = made.report["search"]
    assert told["sqnr_db"] == pytest.approx(measured(graph, made.graph, search.held), abs=1e-3)
    assert told["sqnr_db"] == max(trial["sqnr_db"] for trial in told["trials"])
    assert told["trials"][0]["recipe"] == "minmax"
    plain = quantize_graph(graph, calibrate(graph, feeds), QUANT_RULES, Recipe()).graph
    fresh = [{"x": np.random.default_rng(seed).standard_normal((1, 16)).astype(np.float32)} for seed in range(100, 140)]
    assert measured(graph, made.graph, fresh) > measured(graph, plain, fresh) + 10


def test_held_samples_do_not_fit() -> None:
    graph, feeds = outlier_network(False)
    search = Search(graph, QUANT_RULES, feeds)
    assert len(search.held) == 10
    assert not {id(f) for f in search.held} & {id(f) for f in search._seen}
    few = Search(graph, QUANT_RULES, feeds[:2])
    assert list(few.held) == list(few._seen) == feeds[:2]


def test_switches_hold_for_every_recipe() -> None:
    graph, feeds = outlier_network(True)
    switches = Switches(ObserverKind.PERCENTILE, equalize=0.25, rounding=RoundingKind.SECOND_ORDER, correct_bias=False)
    told = Search(graph, QUANT_RULES, feeds, Effort.HIGH, switches).run().report["search"]
    fitted = [trial["recipe"] for trial in told["trials"] if "second-order" in trial["recipe"]]
    assert fitted == ["percentile, equalize 0.25, second-order without bias correction"]
    assert all(trial["recipe"].startswith("percentile") for trial in told["trials"])


def test_ratios_of_nothing_and_of_everything() -> None:
    some, none = np.ones(4, np.float32), np.zeros(4, np.float32)
    assert sqnr_db({"y": some}, {"y": some}) == 120
    assert sqnr_db({"y": none}, {"y": some}) == -120
    assert sqnr_db({"y": some}, {"y": some * np.nan}) == -120
    assert sqnr_db({"y": some}, {"y": some * 0.9}) == pytest.approx(20, abs=1e-3)
    assert sqnr_db({"y": np.ones(4, np.int64)}, {"y": np.ones(4, np.int64)}) == 120
