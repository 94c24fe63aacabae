# SPDX-License-Identifier: Apache-2.0
"""What op functions see of an ONNX node, and the table of op functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array, DType

if TYPE_CHECKING:
    from .importer import Importer


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

    def wants(self, index: int) -> bool:
        """True where somebody reads output `index`."""
        outputs = self.node.outputs
        return index < len(outputs) and bool(outputs[index].name and (outputs[index].uses() or outputs[index].is_graph_output()))

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
        ir_dtype_of(data)
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


def op_function(domain: str, op_type: str) -> OpFunction | None:
    """The function of an ONNX op type, or None."""
    return _FUNCTIONS.get(op_type if domain in ("", "ai.onnx") else f"{domain}::{op_type}")


def ir_dtype(dtype: Any) -> DType:
    """The IR's element type of an ONNX data type; `Unsupported` when there is none."""
    try:
        return DType.of(dtype.numpy())
    except (KeyError, TypeError, AttributeError):
        raise Unsupported(f"element type {dtype}") from None


def ir_dtype_of(data: Array) -> DType:
    """The IR's element type of an array; `Unsupported` when there is none."""
    try:
        return DType.of(data.dtype)
    except KeyError:
        raise Unsupported(f"element type {data.dtype}") from None
