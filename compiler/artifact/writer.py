# SPDX-License-Identifier: Apache-2.0
"""Writes `.gadl` files. The same content gives the same bytes."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .format import (
    ABI,
    ALIGNMENT,
    DTYPES,
    ENTRY_BYTES,
    HEADER_BYTES,
    LAYOUTS,
    MAGIC,
    NO_TENSOR,
    ROUNDINGS,
    AttrCode,
    Feature,
    StepKind,
    Storage,
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class RequantValue:
    """A requantisation as an attribute: rounding by name, i32 multipliers, i8 shifts."""

    rounding: str
    multiplier: Array
    shift: Array


AttrValue = int | float | bool | str | tuple[int, ...] | tuple[float, ...] | Array | tuple[RequantValue, ...]


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of the schedule. `offset` is in bytes into its storage."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    storage: Storage
    offset: int
    layout: str = "row_major"
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = -1


@dataclass(frozen=True)
class HostStep:
    """A host op: operands and results are tensor numbers, None for an operand that is absent."""

    op: str
    operands: tuple[int | None, ...]
    results: tuple[int, ...]
    attrs: Mapping[str, AttrValue] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentStep:
    """A device segment."""

    segment: int
    operands: tuple[int, ...]
    results: tuple[int, ...]


@dataclass
class ArtifactBuilder:
    """Collects the parts of an artefact."""

    manifest: dict[str, Any]
    tensors: list[TensorRecord] = field(default_factory=list)
    inputs: list[tuple[str, int]] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    steps: list[HostStep | SegmentStep] = field(default_factory=list)
    programs: list[bytes] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    arena_bytes: int = 0
    golden: bytes = b""
    debug: dict[str, Any] = field(default_factory=dict)
    features: Feature = Feature.NONE

    def add_weights(self, data: bytes) -> int:
        """Append a constant; returns its offset."""
        self.weights.extend(b"\0" * (-len(self.weights) % ALIGNMENT))
        offset = len(self.weights)
        self.weights.extend(data)
        return offset

    def to_bytes(self) -> bytes:
        """The file."""
        sections: list[tuple[str, int, bytes]] = [("manifest", 0, _json(self.manifest)), ("host", 0, self._host())]
        sections += [("plan", i, plan.encode()) for i, plan in enumerate(self.plans)]
        sections += [("program", i, code) for i, code in enumerate(self.programs)]
        sections += [("weights", 0, bytes(self.weights)), ("golden", 0, self.golden), ("debug", 0, _json(self.debug))]
        at = HEADER_BYTES + ENTRY_BYTES * len(sections)
        table, body = b"", b""
        for name, index, data in sections:
            gap = -at % ALIGNMENT
            body += b"\0" * gap
            at += gap
            table += struct.pack("<16sIIQQ", name.encode(), index, zlib.crc32(data), at, len(data))
            body += data
            at += len(data)
        return MAGIC + struct.pack("<HHQIIQ", *ABI, self.features, len(sections), 0, at) + table + body

    def _host(self) -> bytes:
        segments = sum(isinstance(s, SegmentStep) for s in self.steps)
        out = struct.pack("<QIIIII", self.arena_bytes, len(self.tensors), len(self.inputs), len(self.outputs), segments, len(self.steps))
        parts = [out, *(_tensor(t) for t in self.tensors)]
        parts += [_str(name) + struct.pack("<I", number) for name, number in (*self.inputs, *self.outputs)]
        parts += [_step(s) for s in self.steps]
        return b"".join(parts)


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, indent=1).encode()


def _str(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 0xFFFF:
        raise ValueError("a name is longer than 65535 bytes")
    return struct.pack("<H", len(raw)) + raw


def _tensor(t: TensorRecord) -> bytes:
    head = struct.pack("<BBBB", DTYPES.index(t.dtype), LAYOUTS.index(t.layout), t.storage, len(t.shape))
    dims = struct.pack(f"<{len(t.shape)}q", *t.shape)
    tail = struct.pack("<QiiI", t.offset, t.zero_point, t.axis, len(t.scales)) + struct.pack(f"<{len(t.scales)}d", *t.scales)
    return _str(t.name) + head + dims + tail


def _ids(numbers: Sequence[int | None]) -> bytes:
    return struct.pack(f"<I{len(numbers)}I", len(numbers), *(NO_TENSOR if n is None else n for n in numbers))


def _step(step: HostStep | SegmentStep) -> bytes:
    if isinstance(step, SegmentStep):
        head = struct.pack("<B", StepKind.SEGMENT) + _str("") + struct.pack("<I", step.segment)
        return head + _ids(step.operands) + _ids(step.results) + struct.pack("<I", 0)
    head = struct.pack("<B", StepKind.HOST) + _str(step.op) + struct.pack("<I", 0)
    attrs = b"".join(_str(name) + _attr(value) for name, value in step.attrs.items())
    return head + _ids(step.operands) + _ids(step.results) + struct.pack("<I", len(step.attrs)) + attrs


def _attr(value: AttrValue) -> bytes:
    if isinstance(value, (bool, int)):
        return struct.pack("<Bq", AttrCode.INT, value)
    if isinstance(value, float):
        return struct.pack("<Bd", AttrCode.FLOAT, value)
    if isinstance(value, str):
        return struct.pack("<B", AttrCode.STR) + _str(value)
    if isinstance(value, np.ndarray):
        name = "bf16" if value.dtype.name == "bfloat16" else {"f": "f", "i": "i", "u": "u"}[value.dtype.kind] + str(value.dtype.itemsize * 8)
        head = struct.pack("<BBB", AttrCode.TENSOR, DTYPES.index(name), value.ndim)
        return head + struct.pack(f"<{value.ndim}q", *value.shape) + np.ascontiguousarray(value).tobytes()
    if value and isinstance(value[0], RequantValue):
        parts = [struct.pack("<BI", AttrCode.REQUANTS, len(value))]
        for item in value:
            if isinstance(item, RequantValue):
                parts.append(struct.pack("<BI", ROUNDINGS.index(item.rounding), len(item.multiplier)))
                parts += [item.multiplier.astype("<i4").tobytes(), item.shift.astype("<i1").tobytes()]
        return b"".join(parts)
    if all(isinstance(v, int) for v in value):
        return struct.pack(f"<BI{len(value)}q", AttrCode.INTS, len(value), *value)
    return struct.pack(f"<BI{len(value)}d", AttrCode.FLOATS, len(value), *value)
