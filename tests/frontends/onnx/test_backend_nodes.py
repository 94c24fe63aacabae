# SPDX-License-Identifier: Apache-2.0
"""ONNX's own node tests for every op type that imports: the graph must give ONNX's expected outputs."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
import pytest

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.verify import verify
from gadl.frontends.onnx import import_onnx, supported_op_types

from .backend_known_failures import KNOWN_FAILURES

#: Modules of onnx.backend.test.case.node by op type in lower case.
MODULES = {name.replace("_", ""): name for _, name, _ in pkgutil.iter_modules(node_cases.__path__)}
OP_TYPES = [op for op in supported_op_types() if op.lower() in MODULES]

HELD_TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL")


def cases(op_type: str) -> Iterator[Any]:
    """The test cases of one op type, without the ones that ONNX expands into other ops."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        importlib.import_module(f"{node_cases.__name__}.{MODULES[op_type.lower()]}")
    for case in node_cases._NodeTestCases:
        if [n.op_type for n in case.model.graph.node] == [op_type] and case.model.graph.node[0].domain == "":
            # Some ops have not changed since opset 1.
            case.model.opset_import[0].version = max(7, case.model.opset_import[0].version)
            yield case


def bake(model: Any, index: int, inputs: dict[str, Any]) -> Any:
    """The model with input `index` of its node as an initializer."""
    baked = onnx.ModelProto()
    baked.CopyFrom(model)
    name = baked.graph.node[0].input[index]
    (place,) = (i for i, v in enumerate(baked.graph.input) if v.name == name)
    del baked.graph.input[place]
    baked.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(inputs[name]), name))
    return baked


def imported(model: Any, inputs: dict[str, Any]) -> Any:
    """The graph; inputs that must be constants (shapes, axes, pads, scales) are made so, one after the other."""
    names = list(model.graph.node[0].input)
    for index, name in enumerate(names):
        if index and name and not np.asarray(inputs[name]).size:
            model = bake(model, index, inputs)
    while True:
        try:
            return import_onnx(model, simplify=False)
        except GadlError as error:
            detail = str(error.diagnostics[0].values.get("detail", ""))
            if not detail.endswith("must be a constant"):
                raise
            model = bake(model, int(detail.split()[1]), inputs)


def as_array(value: Any) -> Any:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def outcome(case: Any) -> str:
    """Empty where the case passes, else what went wrong."""
    if foreign_types(case):
        with pytest.raises(GadlError):
            import_onnx(case.model, simplify=False)
        return ""
    for given, expected in case.data_sets:
        given, expected = ([as_array(v) for v in arrays] for arrays in (given, expected))
        inputs = dict(zip([v.name for v in case.model.graph.input], given))
        try:
            graph = imported(case.model, inputs)
            verify(graph)
            found = interpret(graph, {v.name: inputs[v.name] for v in graph.inputs})
        except GadlError as error:
            return " ".join(str(error).split())
        for name, wanted in zip([v.name for v in case.model.graph.output], expected):
            result = found[name]
            if result.dtype != wanted.dtype or result.shape != wanted.shape:
                return f"{name}: {result.dtype}{result.shape} for {wanted.dtype}{wanted.shape}"
            if not np.allclose(
                result.astype(np.float64), wanted.astype(np.float64), rtol=case.rtol, atol=max(case.atol, 1e-6), equal_nan=True
            ):
                worst = np.abs(result.astype(np.float64) - wanted.astype(np.float64)).max()
                return f"{name}: values differ by {worst}"
    return ""


def foreign_types(case: Any) -> bool:
    """True where an input or output has a type that the IR does not hold (strings, sequences, u16, f8, i4, ...)."""
    held = {onnx.TensorProto.DataType.Value(n) for n in HELD_TYPES}
    values = (*case.model.graph.input, *case.model.graph.output)
    return any(v.type.WhichOneof("value") != "tensor_type" or v.type.tensor_type.elem_type not in held for v in values)


@pytest.mark.parametrize("op_type", OP_TYPES)
def test_node(op_type: str) -> None:
    """Every case passes, or fails and is listed with its reason; a listed one that passes is an error too."""
    names, surprises = [], {}
    for case in cases(op_type):
        names.append(case.name)
        listed = [pattern for pattern in KNOWN_FAILURES if fnmatch.fnmatchcase(case.name, pattern)]
        failure = outcome(case)
        if bool(failure) != bool(listed):
            surprises[case.name] = failure or f"passes, but is listed as '{listed[0]}'"
    assert names, "ONNX has no case for this op type"
    assert not surprises, "\n" + "\n".join(f"{name}: {text}" for name, text in surprises.items())


def test_known_failures_exist() -> None:
    """Every pattern names a case."""
    names = [case.name for op_type in OP_TYPES for case in cases(op_type)]
    assert [p for p in KNOWN_FAILURES if not fnmatch.filter(names, p)] == []
