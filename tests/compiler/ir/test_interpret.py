# SPDX-License-Identifier: Apache-2.0
"""The interpreter's own duties: feeds, outputs, memory."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from graphs import graph_of

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.interpret import check_feeds, interpret, interpret_values
from gadl.compiler.ir.opdef import op_def

GRAPH = """\
  input %x : f32[2,3]
  input %n : i64[2]
  const %c : f32[3] = f32[3] [1.0, 2.0, 3.0]
  %a : f32[2,3] = add(%x, %c)
  %b : f32[2,3] = neg(%a)
  %d : f32[2,3] = neg(%b)
  output "sum" = %d
  output "input" = %n
  output "constant" = %c"""
X = np.arange(6, dtype=np.float32).reshape(2, 3)
N = np.array([7, 8])


def test_outputs_have_the_interfaces_names() -> None:
    results = interpret(graph_of(GRAPH), {"x": X, "n": N})
    assert {k: v.tolist() for k, v in results.items()} == {
        "sum": [[1, 3, 5], [4, 6, 8]], "input": [7, 8], "constant": [1, 2, 3]
    }  # fmt: skip


def test_every_value_on_request() -> None:
    values = interpret_values(graph_of(GRAPH), {"x": X, "n": N})
    assert sorted(values) == ["a", "b", "d", "n", "x"]
    assert values["b"].tolist() == [[-1, -3, -5], [-4, -6, -8]]


def test_dead_values_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    neg = op_def("neg")
    original = neg.evaluate.__func__  # type: ignore[attr-defined]

    def watched(cls: Any, op: Any, inputs: Any) -> Any:
        results = original(cls, op, inputs)
        assert all(ref() is None for ref in seen[:-1]), "a value outlived its last reader"
        seen.append(weakref.ref(results[0]))
        return results

    monkeypatch.setattr(neg, "evaluate", classmethod(watched))
    lines = "\n".join(f"  %v{i} : f32[4] = neg(%{f'v{i - 1}' if i else 'x'})" for i in range(6))
    graph = graph_of(f'  input %x : f32[4]\n{lines}\n  output "y" = %v5')
    interpret(graph, {"x": np.ones(4, np.float32)})
    assert len(seen) == 6


def test_all_wrong_feeds_are_named_at_once() -> None:
    with pytest.raises(GadlError) as caught:
        check_feeds(graph_of(GRAPH), {"x": X.T, "m": N})
    assert [(d.code, d.values["name"], d.values["detail"]) for d in caught.value.diagnostics] == [
        ("GADL-I010", "x", "shape (3, 2), expected (2, 3)"), ("GADL-I010", "n", "missing"), ("GADL-I010", "m", "no such input")
    ]  # fmt: skip
    assert caught.value.exit_code == 2


def test_feeds_are_converted_and_dense() -> None:
    feeds = check_feeds(graph_of(GRAPH), {"x": np.asfortranarray(X.astype(np.float64)), "n": [7, 8]})  # type: ignore[dict-item]
    assert feeds["x"].dtype == np.float32 and feeds["x"].flags.c_contiguous and feeds["n"].dtype == np.int64


def test_inputs_and_constants_stay_as_they_are() -> None:
    graph = graph_of(GRAPH)
    x, constant = X.copy(), graph.constants()[0].data
    x.flags.writeable = False
    interpret(graph, {"x": x, "n": N})
    np.testing.assert_array_equal(x, X)
    assert constant is not None and constant.tolist() == [1, 2, 3]
