# SPDX-License-Identifier: Apache-2.0
"""Files, shapes, errors, constant folding, control flow and onnxsim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gadl.compiler.diag import Diagnostic, GadlError, Severity
from gadl.compiler.ir.interpret import interpret
from gadl.frontends.onnx import fold, import_onnx, simplify, supported_op_types

from .models import model_of, onnxruntime_run

F32 = np.float32


def real(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, shape).astype(F32)


def node(op: str, inputs: str, output: str, **attrs: Any) -> Any:
    return helper.make_node(op, inputs.split(), output.split(), output, **attrs)


def open_model(*dims: Any) -> onnx.ModelProto:
    """relu(x + y) with the given dimensions."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in ("x", "y")]
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([node("Add", "x y", "s"), node("Relu", "s", "z")], "g", infos, [out]))


def codes(call: Any) -> list[str]:
    with pytest.raises(GadlError) as caught:
        call()
    return [d.code for d in caught.value.diagnostics]


def test_sources(tmp_path: Path) -> None:
    """A path, bytes and an object are the same model; names of inputs and outputs are the model's."""
    model = model_of([node("Relu", "in:0", "out/0")], {"in:0": real(2, 3)}, outputs=("out/0",))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    for source in (path, str(path), model.SerializeToString(), model):
        graph = import_onnx(source)
        assert [v.name for v in graph.inputs] == ["in:0"] and graph.output_names == ["out/0"]
        assert graph.ops[0].loc.node == "out/0"
    assert import_onnx(path).name == "m" and import_onnx(path).ops[0].loc.file == "m.onnx"


def test_dynamic_shapes() -> None:
    """`shapes` fixes dimensions; every open one and every wrong name is reported at once."""
    model = open_model("batch", 3)
    assert import_onnx(model, {"x": (2, 3), "y": (1, 3)}).outputs[0].shape == (2, 3)
    assert codes(lambda: import_onnx(model)) == ["GADL-F003", "GADL-F003"]
    assert codes(lambda: import_onnx(model, {"q": (1,), "x": (1, 3)})) == ["GADL-F006", "GADL-F003"]
    assert codes(lambda: import_onnx(model, {"x": (1, 4), "y": (1, 3, 1)})) == ["GADL-F007", "GADL-F007"]
    assert codes(lambda: import_onnx(model, {"x": (0, 3), "y": (1, 3)})) == ["GADL-F007"]
    assert codes(lambda: import_onnx(open_model(0, 3), {"x": (1, 3)})) == ["GADL-F003"]
    with pytest.raises(GadlError, match=r"--shape x:1,3"):
        import_onnx(model)


def test_every_offending_node_is_reported() -> None:
    """Two of them, each with its place; what depends on them is not."""
    nodes = [
        node("Relu", "x", "a"), node("NonMaxSuppression", "a a", "b"), node("Relu", "b", "c"), node("Add", "x w", "d"),
        node("Add", "c d", "y"),
    ]  # fmt: skip
    model = model_of([nodes[0], nodes[3]], {"x": real(2, 3)}, {"w": real(2, 3)}, ("d",))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(real(5, 4), "w"))
    with pytest.raises(GadlError) as caught:
        import_onnx(model, simplify=False)
    assert [(d.code, d.where) for d in caught.value.diagnostics] == [
        ("GADL-F002", "<model>: node 'b' (#1)"), ("GADL-F005", "<model>: node 'd' (#3)"),
    ]  # fmt: skip
    assert caught.value.exit_code == 3


def test_unused_results_of_a_node_are_no_error() -> None:
    two = helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2])
    assert import_onnx(model_of([two], {"x": real(1, 2, 4)})).ops[0].name == "max_pool"
    with pytest.raises(GadlError, match="indices"):
        import_onnx(model_of([two], {"x": real(1, 2, 4)}, outputs=("y", "indices")), simplify=False)


def test_old_opset() -> None:
    model = model_of([node("Relu", "x", "y")], {"x": real(2)})
    model.opset_import[0].version = 6
    assert codes(lambda: import_onnx(model)) == ["GADL-F008"]


def test_shape_arithmetic_disappears() -> None:
    """What exporters write for `x.view(x.size(0), -1)`, `x[:, x.size(1) // 2:]` and an expand."""
    constants = {"0": np.int64(0), "1": np.int64(1), "2": np.int64(2), "ax": np.array([0]), "-1": np.array([-1]), "end": np.array([999])}
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s 0", "n", axis=0), node("Unsqueeze", "n ax", "n1"),
        node("Concat", "n1 -1", "target", axis=0), node("Reshape", "x target", "flat"),
        node("Gather", "s 1", "c", axis=0), node("Div", "c 2", "half"), node("Unsqueeze", "half ax", "h1"),
        node("Unsqueeze", "1 ax", "axes"), node("Slice", "x h1 end axes", "part"),
        node("ConstantOfShape", "s", "zeros"), node("NonZero", "s", "nz"), node("Cast", "nz", "f", to=1), node("ReduceSum", "f", "sum", keepdims=0),
        node("Add", "part sum", "y"), node("Mul", "flat sum", "z"), node("Add", "x zeros", "w"),
    ]  # fmt: skip
    x = real(2, 4, 3)
    model = model_of(nodes, {"x": x}, constants, ("y", "z", "w"))
    graph = import_onnx(model, simplify=False)
    assert [op.name for op in graph.ops] == ["reshape", "slice", "add", "mul", "add"]
    for name, expected in onnxruntime_run(model, {"x": x}).items():
        np.testing.assert_allclose(interpret(graph, {"x": x})[name], expected, rtol=1e-6)


def test_constants_without_an_ir_op() -> None:
    """TopK and ScatterND of constants, by ONNX's reference."""
    constants = {"d": np.array([3, 1, 2], F32), "k": np.array([2]), "at": np.array([[0], [2]]), "z": np.zeros(3, F32)}
    nodes = [node("TopK", "d k", "v i"), node("ScatterND", "z at v", "s"), node("Add", "x s", "y")]
    model = model_of(nodes, {"x": real(2, 3)}, constants)
    graph = import_onnx(model, simplify=False)
    assert [op.name for op in graph.ops] == ["add"]
    np.testing.assert_array_equal(graph.ops[0].inputs[1].data, np.array([3, 0, 2], F32))


@pytest.mark.parametrize("taken", [True, False])
def test_if_of_a_constant(taken: bool) -> None:
    """The chosen branch takes its place and may read the outer graph."""
    branches = {
        name: helper.make_graph([node(op, "x", name)], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [node("Shape", "x", "s"), node("ReduceSum", "s", "n", keepdims=0), node("Greater", "n limit", "c"),
             node("If", "c", "i", **branches), node("Abs", "i", "y")]  # fmt: skip
    x = real(2, 3)
    graph = import_onnx(model_of(nodes, {"x": x}, {"limit": np.int64(4 if taken else 5)}), simplify=False)
    assert [op.name for op in graph.ops] == ["relu" if taken else "neg", "abs"]
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], np.maximum(x, 0) if taken else np.abs(x))


def test_functions_of_the_model() -> None:
    body = [node("Relu", "a", "b"), node("Add", "b a", "c")]
    function = helper.make_function("local", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    call = helper.make_node("Twice", ["x"], ["y"], domain="local")
    graph = import_onnx(model_of([call], {"x": real(2, 3)}, functions=[function]), simplify=False)
    assert [op.name for op in graph.ops] == ["relu", "add"]


def test_product_with_a_constant_is_a_view() -> None:
    """A MatMul by [K, N] becomes a linear layer over the transposed view of the same buffer."""
    weights = real(4, 5)
    graph = import_onnx(model_of([node("MatMul", "x w", "y")], {"x": real(3, 4)}, {"w": weights}), simplify=False)
    held = graph.ops[0].inputs[1].data
    assert graph.ops[0].name == "linear" and held is not None and held.shape == (5, 4) and held.base is not None
    np.testing.assert_array_equal(held, weights.T)


@pytest.mark.parametrize("stop", [9, 2])
def test_loop_of_constant_length(stop: int) -> None:
    """v doubles while i < stop, at most three times; the values on the way are collected."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Add", "v v", "v2"), node("Mul", "v2 x", "seen"), node("Add", "i one", "next"), node("Less", "next stop", "cond2")],
        "body",
        [info("i", TensorProto.INT64, ()), info("cond", TensorProto.BOOL, ()), info("v", TensorProto.FLOAT, (2,))],
        [info("cond2", TensorProto.BOOL, ()), info("v2", TensorProto.FLOAT, (2,)), info("seen", TensorProto.FLOAT, (2,))],
    )
    constants = {"n": np.int64(3), "c": np.bool_(True), "k": np.ones(2, F32), "one": np.int64(1), "stop": np.int64(stop)}
    x = real(2)
    model = model_of([node("Loop", "n c k", "last all", body=body), node("Add", "x last", "y")], {"x": x}, constants, ("y", "all"))
    graph = import_onnx(model, simplify=False)
    found = interpret(graph, {"x": x})
    for name, expected in onnxruntime_run(model, {"x": x}).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
    assert "mul" in {op.name for op in graph.ops}


# -- onnxsim ---------------------------------------------------------------


def large_constant(monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """A model with a constant that is too large for ONNX's reference."""
    monkeypatch.setattr(fold, "MOST_REFERENCE_ELEMENTS", 0)
    nodes = [node("TopK", "d k", "v i"), node("Add", "x v", "y")]
    return model_of(nodes, {"x": real(2)}, {"d": np.array([3, 1, 2], F32), "k": np.array([2])})


def test_second_chance_through_onnxsim(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxsim")
    model = large_constant(monkeypatch)
    assert codes(lambda: import_onnx(model, simplify=False)) == ["GADL-F002"]
    graph = import_onnx(model)
    assert [op.name for op in graph.ops] == ["add"]
    np.testing.assert_allclose(interpret(graph, {"x": np.zeros(2, F32)})["y"], [3, 2])


@pytest.mark.parametrize(
    ("child", "detail"),
    [("import sys; sys.exit('no such thing')", "no such thing"), ("import time; time.sleep(60)", "longer than"),
     ("import os; os.abort()", "ended with code")],
)  # fmt: skip
def test_onnxsim_fails(monkeypatch: pytest.MonkeyPatch, child: str, detail: str) -> None:
    """Its failure is a warning; the error is about the model's own nodes."""
    monkeypatch.setattr(simplify, "_CHILD", child)
    monkeypatch.setattr(simplify.simplified, "__defaults__", (1.0,))
    warnings: list[Diagnostic] = []
    with pytest.raises(GadlError, match="TopK"):
        import_onnx(large_constant(monkeypatch), warn=warnings.append)
    assert [(w.code, w.severity) for w in warnings] == [("GADL-F004", Severity.WARNING)]
    assert detail in warnings[0].values["detail"]


def test_onnxsim_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplify, "_CHILD", "import sys; sys.exit(3)")
    warnings: list[Diagnostic] = []
    model = large_constant(monkeypatch)
    assert codes(lambda: import_onnx(model, warn=warnings.append)) == ["GADL-F002"]
    assert not warnings


def test_declared_op_types_are_unique() -> None:
    assert len(supported_op_types()) == len(set(supported_op_types())) > 120
