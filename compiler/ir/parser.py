# SPDX-License-Identifier: Apache-2.0
"""Reads `.gir` text. The text is untrusted: every failure is a `GADL-I002` with line and column."""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.diag import GadlError

from .graph import Graph, Location, Op, Placement, Stage, Value
from .lexer import ContentFault, Lexer, SyntaxFault
from .opdef import AttrKind, OpDef, OpError, op_def
from .printer import VERSION
from .types import Array, DType, Layout, QuantParams, Requant, Rounding, TensorType

#: Elements of one tensor; larger ones do not come from real models.
MOST_ELEMENTS = 1 << 32
#: Dimensions of one tensor.
MOST_DIMS = 16


def load_gir(path: Path) -> Graph:
    """Read a `.gir` file; `GADL-I002` when it is not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GadlError.of("GADL-I002", path, path=path, detail=str(error)) from None
    return parse(text, str(path))


def parse(text: str, path: str = "<text>") -> Graph:
    """The graph that `text` describes; `GADL-I002` when it is not valid."""
    parser = _Parser(text)
    try:
        return parser.graph()
    except (SyntaxFault, ContentFault, ValueError, OverflowError, MemoryError) as error:
        at = parser.start if isinstance(error, SyntaxFault) else parser.previous
        at = error.at if isinstance(error, ContentFault) and error.at is not None else at
        line = text.count("\n", 0, at) + 1
        column = at - (text.rfind("\n", 0, at) + 1) + 1
        where = f"{path}:{line}:{column}"
        raise GadlError.of("GADL-I002", where, path=path, detail=str(error)) from None


class _Parser(Lexer):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values: dict[str, Value] = {}
        self.resources: dict[str, Array] = {}

    # -- the file ----------------------------------------------------------------

    def graph(self) -> Graph:
        """The whole file."""
        self.advance()
        self._read_resources()
        self.expect("gir")
        version = self.take("number")
        if version.split(".")[0] != VERSION.split(".")[0]:
            raise ContentFault(f"version {version} is not {VERSION}")
        stage = Stage(self.take("word"))
        self.expect("graph")
        graph = Graph(self.string(), stage)
        self.expect("{")
        outputs: list[tuple[str, Value]] = []
        while not self.accept("}"):
            if self.accept("input"):
                graph.inputs.append(self._define(graph, self.name(), self._after_colon()))
            elif self.accept("const"):
                self._constant(graph)
            elif self.accept("output"):
                name = self.string()
                self.expect("=")
                outputs.append((name, self._value()))
            else:
                self._op(graph)
        graph.set_outputs([v for _, v in outputs], [n for n, _ in outputs])
        if self.kind != "end" and self.token != "resources":
            raise SyntaxFault(f"unexpected {self.token[:40]!r} after the graph")
        return graph

    def _read_resources(self) -> None:
        """The resource block at the end, read first: constants refer to it."""
        at = self.text.rfind("\nresources {")
        if at < 0:
            return
        saved = (self.position, self.start, self.kind, self.token)
        self.position = at
        self.advance()
        self.expect("resources")
        self.expect("{")
        while not self.accept("}"):
            key = self.take("resource")
            self.expect(":")
            dtype, shape = self._dtype(), self._shape()
            self.expect("=")
            self.resources[key] = _decode(self.string(), dtype, shape)
        self.position, self.start, self.kind, self.token = saved

    def _after_colon(self) -> TensorType:
        self.expect(":")
        return self._type()

    def _define(self, graph: Graph, name: str, type: TensorType, data: Array | None = None, at: int | None = None) -> Value:
        if name in self.values:
            raise ContentFault(f"'{name}' is defined twice", at)
        value = Value(graph.unique_name(name), type, None, data)
        self.values[name] = value
        return value

    def _value(self) -> Value:
        name = self.name()
        if name not in self.values:
            raise ContentFault(f"'{name}' is not defined")
        return self.values[name]

    def _constant(self, graph: Graph) -> None:
        name = self.name()
        type = self._after_colon()
        self.expect("=")
        data = self._tensor()
        if DType.of(data.dtype) is not type.dtype or data.shape != type.shape:
            raise ContentFault(f"constant '{name}' does not have its type")
        self._define(graph, name, type, data)

    def _op(self, graph: Graph) -> None:
        results = [(self.start, self.name(), self._after_colon())]
        while self.accept(","):
            results.append((self.start, self.name(), self._after_colon()))
        self.expect("=")
        at = self.start
        definition = op_def(self.take("word"))
        self.expect("(")
        operands: list[Value | None] = []
        while not self.accept(")"):
            operands.append(None if self.accept("none") else self._value())
            if self.token != ")":
                self.expect(",")
        attrs = self._attrs(definition)
        loc, placement = self._location(), self._placement()
        try:
            definition.check_operands(operands)
            op = Op(definition.name, operands, definition.complete(attrs), loc)
        except OpError as error:
            raise ContentFault(str(error), at) from None
        op.placement = placement
        op.results = [self._define(graph, n, t, at=where) for where, n, t in results]
        for value in op.results:
            value.producer = op
        graph.ops.append(op)

    def _attrs(self, definition: type[OpDef]) -> dict[str, Any]:
        kinds = {a.name: a.kind for a in definition.attrs}
        attrs: dict[str, Any] = {}
        if not self.accept("{"):
            return attrs
        while not self.accept("}"):
            key = self.take("word")
            if key not in kinds or key in attrs:
                raise ContentFault(f"'{definition.name}' has no (second) attribute '{key}'")
            self.expect("=")
            attrs[key] = self._attr(kinds[key])
            if self.token != "}":
                self.expect(",")
        return attrs

    def _attr(self, kind: AttrKind) -> Any:
        match kind:
            case AttrKind.INT:
                return self.integer()
            case AttrKind.FLOAT:
                return self.number()
            case AttrKind.BOOL:
                return self.expect("true", "false") == "true"
            case AttrKind.STR:
                return self.string()
            case AttrKind.INTS | AttrKind.FLOATS | AttrKind.REQUANTS:
                single = {AttrKind.INTS: AttrKind.INT, AttrKind.FLOATS: AttrKind.FLOAT}.get(kind, AttrKind.REQUANT)
                return self._tuple(single)
            case AttrKind.DTYPE:
                return DType(self.take("word"))
            case AttrKind.LAYOUT:
                return Layout(self.take("word"))
            case AttrKind.TENSOR:
                return self._tensor()
            case AttrKind.REQUANT:
                return self._requant()

    def _tuple(self, kind: AttrKind) -> tuple[Any, ...]:
        self.expect("(")
        items: list[Any] = []
        while not self.accept(")"):
            items.append(self._attr(kind))
            if self.token != ")":
                self.expect(",")
        return tuple(items)

    def _requant(self) -> Requant:
        self.expect("requant")
        self.expect("(")
        rounding = Rounding(self.take("word"))
        self.expect(",")
        multiplier = self._tensor()
        self.expect(",")
        shift = self._tensor()
        self.expect(")")
        if multiplier.dtype != np.int32 or shift.dtype != np.int8:
            raise ContentFault("a requantisation needs an i32 multiplier and an i8 shift")
        return Requant(multiplier, shift, rounding)

    # -- types and tensors ---------------------------------------------------------

    def _dtype(self) -> DType:
        return DType(self.take("word"))

    def _shape(self) -> tuple[int, ...]:
        dims = self._dims()
        if any(isinstance(d, str) for d in dims):
            raise ContentFault("a constant needs a static shape")
        return tuple(d for d in dims if isinstance(d, int))

    def _dims(self) -> tuple[int | str, ...]:
        self.expect("[")
        dims: list[int | str] = []
        while not self.accept("]"):
            if self.kind == "string":
                dims.append(self.string())
            else:
                dims.append(self.take("word") if self.kind == "word" else self.integer())
            if self.token != "]":
                self.expect(",")
        if len(dims) > MOST_DIMS or any(isinstance(d, int) and d < 0 for d in dims):
            raise ContentFault("unreasonable shape")
        if math.prod(d for d in dims if isinstance(d, int)) > MOST_ELEMENTS:
            raise ContentFault("unreasonably large shape")
        return tuple(dims)

    def _type(self) -> TensorType:
        dtype, shape, quant, layout = self._dtype(), self._dims(), None, Layout.ROW_MAJOR
        if self.accept("<"):
            quant = self._quant(shape)
        if self.accept("@"):
            layout = Layout(self.take("word"))
        return TensorType(dtype, shape, quant, layout)

    def _quant(self, shape: tuple[int | str, ...]) -> QuantParams:
        self.expect("s")
        self.expect("=")
        self.expect("[")
        scales: list[float] = []
        while not self.accept("]"):
            scales.append(float(self.take("number")))
            if self.token != "]":
                self.expect(",")
        self.expect(",")
        self.expect("z")
        self.expect("=")
        zero, axis = self.integer(), None
        if self.accept(","):
            self.expect("axis")
            self.expect("=")
            axis = self.integer()
            if not 0 <= axis < len(shape) or shape[axis] != len(scales):
                raise ContentFault("scales do not fit their axis")
        self.expect(">")
        return QuantParams(tuple(scales), zero, axis)

    def _tensor(self) -> Array:
        if self.kind == "resource":
            key = self.advance()
            if key not in self.resources:
                raise ContentFault(f"resource {key} is missing")
            return self.resources[key]
        dtype, shape = self._dtype(), self._shape()
        self.expect("[")
        items: list[int | float | bool] = []
        while not self.accept("]"):
            items.append(self._element(dtype))
            if self.token != "]":
                self.expect(",")
        if len(items) != math.prod(shape):
            raise ContentFault(f"{len(items)} elements do not fill {shape}")
        return np.array(items, dtype.numpy).reshape(shape)

    def _element(self, dtype: DType) -> int | float | bool:
        if dtype is DType.BOOL:
            return self.expect("true", "false") == "true"
        if dtype.is_float:
            return float(self.take("number"))
        number = self.integer()
        if not dtype.range[0] <= number <= dtype.range[1]:
            raise ContentFault(f"{number} is not in the range of {dtype.value}")
        return number

    # -- trailers --------------------------------------------------------------------

    def _location(self) -> Location:
        if not self.accept("loc"):
            return Location()
        self.expect("(")
        texts = []
        for _ in range(3):
            texts.append(self.string())
            self.expect(",")
        index = None if self.accept("none") else self.integer()
        self.expect(")")
        return Location(texts[0], texts[1], index, texts[2])

    def _placement(self) -> Placement | None:
        if not self.accept("on"):
            return None
        self.expect("(")
        device = self.string()
        self.expect(",")
        segment = None if self.accept("none") else self.integer()
        self.expect(",")
        reason = self.string()
        self.expect(")")
        return Placement(device, segment, reason)


def _decode(text: str, dtype: DType, shape: tuple[int, ...]) -> Array:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ContentFault(f"bad base64: {error}") from None
    if len(raw) != math.prod(shape) * dtype.size_bytes:
        raise ContentFault(f"{len(raw)} bytes do not fill {dtype.value}{list(shape)}")
    return np.frombuffer(raw, dtype.numpy).reshape(shape)
