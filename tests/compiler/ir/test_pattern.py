# SPDX-License-Identifier: Apache-2.0
"""Patterns over producer chains."""

from __future__ import annotations

import pytest
from graphs import graph_of

from gadl.compiler.ir.pattern import only_user, producer, scalar, split_operands, with_scalar

GRAPH = graph_of("""\
  input %x : f32[2,3]
  const %two : f32[1,1,1] = f32[1,1,1] [2.0]
  const %row : f32[3] = f32[3] [2.0, 2.0, 2.0]
  const %mixed : f32[3] = f32[3] [2.0, 2.0, 3.0]
  const %none : f32[0] = f32[0] []
  %a : f32[2,3] = mul(%x, %row)
  %b : f32[2,3] = mul(%row, %x)
  %c : f32[2,3] = sub(%row, %x)
  %d : f32[2,3] = add(%x, %mixed)
  %e : f32[1,2,3] = mul(%x, %two)
  %f : f32[2,3] = neg(%a)
  %g : f32[2,3] = add(%b, %b)
  %h : f32[0] = neg(%none)
  output "y" = %f
  output "z" = %c""")
VALUES = {v.name: v for v in GRAPH.values()}


def test_scalars() -> None:
    assert {n: scalar(VALUES[n]) for n in ("two", "row", "mixed", "none", "x")} == {
        "two": 2.0, "row": 2.0, "mixed": None, "none": None, "x": None
    }  # fmt: skip
    assert scalar(None) is None


@pytest.mark.parametrize(("name", "op", "matches"), [
    ("a", "mul", True), ("b", "mul", True), ("c", "sub", False), ("d", "add", False), ("a", "add", False), ("e", "mul", False),
])  # fmt: skip
def test_ops_with_a_scalar(name: str, op: str, matches: bool) -> None:
    """Both orders where the op commutes; a constant that adds axes is no scalar."""
    found = with_scalar(VALUES[name].producer, op)
    assert found == ((VALUES["x"], 2.0) if matches else None)


def test_producers_and_users() -> None:
    assert producer(VALUES["f"], "neg") is VALUES["f"].producer
    assert producer(VALUES["f"], "mul", "add") is None and producer(VALUES["x"]) is None and producer(None) is None
    assert only_user(VALUES["a"], GRAPH) is VALUES["f"].producer
    assert only_user(VALUES["b"], GRAPH) is None, "read twice by one op"
    assert only_user(VALUES["c"], GRAPH) is None, "an output"


def test_splitting_operands() -> None:
    d = VALUES["d"].producer
    assert d is not None
    assert split_operands(d, lambda v: v.is_constant) == (VALUES["mixed"], VALUES["x"])
    assert split_operands(d, lambda v: not v.is_constant) == (VALUES["x"], VALUES["mixed"])
    assert split_operands(d, lambda v: v.name == "q") is None
