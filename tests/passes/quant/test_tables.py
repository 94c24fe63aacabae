# SPDX-License-Identifier: Apache-2.0
"""Cutting the flat tails of functions that become tables."""

from __future__ import annotations

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.choose_params import integer_ops
from gadl.passes.quant.observers import Range
from gadl.passes.quant.quantize import quantize_graph
from gadl.passes.quant.tables import without_flat_tails
from gadl.targets.npu.quant_rules import QUANT_RULES


def narrowed(reach: float, *functions: str, extra_reader: bool = False) -> Range:
    """The range left to a tensor of [-reach, reach] that the functions read."""
    graph = Graph()
    build = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, (8,)))
    made: list[Value] = [build(f, x, result=f"y{i}") for i, f in enumerate(functions)]
    if extra_reader:
        made.append(build("add", x, x, result="sum"))
    graph.set_outputs(made)
    feed = {"x": np.linspace(-reach, reach, 8, dtype=np.float32)}
    ranges = calibrate(graph, [feed])
    return without_flat_tails(graph, ranges, QUANT_RULES, integer_ops(graph, QUANT_RULES))["x"]


def test_hard_swish_is_zero_left_of_minus_three() -> None:
    found = narrowed(20, "hard_swish")
    assert -3.1 < found.low <= -2.5
    assert found.high == 20


def test_a_sigmoid_saturates_on_both_sides() -> None:
    found = narrowed(40, "sigmoid")
    assert -8 < found.low < -5
    assert 5 < found.high < 8


def test_every_reader_keeps_what_it_needs() -> None:
    both = narrowed(20, "hard_swish", "hard_sigmoid")
    assert -3.1 < both.low <= -2.5
    assert both.high == 20
    assert narrowed(20, "hard_swish", extra_reader=True) == Range.of(-20, 20)


@pytest.mark.parametrize("function", ["tanh", "gelu", "exp"])
def test_a_function_that_changes_everywhere_keeps_its_range(function: str) -> None:
    assert narrowed(1, function) == Range.of(-1, 1)


def test_finer_steps_inside_lower_the_error() -> None:
    """Behind a convolution with a long negative tail, hard-swish is read in steps of its own reach."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    x[0, 0, 0, 0] = -400
    graph = Graph()
    build = Builder(graph)
    value = graph.add_input("x", TensorType(DType.F32, x.shape))
    graph.set_outputs([build("hard_swish", value)], ["y"])
    made = quantize_graph(graph, calibrate(graph, [{"x": x}]), QUANT_RULES).graph
    error = np.abs(interpret(made, {"x": x})["y"] - interpret(graph, {"x": x})["y"])
    assert error.max() < 0.05, "a step of the whole range is 1.6"
