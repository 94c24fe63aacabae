# SPDX-License-Identifier: Apache-2.0
"""Flatbuffer tables as dataclasses: a field declares its slot once, reader and writer follow.

A field's kind is a struct format of one letter (a scalar), of several (a struct of bytes), `str`, `bytes`, a dataclass of such
fields, or a list of one of these as `[kind]`. None is not written; what is not there reads as the field's default.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, TypeVar

import flatbuffers

T = TypeVar("T")

_WRITERS = {"B": "Uint8", "?": "Bool", "i": "Int32", "I": "Uint32", "q": "Int64", "f": "Float32"}
#: Bytes that may be read for each byte of the file: tables may share strings, but work stays bounded.
_MOST_READ = 16


class FlatbufferError(ValueError):
    """Bytes are not a sound flatbuffer of these tables."""


def slot(number: int, kind: Any, default: Any) -> Any:
    """A field of a table."""
    return dataclasses.field(default=default, metadata={"slot": number, "kind": kind})


def _slots(table: Any) -> list[tuple[str, int, Any]]:
    return [(f.name, f.metadata["slot"], f.metadata["kind"]) for f in dataclasses.fields(table)]


def read(table: type[T], data: bytes) -> T:
    """The root table of `data`; `FlatbufferError` when an offset leads outside, or too much refers to the same bytes."""
    reader = _Reader(data)
    return reader.table(table, reader.follow(0))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.left = data, _MOST_READ * len(data)

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise FlatbufferError("its tables refer to the same bytes too often")

    def scalar(self, kind: str, at: int) -> Any:
        if at < 0 or at + struct.calcsize("<" + kind) > len(self.data):
            raise FlatbufferError(f"an offset leads to byte {at} of {len(self.data)}")
        return struct.unpack_from("<" + kind, self.data, at)[0]

    def follow(self, at: int) -> int:
        return at + int(self.scalar("I", at))

    def vector(self, at: int, element_bytes: int) -> tuple[int, int]:
        """First element and number of elements."""
        start = self.follow(at)
        count = int(self.scalar("I", start))
        if count * element_bytes > len(self.data) - start - 4:
            raise FlatbufferError(f"{count} elements at byte {start} do not fit into {len(self.data)} bytes")
        self.spend(count * element_bytes)
        return start + 4, count

    def table(self, table: type[T], at: int) -> T:
        places = at - int(self.scalar("i", at))
        size = int(self.scalar("H", places))
        if size < 4 or places + size > len(self.data):
            raise FlatbufferError(f"the table at byte {at} is damaged")
        self.spend(size)
        values = {}
        for name, number, kind in _slots(table):
            place = int(self.scalar("H", places + 4 + 2 * number)) if 4 + 2 * number < size else 0
            if place:
                values[name] = self.value(kind, at + place)
        return table(**values)

    def value(self, kind: Any, at: int) -> Any:
        if isinstance(kind, list):
            if kind[0] in _WRITERS:
                start, count = self.vector(at, struct.calcsize("<" + kind[0]))
                return struct.unpack_from(f"<{count}{kind[0]}", self.data, start)
            start, count = self.vector(at, 4)
            return tuple(self.value(kind[0], start + 4 * i) for i in range(count))
        if kind is str or kind is bytes:
            start, count = self.vector(at, 1)
            found = self.data[start : start + count]
            return found.decode("utf-8", "replace") if kind is str else found
        if isinstance(kind, str):
            if len(kind) == 1:
                return self.scalar(kind, at)
            return tuple(self.scalar(letter, at + i) for i, letter in enumerate(kind))
        return self.table(kind, self.follow(at))


def write(root: Any) -> bytes:
    """The flatbuffer of a table; the same table gives the same bytes."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, root))
    return bytes(builder.Output())


def _write_table(builder: flatbuffers.Builder, table: Any) -> int:
    slots = _slots(table)
    offsets = {}
    for name, number, kind in slots:
        value = getattr(table, name)
        if value is not None and not isinstance(kind, str):
            offsets[number] = _write_value(builder, kind, value)
    builder.StartObject(1 + max(number for _, number, _ in slots))
    for name, number, kind in slots:
        value = getattr(table, name)
        if number in offsets:
            builder.PrependUOffsetTRelativeSlot(number, offsets[number], 0)
        elif value is not None and len(kind) == 1:
            getattr(builder, f"Prepend{_WRITERS[kind]}Slot")(number, value, 0)
        elif value is not None:
            builder.Prep(1, len(kind))
            for byte in reversed(value):
                builder.PrependByte(byte)
            builder.PrependStructSlot(number, builder.Offset(), 0)
    return int(builder.EndObject())


def _write_value(builder: flatbuffers.Builder, kind: Any, value: Any) -> int:
    """A string, vector or table; its offset."""
    if kind is str:
        return int(builder.CreateString(value))
    if kind is bytes:
        return int(builder.CreateByteVector(value))
    if not isinstance(kind, list):
        return _write_table(builder, value)
    if kind[0] in _WRITERS:
        size = struct.calcsize("<" + kind[0])
        builder.StartVector(size, len(value), size)
        for item in reversed(value):
            getattr(builder, f"Prepend{_WRITERS[kind[0]]}")(item)
    else:
        offsets = [_write_value(builder, kind[0], item) for item in value]
        builder.StartVector(4, len(value), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
