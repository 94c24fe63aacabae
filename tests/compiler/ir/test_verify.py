# SPDX-License-Identifier: Apache-2.0
"""The verifier names everything that is wrong, and lets valid graphs pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graphs import EVERYTHING, graph_of

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph, Op, Placement, Value
from gadl.compiler.ir.parser import parse
from gadl.compiler.ir.types import DType, Requant, Rounding, TensorType
from gadl.compiler.ir.verify import requant_violations, verify, violations

CHAIN = """\
  input %x : f32[2,3]
  %a : f32[2,3] = neg(%x) loc("m.onnx", "first", "", 1)
  %b : f32[2,3] = add(%a, %x) loc("m.onnx", "second", "", 2)
  output "y" = %b"""
CONV = "conv(%x, %w) {strides = (1,), pads = (0, 0), dilations = (1,), groups = 1"


def found(graph: Graph) -> list[str]:
    """The violations' texts."""
    return [d.values["detail"] for d in violations(graph)]


def test_valid_graphs_pass() -> None:
    assert found(graph_of(CHAIN)) == [] == found(parse(EVERYTHING))


def _swap(graph: Graph) -> None:
    graph.ops.reverse()


def _rename(graph: Graph) -> None:
    graph.ops[0].result.name = "x"


def _forget_use(graph: Graph) -> None:
    graph.inputs[0].users.clear()


def _double_use(graph: Graph) -> None:
    graph.inputs[0].users.append(graph.ops[0])


def _stale_user(graph: Graph) -> None:
    graph.inputs[0].users.append(Op("neg", [], {}))


def _retype(graph: Graph) -> None:
    graph.ops[0].result.type = TensorType(DType.F32, (2, 4))


def _to_half(graph: Graph) -> None:
    graph.ops[1].result.type = TensorType(DType.F16, (2, 3))


def _orphan_output(graph: Graph) -> None:
    graph.outputs = [Value("lost", TensorType(DType.F32, (1,)))]


def _unname(graph: Graph) -> None:
    graph.output_names = []


def _double_name(graph: Graph) -> None:
    graph.set_outputs([graph.ops[0].result, graph.ops[1].result], ["y", "y"])


def _attribute(graph: Graph) -> None:
    graph.ops[0].attrs["axis"] = 1


def _unknown(graph: Graph) -> None:
    graph.ops[0].name = "warp"


def _drop(graph: Graph) -> None:
    graph.ops[1].set_operand(1, None)


def _constant(graph: Graph) -> None:
    value = graph.constant(np.zeros((2, 3), np.float32), "c")
    graph.ops[1].set_operand(1, value)
    value.data = np.zeros((2, 3))


def _producer(graph: Graph) -> None:
    graph.ops[1].result.producer = graph.ops[0]


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (_swap, "'add' reads 'a' before it is made"),
        (_rename, "two values are called 'x'"),
        (_forget_use, "the use list of 'x' has 'neg' 0 times"),
        (_double_use, "the use list of 'x' has 'neg' 2 times"),
        (_stale_user, "'x' is said to be read by an op outside the graph"),
        (_retype, "'neg' makes shape (2, 3), 'a' says (2, 4)"),
        (_to_half, "'add' makes f32, 'b' says f16"),
        (_orphan_output, "output 'lost' is never made"),
        (_unname, "outputs and their names differ in number"),
        (_double_name, "two outputs have one name"),
        (_attribute, "'neg' has no attribute 'axis'"),
        (_unknown, "there is no op 'warp'"),
        (_drop, "'add' needs operand 'b'"),
        (_constant, "constant 'c' holds float64[2, 3], not f32[2,3]"),
        (_producer, "'b' names another producer than 'add'"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_damage_is_named(damage: Callable[[Graph], None], detail: str) -> None:
    graph = graph_of(CHAIN)
    damage(graph)
    assert detail in found(graph)


def test_all_violations_come_at_once_with_their_places() -> None:
    graph = graph_of(CHAIN)
    _attribute(graph)
    graph.ops[1].attrs["clamp"] = (0.0,)
    with pytest.raises(GadlError) as caught:
        verify(graph)
    assert [(d.code, d.where) for d in caught.value.diagnostics] == [
        ("GADL-I001", "m.onnx: node 'first' (#1)"), ("GADL-I001", "m.onnx: node 'second' (#2)")
    ]  # fmt: skip


def test_every_op_is_checked_for_order() -> None:
    graph = graph_of(CHAIN.replace("  output", "  %c : f32[2,3] = neg(%b)\n  output"))
    graph.ops[1:] = reversed(graph.ops[1:])
    assert found(graph) == ["'neg' reads 'b' before it is made"]


def test_symbolic_shapes_are_a_violation() -> None:
    assert "symbolic" in found(graph_of("  input %x : f32[n,3]\n  %a : f32[n,3] = add(%x, %x)"))[0]


def test_float_graphs_hold_no_integer_arithmetic() -> None:
    body = (
        "  input %x : i8[2]<s=[1.0],z=0>\n  %a : i8[2] = requantize(%x) {requant = requant(up, i32[1] [1073741824], i8[1] [31])}\n"
        "  %b : i8[2] = mul(%x, %x) {requant = requant(up, i32[1] [1073741824], i8[1] [31])}\n  %c : f32[2] = dequantize(%x)"
    )
    assert found(graph_of(body)) == ["integer 'requantize' in a float graph", "integer 'mul' in a float graph"]
    assert found(graph_of(body, "quantized")) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("%y : i8[1,2,3] = " + CONV + "}", "'conv' on integers without 'requant'"),
        ("%y : i8[1,2,3] = " + CONV + ", requant = requant(up, i32[3] [1, 1, 1], i8[3] [1, 1, 1])}", "3 multipliers, expected 1 or 2"),
        ("%y : i8[1,2,3] = " + CONV + ", requant = requant(up, i32[1] [1], i8[1] [63])}", "shifts are 63 to 63, allowed are 1 to 62"),
        ("%y : i8[1,2,3] = " + CONV + ", requant = requant(up, i32[1] [-1], i8[1] [31])}", "a multiplier is negative"),
        ("%y : i8[1,2,3] = " + CONV + ", requant = requant(f32, i32[1] [-1], i8[1] [-9])}", None),
        ("%y : i8[1,2,3] = " + CONV + ", requant = requant(up, i32[2] [1, 0], i8[2] [31, 1])}", None),
        ("%y : i8[1,2,3] = add(%x, %x)", "'add' on integers without 'requant'"),
        ("%y : i8[1,2,3] = max(%x, %x)", None),
        ("%y : i8[1,2,6] = resize(%x) {sizes = (1, 2, 6), scales = (1.0, 1.0, 2.0), mode = \"nearest\", coordinate = \"half_pixel\", "
         "nearest = \"floor\", cubic_a = -0.75}", None),
    ],
)  # fmt: skip
def test_integer_arithmetic_is_rescaled_in_range(line: str, complaint: str | None) -> None:
    graph = graph_of(
        "  input %x : i8[1,2,3]<s=[1.0],z=0>\n  const %w : i8[2,2,1]<s=[1.0],z=0> = i8[2,2,1] [1, 2, 3, 4]\n  " + line, "quantized"
    )
    details = found(graph)
    assert details == [] if complaint is None else any(complaint in d for d in details)


def test_gemmlowp_rounding_has_a_least_shift() -> None:
    requant = Requant(np.array([1 << 30], np.int32), np.array([30], np.int8), Rounding.TFL2)
    assert list(requant_violations(requant, (1,))) == ["shifts are 30 to 30, allowed are 31 to 62"]


def test_placed_graphs_place_every_op() -> None:
    graph = graph_of(CHAIN, "placed")
    assert found(graph) == ["'neg' has no placement", "'add' has no placement"]
    for op in graph.ops:
        op.placement = Placement("npu", 0)
    assert found(graph) == []
