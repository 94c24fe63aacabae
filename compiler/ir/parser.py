# SPDX-License-Identifier: Apache-2.0
"""Reads `.gir` text. The text is untrusted: every failure is a `GADL-I002` with line and column."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.diag import GadlError

from .graph import Graph, Location, Op, Placement, Stage, Value
from .opdef import AttrKind, OpDef, OpError, op_def
from .printer import VERSION
from .types import Array, DType, Layout, QuantParams, Requant, Rounding, TensorType

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<name>%(?:"(?:[^"\\\n]|\\.)*"|[A-Za-z0-9_.:/-]+))"""
    r"""|(?P<resource>\#\d+)|(?P<number>-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan)(?![A-Za-z_]))|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<mark>[{}()\[\]<>,:=@])|(?P<end>\Z))"""
)
#: Elements of one tensor; larger ones do not come from real models.
MOST_ELEMENTS = 1 << 32
#: Dimensions of one tensor.
MOST_DIMS = 16


class _Bad(Exception):
    """A syntax error at the current token."""


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
    except (_Bad, OpError, ValueError, OverflowError, MemoryError) as error:
        line = text.count("\n", 0, parser.start) + 1
        column = parser.start - (text.rfind("\n", 0, parser.start) + 1) + 1
        where = f"{path}:{line}:{column}"
        raise GadlError.of("GADL-I002", where, path=path, detail=str(error)) from None


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = self.start = 0
        self.kind, self.token = "", ""
        self.values: dict[str, Value] = {}
        self.resources: dict[str, Array] = {}
        self.advance()

    # -- tokens ------------------------------------------------------------------

    def advance(self) -> str:
        """Move to the next token; returns the one left behind."""
        before = self.token
        found = _TOKEN.match(self.text, self.position)
        if found is None or found.lastgroup is None:
            self.start = self.position
            raise _Bad("unexpected character")
        self.kind, self.token = found.lastgroup, found.group(found.lastgroup)
        self.start, self.position = found.start(found.lastgroup), found.end()
        return before

    def expect(self, *wanted: str) -> str:
        """Take a token that must be one of `wanted` (texts), or raise."""
        if self.token not in wanted or self.kind in ("string", "name"):
            raise _Bad(f"expected {' or '.join(repr(w) for w in wanted)}, found {self.token[:40]!r}")
        return self.advance()

    def take(self, kind: str) -> str:
        """Take a token of a kind, or raise."""
        if self.kind != kind:
            raise _Bad(f"expected a {kind}, found {self.token[:40]!r}")
        return self.advance()

    def accept(self, wanted: str) -> bool:
        """Take the token if it is `wanted`."""
        if self.token == wanted and self.kind not in ("string", "name"):
            self.advance()
            return True
        return False

    def string(self) -> str:
        return str(json.loads(self.take("string")))

    def integer(self) -> int:
        text = self.take("number")
        if not re.fullmatch(r"-?\d+", text):
            raise _Bad(f"expected an integer, found {text!r}")
        return int(text)

    def name(self) -> str:
        text = self.take("name")[1:]
        return str(json.loads(text)) if text.startswith('"') else text

    # -- the file ----------------------------------------------------------------

    def graph(self) -> Graph:
        self._read_resources()
        self.expect("gir")
        version = self.take("number")
        if version.split(".")[0] != VERSION.split(".")[0]:
            raise _Bad(f"version {version} is not {VERSION}")
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
            raise _Bad(f"unexpected {self.token[:40]!r} after the graph")
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

    def _define(self, graph: Graph, name: str, type: TensorType, data: Array | None = None) -> Value:
        if name in self.values:
            raise _Bad(f"'{name}' is defined twice")
        value = Value(graph.unique_name(name), type, None, data)
        self.values[name] = value
        return value

    def _value(self) -> Value:
        name = self.name()
        if name not in self.values:
            raise _Bad(f"'{name}' is not defined")
        return self.values[name]

    def _constant(self, graph: Graph) -> None:
        name = self.name()
        type = self._after_colon()
        self.expect("=")
        data = self._tensor()
        if DType.of(data.dtype) is not type.dtype or data.shape != type.shape:
            raise _Bad(f"constant '{name}' does not have its type")
        self._define(graph, name, type, data)

    def _op(self, graph: Graph) -> None:
        results = [(self.name(), self._after_colon())]
        while self.accept(","):
            results.append((self.name(), self._after_colon()))
        self.expect("=")
        definition = op_def(self.take("word"))
        self.expect("(")
        operands: list[Value | None] = []
        while not self.accept(")"):
            operands.append(None if self.accept("none") else self._value())
            if self.token != ")":
                self.expect(",")
        attrs = self._attrs(definition)
        loc, placement = self._location(), self._placement()
        definition.check_operands(operands)
        op = Op(definition.name, operands, definition.complete(attrs), loc)
        op.placement = placement
        op.results = [self._define(graph, n, t) for n, t in results]
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
                raise _Bad(f"'{definition.name}' has no (second) attribute '{key}'")
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
                return self._number()
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
            raise _Bad("a requantisation needs an i32 multiplier and an i8 shift")
        return Requant(multiplier, shift, rounding)

    def _number(self) -> int | float:
        text = self.take("number")
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)

    # -- types and tensors ---------------------------------------------------------

    def _dtype(self) -> DType:
        return DType(self.take("word"))

    def _shape(self) -> tuple[int, ...]:
        dims = self._dims()
        if any(isinstance(d, str) for d in dims):
            raise _Bad("a constant needs a static shape")
        return tuple(d for d in dims if isinstance(d, int))

    def _dims(self) -> tuple[int | str, ...]:
        self.expect("[")
        dims: list[int | str] = []
        while not self.accept("]"):
            dims.append(self.take("word") if self.kind == "word" else self.integer())
            if self.token != "]":
                self.expect(",")
        if len(dims) > MOST_DIMS or any(isinstance(d, int) and d < 0 for d in dims):
            raise _Bad("unreasonable shape")
        if math.prod(d for d in dims if isinstance(d, int)) > MOST_ELEMENTS:
            raise _Bad("unreasonably large shape")
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
                raise _Bad("scales do not fit their axis")
        self.expect(">")
        return QuantParams(tuple(scales), zero, axis)

    def _tensor(self) -> Array:
        if self.kind == "resource":
            key = self.advance()
            if key not in self.resources:
                raise _Bad(f"resource {key} is missing")
            return self.resources[key]
        dtype, shape = self._dtype(), self._shape()
        self.expect("[")
        items: list[int | float | bool] = []
        while not self.accept("]"):
            items.append(self.advance() == "true" if self.token in ("true", "false") else self._number())
            if self.token != "]":
                self.expect(",")
        if len(items) != math.prod(shape):
            raise _Bad(f"{len(items)} elements do not fill {shape}")
        return np.array(items, dtype.numpy).reshape(shape)

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
        raise _Bad(f"bad base64: {error}") from None
    if len(raw) != math.prod(shape) * dtype.size_bytes:
        raise _Bad(f"{len(raw)} bytes do not fill {dtype.value}{list(shape)}")
    return np.frombuffer(raw, dtype.numpy).reshape(shape)
