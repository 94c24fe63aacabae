# SPDX-License-Identifier: Apache-2.0
"""The importer: walks an ONNX graph and calls one function per op type.

An op function reads the node by its own opset's rules and returns the IR values of the node's outputs. Ops on constants
are evaluated at once, so shape arithmetic disappears while it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic
from gadl.compiler.ir.graph import Graph, Location, Value
from gadl.compiler.ir.opdef import Builder, OpError, op_def
from gadl.compiler.ir.types import Array, DType, TensorType

#: Largest constant that import-time evaluation may produce, in elements.
MOST_FOLDED = 1 << 24


class Unsupported(Exception):
    """A node that the IR cannot express; the text says why."""


@dataclass
class Node:
    """One ONNX node as op functions see it."""

    importer: Importer
    node: Any
    inputs: list[Value | None]
    opset: int

    @property
    def op_type(self) -> str:
        """The ONNX op type."""
        return str(self.node.op_type)

    def operand(self, index: int) -> Value:
        """Input `index`, which must be there."""
        value = self.optional(index)
        if value is None:
            raise Unsupported(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """Input `index`, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int) -> Array | None:
        """The constant at input `index`, None where the input is absent; `Unsupported` when it is not constant."""
        value = self.optional(index)
        if value is None:
            return None
        if value.data is None:
            raise Unsupported(f"input {index} must be a constant")
        return value.data

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a plain Python value (str, int, float, list, array)."""
        found = self.node.attributes.get(name)
        if found is None:
            return default
        value = found.value
        if found.type == onnx_ir.AttributeType.TENSOR:
            return value.numpy()
        return value.decode() if isinstance(value, bytes) else value

    def ints(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        """A list of integers that is an attribute in old opsets and input `index` in new ones."""
        given = self.attr(name)
        if given is None and index is not None:
            array = self.constant(index)
            given = None if array is None else array.reshape(-1).tolist()
        return None if given is None else tuple(int(v) for v in given)

    def emit(self, name: str, *operands: Value | None, **attrs: Any) -> Value:
        """Add an IR op; evaluated at once when all operands are constants."""
        return self.importer.emit(self, name, operands, attrs)

    def const(self, array: Array | Sequence[float] | float, dtype: DType | None = None) -> Value:
        """A constant value."""
        data = np.asarray(array) if dtype is None else np.asarray(array, dtype.numpy)
        return self.importer.graph.constant(data, f"{self.node.name or self.op_type}.const")


OpFunction = Callable[[Node], Value | list[Value]]
_FUNCTIONS: dict[str, OpFunction] = {}


def importer(*op_types: str) -> Callable[[OpFunction], OpFunction]:
    """Register the function for some ONNX op types (`domain::Type` outside the standard domain)."""

    def declare(function: OpFunction) -> OpFunction:
        for op_type in op_types:
            _FUNCTIONS[op_type] = function
        return function

    return declare


def supported_op_types() -> list[str]:
    """Every ONNX op type that has a function."""
    return sorted(_FUNCTIONS)


class Importer:
    """Builds a graph from one `onnx_ir.Model` whose input shapes are static."""

    def __init__(self, model: Any, name: str, file: str) -> None:
        self.model, self.file = model, file
        self.graph = Graph(name)
        self.values: dict[str, Value] = {}
        self.problems: list[Diagnostic] = []
        self.builder = Builder(self.graph)

    def run(self, shapes: dict[str, tuple[int, ...]]) -> Graph:
        """Import everything; one `GadlError` holds all offending nodes."""
        source = self.model.graph
        initializers = set(source.initializers)
        for value in source.inputs:
            if value.name not in initializers:
                dtype = ir_dtype(value.dtype)
                self.values[value.name] = self.graph.add_input(value.name, TensorType(dtype, shapes[value.name]))
        broken: set[str] = set()
        for index, node in enumerate(source):
            location = Location(self.file, node.name or "", index)
            if any(v is not None and v.name in broken for v in node.inputs):
                broken.update(o.name for o in node.outputs)
                continue
            try:
                self._node(node, location)
            except (Unsupported, OpError) as error:
                code = "GADL-F002" if isinstance(error, Unsupported) else "GADL-F005"
                opset = self._opset(node)
                self.problems.append(diagnostic(code, location, op=node.op_type, opset=opset, detail=str(error)))
                broken.update(o.name for o in node.outputs)
        GadlError.raise_if(self.problems)
        outputs = [self._value(v) for v in source.outputs]
        self.graph.set_outputs([v for v in outputs if v is not None], [v.name for v in source.outputs])
        self.graph.remove_dead_ops()
        return self.graph

    def _opset(self, node: Any) -> int:
        return int(self.model.opset_imports.get(node.domain, self.model.opset_imports.get("", 1)))

    def _node(self, node: Any, location: Location) -> None:
        domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
        function = _FUNCTIONS.get(f"{domain}{node.op_type}")
        if function is None:
            raise Unsupported("there is no such op in the IR")
        self.builder.loc = location
        inputs = [None if v is None else self._value(v) for v in node.inputs]
        context = Node(self, node, inputs, self._opset(node))
        results = function(context)
        for output, value in zip(node.outputs, results if isinstance(results, list) else [results]):
            if output.name:
                self.values[output.name] = value
                self._rename(value, output.name)

    def _rename(self, value: Value, name: str) -> None:
        """Call a value as the model does, where the name is free."""
        if value.producer is not None and value.producer.loc is self.builder.loc:
            value.name = self.graph.unique_name(name)

    def _value(self, value: Any) -> Value | None:
        if value is None or not value.name:
            return None
        known = self.values.get(value.name)
        if known is None:
            if value.const_value is None:
                raise Unsupported(f"value '{value.name}' is not defined")
            data = value.const_value.numpy()
            try:
                DType.of(data.dtype)
            except KeyError:
                raise Unsupported(f"element type {data.dtype} of '{value.name}'") from None
            known = self.graph.constant(data, value.name)
            self.values[value.name] = known
        return known

    def emit(self, node: Node, name: str, operands: Sequence[Value | None], attrs: dict[str, Any]) -> Value:
        """Add an op, or evaluate it when every operand is a constant."""
        type_ = attrs.pop("type", None)
        given = {k: v for k, v in attrs.items() if v is not None}
        made = self.builder.create(name, operands, given, result=node.node.name or name, type=type_)
        constant = all(v.is_constant for v in made.inputs) and bool(made.inputs)
        if constant and name not in ("quantize", "dequantize") and made.result.type.element_count <= MOST_FOLDED:
            with np.errstate(all="ignore"):
                (data,) = op_def(name).evaluate(made, [None if v is None else v.data for v in made.operands])
            self.graph.erase(made)
            return self.graph.constant(data, made.result.name)
        return made.result


def ir_dtype(dtype: Any) -> DType:
    """The IR's element type of an ONNX data type; `Unsupported` when there is none."""
    try:
        return DType.of(dtype.numpy())
    except (KeyError, TypeError, AttributeError):
        raise Unsupported(f"element type {dtype}") from None
