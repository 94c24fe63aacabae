# SPDX-License-Identifier: Apache-2.0
"""Op declarations: one class per op, from which parser, printer, verifier, interpreter, docs and tests follow."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .graph import Graph, Location, Op, Value
from .types import Array, DType, Layout, Requant, TensorType


class AttrKind(enum.Enum):
    """Type of an attribute; the value is its spelling in the docs."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STR = "str"
    INTS = "ints"
    FLOATS = "floats"
    DTYPE = "dtype"
    LAYOUT = "layout"
    TENSOR = "tensor"
    REQUANT = "requant"
    REQUANTS = "requants"

    def accepts(self, value: Any) -> bool:
        """True when `value` is of this kind."""
        match self:
            case AttrKind.INT:
                return isinstance(value, int) and not isinstance(value, bool)
            case AttrKind.FLOAT:
                return isinstance(value, (int, float)) and not isinstance(value, bool)
            case AttrKind.INTS:
                return isinstance(value, tuple) and all(AttrKind.INT.accepts(v) for v in value)
            case AttrKind.FLOATS:
                return isinstance(value, tuple) and all(AttrKind.FLOAT.accepts(v) for v in value)
            case AttrKind.REQUANTS:
                return isinstance(value, tuple) and all(isinstance(v, Requant) for v in value)
            case _:
                return isinstance(value, _PYTHON[self])


_PYTHON: dict[AttrKind, type] = {
    AttrKind.BOOL: bool,
    AttrKind.STR: str,
    AttrKind.DTYPE: DType,
    AttrKind.LAYOUT: Layout,
    AttrKind.TENSOR: np.ndarray,
    AttrKind.REQUANT: Requant,
}

#: Marks an attribute that must be given.
REQUIRED = object()


@dataclass(frozen=True)
class Operand:
    """A declared operand; only the last may be variadic, only trailing ones optional."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True)
class Attr:
    """A declared attribute. `default=None` means that it may be absent; `choices` limits strings, `length` sequences."""

    name: str
    kind: AttrKind
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    length: int | None = None


class Trait(enum.Flag):
    """What passes may assume of an op."""

    NONE = 0
    #: One output element depends on the broadcast elements of the operands only.
    ELEMENTWISE = enum.auto()
    #: A function of one tensor, element by element.
    UNARY = enum.auto()
    COMMUTATIVE = enum.auto()
    #: Moves or selects elements without computing: result shares the operand's quantisation.
    MOVES_DATA = enum.auto()
    #: Result shares the operand's quantisation although it computes (max_pool, min, max, …).
    KEEPS_QUANT = enum.auto()
    #: Multiply-accumulate with constant weights as operand 1.
    WEIGHTED = enum.auto()


class OpError(ValueError):
    """An op violates its declaration; the text says what is wrong, the caller adds where."""


class OpDef:
    """Base of op declarations.

    A subclass's docstring is the op's page: first line a sentence, then shapes. `infer` gives the result types from
    operand types and attributes and raises `OpError`; `evaluate` gives the results from arrays and is the op's meaning.
    """

    name: ClassVar[str]
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"),)
    attrs: ClassVar[tuple[Attr, ...]] = ()
    traits: ClassVar[Trait] = Trait.NONE
    #: ONNX op types that import as this op.
    onnx: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        """Result types; `OpError` when the op is not valid on these operands."""
        raise NotImplementedError(cls.name)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        """Result arrays, exact for integers (`docs/numerics.md`); types and zero points are read from `op`."""
        raise NotImplementedError(cls.name)

    @classmethod
    def complete(cls, attrs: dict[str, Any]) -> dict[str, Any]:
        """Attributes with defaults filled in, in declared order; `OpError` on unknown, missing or mistyped ones."""
        unknown = set(attrs) - {a.name for a in cls.attrs}
        if unknown:
            raise OpError(f"'{cls.name}' has no attribute '{sorted(unknown)[0]}'")
        full: dict[str, Any] = {}
        for attr in cls.attrs:
            value = attrs.get(attr.name, attr.default)
            if value is REQUIRED:
                raise OpError(f"'{cls.name}' needs attribute '{attr.name}'")
            if value is None:
                continue
            if not attr.kind.accepts(value):
                raise OpError(f"attribute '{attr.name}' of '{cls.name}' must be {attr.kind.value}, got {value!r}")
            if attr.choices and value not in attr.choices:
                raise OpError(f"attribute '{attr.name}' of '{cls.name}' must be one of {', '.join(attr.choices)}")
            if attr.length is not None and len(value) != attr.length:
                raise OpError(f"attribute '{attr.name}' of '{cls.name}' needs {attr.length} entries, got {len(value)}")
            full[attr.name] = value
        return full

    @classmethod
    def check_operands(cls, operands: Sequence[object | None]) -> None:
        """`OpError` unless the count fits and every required operand is present."""
        variadic = bool(cls.operands) and cls.operands[-1].variadic
        if len(operands) > len(cls.operands) and not variadic:
            raise OpError(f"'{cls.name}' takes at most {len(cls.operands)} operands, got {len(operands)}")
        for index, operand in enumerate(cls.operands):
            present = index < len(operands) and operands[index] is not None
            if not present and not operand.optional:
                raise OpError(f"'{cls.name}' needs operand '{operand.name}'")


_OPS: dict[str, type[OpDef]] = {}


def register(cls: type[OpDef]) -> type[OpDef]:
    """Add a declaration to the op set."""
    if cls.name in _OPS:
        raise ValueError(f"op '{cls.name}' is declared twice")
    _OPS[cls.name] = cls
    return cls


def op_def(name: str) -> type[OpDef]:
    """The declaration of an op; `OpError` for an unknown name."""
    from . import ops  # noqa: F401  (the import registers the declarations)

    try:
        return _OPS[name]
    except KeyError:
        raise OpError(f"there is no op '{name}'") from None


def all_ops() -> Iterator[type[OpDef]]:
    """Every declared op, by name."""
    from . import ops  # noqa: F401  (the import registers the declarations)

    yield from (_OPS[name] for name in sorted(_OPS))


class Builder:
    """Creates checked ops in a graph: completes attributes and infers result types.

    `index` is the insertion point in `graph.ops`; None appends.
    """

    def __init__(self, graph: Graph, index: int | None = None, loc: Location = Location()) -> None:
        self.graph = graph
        self.index = index
        self.loc = loc

    @classmethod
    def before(cls, graph: Graph, op: Op) -> Builder:
        """A builder that inserts before `op` and takes over its location."""
        return cls(graph, graph.ops.index(op), op.loc)

    def create(
        self,
        name: str,
        operands: Sequence[Value | None],
        attrs: dict[str, Any] | None = None,
        *,
        result: str = "",
        type: TensorType | None = None,
    ) -> Op:
        """Add an op. `result` names its value; `type` overrides the inferred type's quantisation and layout.

        Raises `OpError` when declaration and operands disagree.
        """
        definition = op_def(name)
        trimmed = list(operands)
        while trimmed and trimmed[-1] is None:
            trimmed.pop()
        definition.check_operands(trimmed)
        full = definition.complete(attrs or {})
        types = definition.infer([None if v is None else v.type for v in trimmed], full)
        if type is not None:
            if (type.dtype, type.shape) != (types[0].dtype, types[0].shape) and types[0].dtype.is_float:
                raise OpError(f"'{name}' makes {types[0]}, not {type}")
            types = [type, *types[1:]]
        base = result or name
        names = [base] if len(types) == 1 else [f"{base}_{i}" for i in range(len(types))]
        op = self.graph.attach(Op(name, trimmed, full, self.loc), types, names, self.index)
        if self.index is not None:
            self.index += 1
        return op

    def __call__(self, name: str, *operands: Value | None, result: str = "", type: TensorType | None = None, **attrs: Any) -> Value:
        """Add a one-result op and return its value."""
        return self.create(name, operands, attrs, result=result, type=type).result
