# SPDX-License-Identifier: Apache-2.0
"""The importer: walks an ONNX graph and calls one function per op type.

An op function reads the node by its own opset's rules and returns the IR values of the node's outputs. Ops on constants
are evaluated at once, so shape arithmetic disappears while it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic
from gadl.compiler.ir.graph import Graph, Location, Value
from gadl.compiler.ir.opdef import Builder, OpError, op_def
from gadl.compiler.ir.types import TensorType

from .fold import MOST_FOLDED, evaluate_constants
from .load import first_line
from .node import Node, OpFunction, Unsupported, ir_dtype, ir_dtype_of, op_function
from .quant import around_integers, as_stored

#: Largest tensor that a model may speak of: beyond it the extents are taken for damage.
MOST_BYTES = 1 << 36
#: Nodes that are imported at most, those of loops once per iteration.
MOST_NODES = 1 << 17
#: Ops that stay although their operands are constants: pairs of scales are the model's, windows would pad without limit.
_NEVER_FOLDED = frozenset({"quantize", "dequantize", "conv", "conv_transpose", "max_pool", "avg_pool", "resize"})


class Importer:
    """Builds a graph from one `onnx_ir.Model` whose input shapes are static."""

    def __init__(self, model: Any, name: str, file: str) -> None:
        self.model, self.file = model, file
        self.graph = Graph(name)
        self.values: dict[str, Value] = {}
        #: Values of type i8 that the model calls u8, 128 higher (see `quant`).
        self.unsigned: set[int] = set()
        self.problems: list[Diagnostic] = []
        self.broken: set[str] = set()
        self.builder = Builder(self.graph)
        self._unexpected: Exception | None = None
        self._steps = 0

    def run(self, shapes: dict[str, tuple[int, ...]]) -> Graph:
        """Import everything; one `GadlError` holds all offending nodes."""
        source = self.model.graph
        for value in source.inputs:
            if value.name not in source.initializers:
                dtype = ir_dtype(value.dtype)
                self.values[value.name] = self.graph.add_input(value.name, TensorType(dtype, shapes[value.name]))
        for index, node in enumerate(source):
            self.step(node, Location(self.file, node.name or "", index))
        outputs = []
        for value in source.outputs:
            try:
                if value.name not in self.broken:
                    outputs.append(self._output(value))
            except Exception as error:
                self._report(error, Location(self.file), f"output '{value.name}'", self._opset(""))
        if self.problems:
            raise GadlError(*self.problems) from self._unexpected
        self.graph.set_outputs(outputs, [str(v.name) for v in source.outputs])
        self.graph.remove_dead_ops()
        return self.graph

    def step(self, node: Any, location: Location) -> None:
        """Import one node; what goes wrong is written down, and what depends on it is passed over."""
        if any(v is not None and v.name in self.broken for v in node.inputs):
            self.broken.update(o.name for o in node.outputs)
            return
        try:
            self._steps += 1
            if self._steps > MOST_NODES:
                raise Unsupported(f"more than {MOST_NODES} nodes")
            self._node(node, location)
        except Exception as error:
            self._report(error, location, str(node.op_type), self._opset(node.domain))
            self.broken.update(o.name for o in node.outputs)

    def _report(self, error: Exception, location: Location, op: str, opset: int) -> None:
        """Write a failure down. Files are not trusted: whatever a damaged node makes an op function raise is its fault."""
        expected = isinstance(error, (Unsupported, OpError))
        if not expected:
            self._unexpected = self._unexpected or error
        detail = str(error) if expected else f"{type(error).__name__}: {error}"[:200]
        code = "GADL-F002" if isinstance(error, Unsupported) else "GADL-F005"
        self.problems.append(diagnostic(code, location, op=op, opset=opset, detail=detail))

    def _opset(self, domain: str) -> int:
        versions = self.model.opset_imports
        return int(versions.get(domain, versions.get("", versions.get("ai.onnx", 1))))

    def _node(self, node: Any, location: Location) -> None:
        self.builder.loc = location
        inputs = [self.value(v) for v in node.inputs]
        context = Node(self, node, inputs, self._opset(node.domain))
        results = self._call(context, op_function(node.domain, node.op_type))
        for index, output in enumerate(node.outputs):
            if index >= len(results):
                if context.wants(index):
                    raise Unsupported(f"output {index} is not computed")
            elif output.name:
                self.values[output.name] = results[index]
                self._rename(results[index], output.name)

    def _call(self, context: Node, function: OpFunction | None) -> list[Value]:
        """The results of an op function; constants that it cannot express are computed by ONNX's reference."""
        try:
            if function is None:
                raise Unsupported("there is no such op in the IR")
            results = around_integers(context, function)
            return results if isinstance(results, list) else [results]
        except Unsupported:
            folded = evaluate_constants(context)
            if folded is None:
                raise
            return folded

    def _rename(self, value: Value, name: str) -> None:
        """Call a value as the model does, where the name is free."""
        if value.producer is not None and value.producer.loc is self.builder.loc and value.name != name:
            value.name = self.graph.unique_name(name)

    def _output(self, value: Any) -> Value:
        """A model output; bytes that became signed on the way in become unsigned again."""
        found = self.value(value)
        if found is None:
            raise Unsupported("an output has no name")
        self.builder.loc = Location(self.file)
        return as_stored(self, found)

    def value(self, value: Any) -> Value | None:
        """The IR value of a model value, None for an absent one; `Unsupported` when nothing has made it."""
        if value is None or not value.name:
            return None
        known = self.values.get(value.name)
        if known is None:
            if value.const_value is None:
                raise Unsupported(f"value '{value.name}' is not defined")
            try:
                data = value.const_value.numpy()
            except Exception as error:  # sizes and types that do not fit the bytes
                raise OpError(f"the data of '{value.name}' cannot be read: {first_line(error)}") from error
            ir_dtype_of(data)
            known = self.graph.constant(data, value.name)
            self.values[value.name] = known
        return known

    def emit(self, node: Node, name: str, operands: Sequence[Value | None], attrs: dict[str, Any]) -> Value:
        """Add an op, or evaluate it when every operand is a constant."""
        type_ = attrs.pop("type", None)
        given = {k: v for k, v in attrs.items() if v is not None}
        made = self.builder.create(name, operands, given, result=node.node.name or name, type=type_)
        if made.result.type.size_bytes > MOST_BYTES:
            raise Unsupported(f"the result would have shape {made.result.shape}")
        constant = all(v.is_constant for v in made.inputs) and bool(made.inputs)
        if constant and name not in _NEVER_FOLDED and made.result.type.element_count <= MOST_FOLDED:
            with np.errstate(all="ignore"):
                (data,) = op_def(name).evaluate(made, [None if v is None else v.data for v in made.operands])
            self.graph.erase(made)
            return self.graph.constant(data, made.result.name)
        if made.result.type.element_count == 0:
            raise Unsupported(f"empty tensors: the result has shape {made.result.shape}")
        return made.result
