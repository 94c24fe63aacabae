# SPDX-License-Identifier: Apache-2.0
"""Graphs as `.gir` text. `parse(print_graph(g))` gives the same graph; the grammar is in `docs/ir.md`."""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.diag.files import write_atomically

from .graph import Graph, Location, Op, Value
from .types import Array, DType, Requant

VERSION = "1.0"
_PLAIN = re.compile(r"[A-Za-z_0-9][A-Za-z0-9_.:/-]*\Z")
#: Constants up to this many elements are written where they stand.
INLINE_ELEMENTS = 16


def print_graph(graph: Graph, elide: bool = False) -> str:
    """The graph as text. `elide` leaves large constants out (for reading; such text cannot be parsed)."""
    return _Printer(elide).graph(graph)


def save_gir(graph: Graph, path: Path) -> None:
    """Write `graph` to a file, whole or not at all."""
    write_atomically(path, print_graph(graph).encode())


class _Printer:
    def __init__(self, elide: bool) -> None:
        self.elide = elide
        self.resources: list[str] = []
        self.known: dict[int, str] = {}

    def graph(self, graph: Graph) -> str:
        lines = [f"gir {VERSION} {graph.stage.value}", f"graph {json.dumps(graph.name)} {{"]
        lines += [f"  input {name(v)} : {v.type}" for v in graph.inputs]
        lines += [f"  const {name(v)} : {v.type} = {self.tensor(v.data)}" for v in graph.constants() if v.data is not None]
        lines += [f"  {self.op(op)}" for op in graph.ops]
        outputs = zip(graph.output_names, graph.outputs)
        lines += [f"  output {json.dumps(n, ensure_ascii=False)} = {name(v)}" for n, v in outputs]
        lines.append("}")
        if self.resources:
            lines += ["resources {", *self.resources, "}"]
        return "\n".join(lines) + "\n"

    def op(self, op: Op) -> str:
        results = ", ".join(f"{name(r)} : {r.type}" for r in op.results)
        operands = ", ".join("none" if v is None else name(v) for v in op.operands)
        text = f"{results} = {op.name}({operands})"
        if op.attrs:
            text += " {" + ", ".join(f"{k} = {self.attr(v)}" for k, v in op.attrs.items()) + "}"
        if op.loc != Location():
            index = "none" if op.loc.index is None else op.loc.index
            texts = ", ".join(json.dumps(t, ensure_ascii=False) for t in (op.loc.file, op.loc.node, op.loc.python))
            text += f" loc({texts}, {index})"
        if op.placement is not None:
            segment = "none" if op.placement.segment is None else op.placement.segment
            reason = json.dumps(op.placement.reason, ensure_ascii=False)
            text += f" on({json.dumps(op.placement.device)}, {segment}, {reason})"
        return text

    def attr(self, value: Any) -> str:
        if isinstance(value, tuple):
            return "(" + ", ".join(self.attr(v) for v in value) + ("," if len(value) == 1 else "") + ")"
        if isinstance(value, Requant):
            return f"requant({value.rounding.value}, {self.tensor(value.multiplier)}, {self.tensor(value.shift)})"
        if isinstance(value, np.ndarray):
            return self.tensor(value)
        if isinstance(value, enum.Enum):
            return str(value.value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)

    def tensor(self, data: Array) -> str:
        kind = f"{DType.of(data.dtype).value}[{','.join(map(str, data.shape))}]"
        if data.size <= INLINE_ELEMENTS:
            return f"{kind} [{', '.join(_scalar(v) for v in data.reshape(-1))}]"
        raw = np.ascontiguousarray(data)
        if self.elide:
            return f"{kind} elided {hashlib.sha256(raw.tobytes()).hexdigest()[:12]}"
        key = id(data)
        if key not in self.known:
            self.known[key] = f"#{len(self.resources)}"
            encoded = base64.b64encode(raw.tobytes()).decode()
            self.resources.append(f'  {self.known[key]} : {kind} = "{encoded}"')
        return self.known[key]


def name(value: Value) -> str:
    """A value's name as it stands in text."""
    return f"%{value.name}" if _PLAIN.match(value.name) else f"%{json.dumps(value.name, ensure_ascii=False)}"


def _scalar(value: Any) -> str:
    """One element, as short as it reads back exactly."""
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    if isinstance(value, np.integer):
        return str(int(value))
    short = str(value)
    return short if type(value)(float(short)) == value else repr(float(value))
