# SPDX-License-Identifier: Apache-2.0
"""The graph: values, ops and the edits that passes make.

One SSA structure serves every stage. An op's meaning is its declaration (`gadl.compiler.ir.opdef`); the graph only knows
names, operands, results, attributes and where each op came from.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .types import Array, DType, Layout, QuantParams, TensorType


class Stage(enum.Enum):
    """What a graph may contain (`gadl.compiler.ir.verify`)."""

    FLOAT = "float"
    QUANTIZED = "quantized"
    PLACED = "placed"
    PLANNED = "planned"


@dataclass(frozen=True)
class Location:
    """Where an op came from: model file, node name and index, and the Python line for torch models."""

    file: str = ""
    node: str = ""
    index: int | None = None
    python: str = ""

    def __str__(self) -> str:
        parts = [f"{self.file}: " if self.file else "", f"node '{self.node}'" if self.node else ""]
        parts.append(f" (#{self.index})" if self.index is not None else "")
        parts.append(f", from {self.python}" if self.python else "")
        return "".join(parts)


class Value:
    """A tensor: the result of an op, a graph input, or a constant (`data` is not None).

    Constant arrays are shared buffers; nobody writes into them.
    """

    __slots__ = ("name", "type", "producer", "data", "users")

    def __init__(self, name: str, type: TensorType, producer: Op | None = None, data: Array | None = None) -> None:
        self.name = name
        self.type = type
        self.producer = producer
        self.data = data
        #: Ops that read it, one entry per operand position.
        self.users: list[Op] = []

    @property
    def is_constant(self) -> bool:
        """True for constants."""
        return self.data is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """The static shape."""
        return self.type.static_shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def quant(self) -> QuantParams | None:
        """The affine map of a quantised tensor."""
        return self.type.quant

    @property
    def layout(self) -> Layout:
        """The memory layout."""
        return self.type.layout

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Op:
    """One operation. `operands` may hold None for an optional operand that is absent."""

    __slots__ = ("name", "operands", "results", "attrs", "loc", "placement")

    def __init__(
        self, name: str, operands: Sequence[Value | None], attrs: dict[str, Any], loc: Location = Location()
    ) -> None:
        self.name = name
        self.operands: list[Value | None] = []
        self.results: list[Value] = []
        self.attrs = attrs
        self.loc = loc
        #: Set by the partition pass: the segment, or the host with a reason.
        self.placement: Placement | None = None
        for operand in operands:
            self.operands.append(operand)
            if operand is not None:
                operand.users.append(self)

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    @property
    def inputs(self) -> list[Value]:
        """The operands that are present."""
        return [value for value in self.operands if value is not None]

    def operand(self, index: int) -> Value | None:
        """Operand `index`, or None where it is absent."""
        return self.operands[index] if index < len(self.operands) else None

    def set_operand(self, index: int, value: Value | None) -> None:
        """Replace one operand, keeping the use lists."""
        while len(self.operands) <= index:
            self.operands.append(None)
        before = self.operands[index]
        if before is not None:
            before.users.remove(self)
        self.operands[index] = value
        if value is not None:
            value.users.append(self)

    def drop_operands(self) -> None:
        """Forget all operands (before the op is erased)."""
        for index in range(len(self.operands)):
            self.set_operand(index, None)

    def __repr__(self) -> str:
        results = ", ".join(repr(r) for r in self.results)
        return f"{results} = {self.name}({', '.join('none' if o is None else '%' + o.name for o in self.operands)})"


@dataclass(frozen=True)
class Placement:
    """Where an op runs: `segment` counts device segments of `device`; `reason` says why an op stays on the host."""

    device: str
    segment: int | None = None
    reason: str = ""


class Graph:
    """A topologically ordered list of ops with named inputs and outputs.

    The order of `ops` is an execution order; passes keep it so. Names of values are unique.
    """

    def __init__(self, name: str = "main", stage: Stage = Stage.FLOAT) -> None:
        self.name = name
        self.stage = stage
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.ops: list[Op] = []
        #: Names that the model's own interface uses, when a pass had to replace an output value.
        self.output_names: list[str] = []
        self._names: dict[str, int] = {}

    # -- values ----------------------------------------------------------------

    def unique_name(self, wanted: str) -> str:
        """`wanted`, or `wanted_1`, `wanted_2`, … when it is taken; the name is then taken."""
        name = wanted
        while name in self._names:
            self._names[wanted] += 1
            name = f"{wanted}_{self._names[wanted]}"
        self._names[name] = 0
        return name

    def add_input(self, name: str, type: TensorType) -> Value:
        """Append a graph input."""
        value = Value(self.unique_name(name), type)
        self.inputs.append(value)
        return value

    def constant(self, data: Array, name: str = "const", quant: QuantParams | None = None) -> Value:
        """A constant over `data` (shared, not copied)."""
        return Value(self.unique_name(name), TensorType(DType.of(data.dtype), data.shape, quant), None, data)

    def set_outputs(self, values: Iterable[Value], names: Iterable[str] | None = None) -> None:
        """Fix the outputs; `names` are the interface's names, by default those of the values."""
        self.outputs = list(values)
        self.output_names = list(names) if names is not None else [v.name for v in self.outputs]

    def constants(self) -> list[Value]:
        """Every constant that is read or returned, in order of first use."""
        seen: dict[int, Value] = {}
        for op in self.ops:
            for value in op.inputs:
                if value.is_constant:
                    seen.setdefault(id(value), value)
        for value in self.outputs:
            if value.is_constant:
                seen.setdefault(id(value), value)
        return list(seen.values())

    def values(self) -> Iterator[Value]:
        """Inputs, constants and results."""
        yield from self.inputs
        yield from self.constants()
        for op in self.ops:
            yield from op.results

    # -- edits -----------------------------------------------------------------

    def attach(self, op: Op, types: Sequence[TensorType], names: Sequence[str], index: int | None = None) -> Op:
        """Give `op` results and put it into the order (at the end, or before `index`)."""
        op.results = [Value(self.unique_name(n), t, op) for n, t in zip(names, types, strict=True)]
        self.ops.insert(len(self.ops) if index is None else index, op)
        return op

    def replace_uses(self, old: Value, by: Value) -> None:
        """Let every reader of `old`, and the outputs, read `by`."""
        for op in list(dict.fromkeys(old.users)):
            for index, operand in enumerate(op.operands):
                if operand is old:
                    op.set_operand(index, by)
        self.outputs = [by if value is old else value for value in self.outputs]

    def erase(self, op: Op) -> None:
        """Remove an op whose results nobody reads."""
        if any(r.users for r in op.results) or any(r in self.outputs for r in op.results):
            raise ValueError(f"{op!r} is still in use")
        op.drop_operands()
        self.ops.remove(op)

    def remove_dead_ops(self) -> int:
        """Erase every op without effect on the outputs; returns how many."""
        keep = {id(v) for v in self.outputs}
        alive: list[Op] = []
        for op in reversed(self.ops):
            if any(r.users or id(r) in keep for r in op.results):
                alive.append(op)
            else:
                op.drop_operands()
        removed = len(self.ops) - len(alive)
        self.ops = alive[::-1]
        return removed

    def clone(self) -> Graph:
        """A copy that shares constant buffers; names, attributes and order are kept."""
        copy = Graph(self.name, self.stage)
        known: dict[int, Value] = {}

        def value_of(value: Value) -> Value:
            if id(value) not in known:
                known[id(value)] = Value(copy.unique_name(value.name), value.type, None, value.data)
            return known[id(value)]

        copy.inputs = [value_of(v) for v in self.inputs]
        for op in self.ops:
            made = Op(op.name, [None if v is None else value_of(v) for v in op.operands], dict(op.attrs), op.loc)
            made.placement = op.placement
            made.results = [value_of(r) for r in op.results]
            for result in made.results:
                result.producer = made
            copy.ops.append(made)
        copy.set_outputs([value_of(v) for v in self.outputs], self.output_names)
        return copy

    def __str__(self) -> str:
        from .printer import print_graph

        return print_graph(self, elide=True)
