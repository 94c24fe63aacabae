# SPDX-License-Identifier: Apache-2.0
"""Graphs: names, use lists, edits, the builder."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import EVERYTHING, graph_of

from gadl.compiler.ir.graph import Graph, Location
from gadl.compiler.ir.opdef import Builder, OpError
from gadl.compiler.ir.parser import parse
from gadl.compiler.ir.printer import print_graph
from gadl.compiler.ir.types import DType, QuantParams, TensorType
from gadl.compiler.ir.verify import verify

F32 = TensorType(DType.F32, (2,))
CHAIN = '  input %x : f32[2]\n  %a : f32[2] = neg(%x)\n  %b : f32[2] = add(%a, %a)\n  %c : f32[2] = neg(%b)\n  output "y" = %b'


def test_names_stay_unique() -> None:
    graph = Graph()
    names = [graph.add_input(n, F32).name for n in ("a", "a_1", "a", "a", "a_1")]
    assert names == ["a", "a_1", "a_2", "a_3", "a_1_1"]


def test_replacing_uses_reaches_operands_and_outputs() -> None:
    graph = graph_of(CHAIN)
    a, b, _ = (op.result for op in graph.ops)
    graph.replace_uses(a, graph.inputs[0])
    assert a.users == [] and graph.inputs[0].users.count(graph.ops[1]) == 2
    graph.replace_uses(b, graph.inputs[0])
    assert graph.outputs == graph.inputs and graph.output_names == ["y"]
    verify(graph)


def test_dead_ops_go_in_one_sweep() -> None:
    graph = graph_of(CHAIN)
    assert graph.remove_dead_ops() == 1
    graph.set_outputs([graph.inputs[0]])
    assert graph.remove_dead_ops() == 2
    assert graph.inputs[0].users == [] and graph.remove_dead_ops() == 0


def test_used_ops_are_not_erased() -> None:
    graph = graph_of(CHAIN)
    for op in graph.ops[:2]:
        with pytest.raises(ValueError, match="still in use"):
            graph.erase(op)
    graph.erase(graph.ops[2])
    verify(graph)


def test_clones_share_buffers_and_nothing_else() -> None:
    graph = parse(EVERYTHING)
    copy = graph.clone()
    assert print_graph(copy) == EVERYTHING
    assert all(a.data is b.data for a, b in zip(graph.constants(), copy.constants(), strict=True))
    copy.ops[1].attrs["groups"] = 9
    copy.ops[-1].result.name = "renamed"
    copy.replace_uses(copy.inputs[0], copy.inputs[1])
    assert print_graph(graph) == EVERYTHING


def test_builder_inserts_before_an_op_and_keeps_its_place() -> None:
    graph = graph_of(CHAIN)
    graph.ops[1].loc = Location("m.onnx", "sum", 3)
    builder = Builder.before(graph, graph.ops[1])
    first = builder("exp", graph.ops[0].result)
    second = builder("log", first)
    assert [op.name for op in graph.ops] == ["neg", "exp", "log", "add", "neg"]
    assert second.producer is not None and second.producer.loc.node == "sum"
    verify(graph)


def test_builder_checks_and_takes_quantised_types() -> None:
    graph = graph_of(CHAIN)
    x, builder = graph.inputs[0], Builder(graph)
    before = print_graph(graph)
    for wrong in (TensorType(DType.F32, (3,)), TensorType(DType.I8, (2,))):
        with pytest.raises(OpError, match="makes f32"):
            builder("neg", x, type=wrong)
    with pytest.raises(OpError, match="operand types"):
        builder("add", x, graph.constant(np.zeros(2)))
    assert print_graph(graph) == before
    q = builder("quantize", x, type=TensorType(DType.I16, (2,), QuantParams((0.1,))))
    assert q.quant == QuantParams((0.1,)) and q.dtype is DType.I16


def test_absent_operands_at_the_end_vanish() -> None:
    graph = Graph()
    x, w = graph.add_input("x", TensorType(DType.F32, (2, 3))), graph.constant(np.zeros((4, 3), np.float32))
    linear = Builder(graph)("linear", x, w, None, None).producer
    assert linear is not None and len(linear.operands) == 2
    residual = Builder(graph)("linear", x, w, None, graph.constant(np.zeros((2, 4), np.float32))).producer
    assert residual is not None and residual.operand(2) is None and residual.operand(9) is None and len(residual.inputs) == 3
    verify(graph)
