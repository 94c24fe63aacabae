# SPDX-License-Identifier: Apache-2.0
"""The importer: walks the FX graph of an exported program and calls one function per ATen op.

An op function reads its arguments by the names of the op's schema, so position, keyword and default never matter.
Ops on constants are evaluated at once: masks, position indices and folded shapes disappear while they are read.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic
from gadl.compiler.ir.graph import Graph, Location, Value
from gadl.compiler.ir.opdef import Builder, OpError, op_def
from gadl.compiler.ir.types import Array, DType, TensorType

from .tensors import array_of, ir_dtype

#: Largest constant that import-time evaluation may produce, in elements.
MOST_FOLDED = 1 << 24


class Unsupported(Exception):
    """A node that the IR cannot express; the text says why."""


@dataclass
class Node:
    """One call as op functions see it. `arguments` maps schema names to IR values, numbers, lists or None."""

    importer: Importer
    name: str
    op: str
    arguments: dict[str, Any]
    #: What torch says of the result: `(dtype, shape)` of the first tensor.
    result: tuple[DType, tuple[int, ...]] | None

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument, or `default` where the schema has no such name."""
        return self.arguments.get(name, default)

    def tensor(self, name: str) -> Value:
        """A tensor argument, which must be there."""
        value = self.arg(name)
        if not isinstance(value, Value):
            raise Unsupported(f"argument '{name}' is not a tensor")
        return value

    def optional(self, name: str) -> Value | None:
        """A tensor argument, or None."""
        value = self.arg(name)
        return value if isinstance(value, Value) else None

    def operand(self, name: str, dtype: DType) -> Value:
        """A tensor or number as a tensor of `dtype`."""
        value = self.arg(name)
        if isinstance(value, (bool, int, float)):
            return self.const(value, dtype)
        return self.cast(self.tensor(name), dtype)

    def ints(self, name: str, rank: int) -> tuple[int, ...]:
        """A list of `rank` numbers; one number counts for every axis, an empty list is `()`."""
        given = self.arg(name)
        if isinstance(given, int):
            given = [given]
        if not isinstance(given, (list, tuple)) or not all(isinstance(v, int) for v in given):
            raise Unsupported(f"argument '{name}' is not a list of numbers")
        return tuple(given) * rank if len(given) == 1 else tuple(given)

    @property
    def dtype(self) -> DType:
        """Element type of the result."""
        return self._known()[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self._known()[1]

    def _known(self) -> tuple[DType, tuple[int, ...]]:
        if self.result is None:
            raise Unsupported("the result is not a tensor of a known type")
        return self.result

    def emit(self, name: str, *operands: Value | None, **attrs: Any) -> Value:
        """Add an IR op; evaluated at once when all operands are constants."""
        return self.importer.emit(self.name, name, operands, attrs)

    def const(self, array: Array | Sequence[Any] | float, dtype: DType | None = None) -> Value:
        """A constant value."""
        data = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy)
        return self.importer.graph.constant(data, f"{self.name}.const")

    def cast(self, value: Value, dtype: DType) -> Value:
        """`value` in another element type."""
        if value.dtype is dtype:
            return value
        if dtype is DType.F64 and value.data is None:
            raise Unsupported("double precision")
        return self.emit("cast", value, dtype=dtype)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """`value` under another shape."""
        return value if value.shape == tuple(shape) else self.emit("reshape", value, shape=tuple(shape))


OpFunction = Callable[[Node], "Value | list[Value] | None"]
_FUNCTIONS: dict[str, OpFunction] = {}


def importer(*names: str) -> Callable[[OpFunction], OpFunction]:
    """Register the function for some ATen ops: `conv2d` for all overloads, `max.dim` for one."""

    def declare(function: OpFunction) -> OpFunction:
        for name in names:
            _FUNCTIONS[name] = function
        return function

    return declare


def function_of(name: str, overload: str) -> OpFunction | None:
    """The function of an ATen op overload, or None."""
    return _FUNCTIONS.get(f"{name}.{overload}") or _FUNCTIONS.get(name)


def supported_ops() -> list[str]:
    """Every ATen op that has a function."""
    return sorted(_FUNCTIONS)


class Importer:
    """Builds a graph from one decomposed `ExportedProgram` with static shapes."""

    def __init__(self, program: Any, name: str, file: str) -> None:
        self.program, self.file = program, file
        self.graph = Graph(name)
        self.values: dict[str, Any] = {}
        self.problems: list[Diagnostic] = []
        self.builder = Builder(self.graph)

    def run(self) -> Graph:
        """Import everything; one `GadlError` holds all offending nodes."""
        self._inputs()
        broken: set[str] = set()
        for index, node in enumerate(n for n in self.program.graph.nodes if n.op not in ("placeholder", "output")):
            location = self._location(node, index)
            if any(n.name in broken for n in node.all_input_nodes):
                broken.add(node.name)
                continue
            try:
                self.values[node.name] = self._node(node, location)
            except (Unsupported, OpError) as error:
                self.problems.append(diagnostic("GADL-F012", location, op=target_name(node.target), detail=str(error)))
                broken.add(node.name)
        GadlError.raise_if(self.problems)
        self._outputs()
        self.graph.remove_dead_ops()
        return self.graph

    def _inputs(self) -> None:
        """Placeholders: parameters, buffers and constants share the program's memory."""
        placeholders = {n.name: n for n in self.program.graph.nodes if n.op == "placeholder"}
        for spec in self.program.graph_signature.input_specs:
            kind, name = spec.kind.name, spec.arg.name
            if kind == "USER_INPUT":
                self._user_input(name, spec.arg, placeholders[name])
            elif kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
                held = self.program.constants.get(spec.target)
                held = self.program.state_dict.get(spec.target) if held is None else held
                try:
                    self.values[name] = self.graph.constant(array_of(held), spec.target)
                except (TypeError, AttributeError) as error:
                    self.problems.append(
                        diagnostic("GADL-F015", self.file, value=f"'{spec.target}'", detail=str(error))
                    )
            else:
                self.problems.append(diagnostic("GADL-F015", self.file, value=f"'{name}'", detail=kind.lower()))
        GadlError.raise_if(self.problems)

    def _user_input(self, name: str, arg: Any, node: Any) -> None:
        found = node.meta.get("val")
        if type(arg).__name__ == "ConstantArgument":
            self.values[name] = arg.value
            return
        try:
            dtype = ir_dtype(found.dtype)
        except (TypeError, AttributeError) as error:
            self.problems.append(diagnostic("GADL-F015", self.file, value=f"input '{name}'", detail=str(error)))
            return
        self.values[name] = self.graph.add_input(name, TensorType(dtype, tuple(int(d) for d in found.shape)))

    def _outputs(self) -> None:
        """User outputs under the keys of a returned dict, else under the names that torch gave them."""
        values: list[Value] = []
        names: list[str] = []
        keys = _dict_keys(self.program)
        for index, spec in enumerate(self.program.graph_signature.output_specs):
            kind, name = spec.kind.name, getattr(spec.arg, "name", f"output {index}")
            if kind != "USER_OUTPUT":
                detail = f"it writes '{spec.target}' ({kind.lower()})"
                self.problems.append(diagnostic("GADL-F013", self.file, detail=detail))
                continue
            value = self.values.get(name)
            if not isinstance(value, Value):
                shown = getattr(spec.arg, "value", value)
                self.problems.append(diagnostic("GADL-F015", self.file, value=f"output {index}", detail=repr(shown)))
                continue
            values.append(value)
            wanted = keys[len(names)] if keys else name
            names.append(wanted if wanted not in names else f"{wanted}_{index}")
        GadlError.raise_if(self.problems)
        self.graph.set_outputs(values, names)

    def _node(self, node: Any, location: Location) -> Any:
        """The value, list of values or number that a node computes."""
        arguments = [self._argument(a) for a in node.args]
        if node.op == "get_attr":
            return self.graph.constant(array_of(getattr(self.program.graph_module, node.target)), node.name)
        if node.target is operator.getitem:
            sequence, index = arguments
            if not isinstance(index, int) or index >= len(sequence):
                raise Unsupported(f"result {index} is not computed")
            return sequence[index]
        schema: Any = getattr(node.target, "_schema", None)
        function = None
        if schema is not None and schema.name.startswith("aten::"):
            function = function_of(schema.name.removeprefix("aten::"), schema.overload_name or "default")
        if function is None:
            raise Unsupported("there is no such op in the IR")
        bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        bound.update({a.name: v for a, v in zip(schema.arguments, arguments)})
        bound.update({k: self._argument(v) for k, v in node.kwargs.items()})
        self.builder.loc = location
        context = Node(self, node.name, schema.name, bound, result_of(node.meta.get("val")))
        made = function(context)
        self._check(made, node.meta.get("val"))
        if isinstance(made, Value) and made.producer is not None and made.producer.loc is location:
            if made.name != node.name:
                made.name = self.graph.unique_name(node.name)
        return made

    def _argument(self, value: Any) -> Any:
        """FX arguments with nodes replaced by what they computed."""
        if isinstance(value, (list, tuple)):
            return [self._argument(v) for v in value]
        return self.values[value.name] if type(value).__name__ == "Node" else value

    def _check(self, made: Any, expected: Any) -> None:
        """The IR's shapes and types against those that torch traced."""
        pairs = (
            zip(made, expected)
            if isinstance(made, list) and isinstance(expected, (list, tuple))
            else [(made, expected)]
        )
        for value, fake in pairs:
            known = result_of(fake)
            if isinstance(value, Value) and known is not None and (value.dtype, value.shape) != known:
                dtype, shape = known
                raise Unsupported(f"the IR gives {value.type}, torch {dtype.value}{list(shape)}")

    def emit(self, node_name: str, name: str, operands: Sequence[Value | None], attrs: dict[str, Any]) -> Value:
        """Add an op, or evaluate it when every operand is a constant."""
        made = self.builder.create(name, operands, attrs, result=f"{node_name}.{name}")
        if made.inputs and all(v.is_constant for v in made.inputs) and made.result.type.element_count <= MOST_FOLDED:
            with np.errstate(all="ignore"):
                (data,) = op_def(name).evaluate(made, [None if v is None else v.data for v in made.operands])
            self.graph.erase(made)
            return self.graph.constant(data, made.result.name)
        if made.result.dtype is DType.F64:
            self.graph.erase(made)
            raise Unsupported("double precision")
        return made.result

    def _location(self, node: Any, index: int) -> Location:
        """Where a node came from: the innermost module, and the innermost line outside torch."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = next((entry[0] for entry in reversed(stack) if entry[0]), "")
        return Location(self.file, f"{module}/{node.name}" if module else node.name, index, source_line(node.meta))


def _dict_keys(program: Any) -> list[str]:
    """The keys of the flat dict of tensors that a program returns, or nothing when it returns something else."""
    spec = program.call_spec.out_spec
    if spec is None or getattr(spec, "type", None) is not dict:
        return []
    # A method since torch 2.10, an attribute before.
    children = spec.children() if hasattr(spec, "children") else spec.children_specs
    if any(c.num_nodes != 1 for c in children):
        return []
    return [str(key) for key in spec.context]


_FRAME = re.compile(r'File "([^"\n]*)", line (\d+), in (\S+)')
_LIBRARY = re.compile(r"[\\/]torch[\\/](nn|_|functional|utils|export|fx|overrides)")


def source_line(meta: dict[str, Any]) -> str:
    """`model.py:88 in forward` for the innermost frame that is not torch's own, or an empty text."""
    frames = _FRAME.findall(str(meta.get("stack_trace") or ""))
    for path, line, function in reversed(frames):
        if not _LIBRARY.search(path):
            name = re.split(r"[\\/]", path)[-1]
            return f"{name}:{line} in {function}"
    return ""


def target_name(target: Any) -> str:
    """A call's target as people know it: `aten.conv2d`."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return str(getattr(target, "__name__", target))
    name = schema.name.replace("::", ".")
    return f"{name}.{schema.overload_name}" if schema.overload_name else str(name)


def result_of(fake: Any) -> tuple[DType, tuple[int, ...]] | None:
    """Element type and static shape of a traced tensor (of the first, where there are several)."""
    if isinstance(fake, (list, tuple)):
        return result_of(fake[0]) if fake else None
    try:
        return ir_dtype(fake.dtype), tuple(int(d) for d in fake.shape)
    except (TypeError, AttributeError):
        return None
