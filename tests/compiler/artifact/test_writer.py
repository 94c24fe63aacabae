# SPDX-License-Identifier: Apache-2.0
"""The bytes of an artefact, against a decoder written from the format's text; saving; determinism."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler.artifact.format import Feature, Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, HostStep, RequantValue, SegmentStep, TensorRecord
from gadl.compiler.diag.files import write_atomically


def builder() -> ArtifactBuilder:
    made = ArtifactBuilder({"b": 1, "a": "名"}, features=Feature.NPU, arena_bytes=192, programs=[b"code"], plans=["plan"])
    assert made.add_weights(b"\x01\x02\x03") == 0
    offset = made.add_weights(np.arange(4, dtype="<f4").tobytes())
    made.tensors = [
        TensorRecord("x", "f32", (1, 4), Storage.ARENA, 0),
        TensorRecord("w", "f32", (4,), Storage.WEIGHTS, offset),
        TensorRecord("q", "i8", (1, 4), Storage.ARENA, 64, "channels_last", (0.5, 0.25), -3, 1),
        TensorRecord("y", "f32", (), Storage.ARENA, 128),
    ]
    made.inputs, made.outputs = [("in", 0)], [("out", 3)]
    attrs: dict[str, Any] = {
        "int": -5, "float": 0.5, "str": "nearest", "ints": (1, -2), "floats": (0.5, 2.0), "flag": True,
        "blob": np.array([[1, 2]], np.int16), "requant": (RequantValue("even", np.array([7, 8], np.int32), np.array([3, 4], np.int8)),),
    }  # fmt: skip
    made.steps = [HostStep("quantize", (0, None, 1), (2,), attrs), SegmentStep(0, (2,), (3,))]
    return made


class Cursor:
    """Reads a little-endian stream."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __call__(self, form: str) -> Any:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text(self) -> str:
        size = self("H")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def ids(self) -> list[int]:
        return [self("I") for _ in range(self("I"))]


def sections(data: bytes) -> dict[tuple[str, int], bytes]:
    count = struct.unpack_from("<I", data, 16)[0]
    found = {}
    for i in range(count):
        name, index, crc, at, size = struct.unpack_from("<16sIIQQ", data, 32 + 40 * i)
        assert at % 64 == 0 and zlib.crc32(data[at : at + size]) == crc
        found[name.rstrip(b"\0").decode(), index] = data[at : at + size]
    return found


def test_header_and_table() -> None:
    data = builder().to_bytes()
    assert data[:4] == b"GADL"
    assert struct.unpack_from("<HHQIIQ", data, 4) == (1, 0, 1, 7, 0, len(data))
    found = sections(data)
    assert list(found) == [("manifest", 0), ("host", 0), ("plan", 0), ("program", 0), ("weights", 0), ("golden", 0), ("debug", 0)]
    assert found["program", 0] == b"code" and found["plan", 0] == b"plan"
    assert found["weights", 0] == b"\x01\x02\x03" + bytes(61) + np.arange(4, dtype="<f4").tobytes()
    assert found["manifest", 0].decode() == '{\n "a": "名",\n "b": 1\n}'


def test_tensors_and_interface_of_the_schedule() -> None:
    read = Cursor(sections(builder().to_bytes())["host", 0])
    assert read("QIIIII") == (192, 4, 1, 1, 1, 2)
    assert (read.text(), read("BBBB"), read("qq"), read("QiiI")) == ("x", (0, 0, 0, 2), (1, 4), (0, 0, -1, 0))
    assert (read.text(), read("BBBB"), read("q"), read("QiiI")) == ("w", (0, 0, 1, 1), 4, (64, 0, -1, 0))
    assert (read.text(), read("BBBB"), read("qq"), read("QiiI"), read("dd")) == ("q", (4, 1, 0, 2), (1, 4), (64, -3, 1, 2), (0.5, 0.25))
    assert (read.text(), read("BBBB"), read("QiiI")) == ("y", (0, 0, 0, 0), (128, 0, -1, 0))
    assert (read.text(), read("I"), read.text(), read("I")) == ("in", 0, "out", 3)


def test_steps_of_the_schedule() -> None:
    data = sections(builder().to_bytes())["host", 0]
    read = Cursor(data)
    read.at = data.index(b"\x00\x08\x00quantize")
    assert (read("B"), read.text(), read("I"), read.ids(), read.ids(), read("I")) == (0, "quantize", 0, [0, 0xFFFFFFFF, 1], [2], 8)
    assert (read.text(), read("Bq")) == ("int", (0, -5))
    assert (read.text(), read("Bd")) == ("float", (1, 0.5))
    assert (read.text(), read("B"), read.text()) == ("str", 2, "nearest")
    assert (read.text(), read("BIqq")) == ("ints", (3, 2, 1, -2))
    assert (read.text(), read("BIdd")) == ("floats", (4, 2, 0.5, 2.0))
    assert (read.text(), read("Bq")) == ("flag", (0, 1))
    assert (read.text(), read("BBBqqhh")) == ("blob", (5, 6, 2, 1, 2, 1, 2))
    assert (read.text(), read("BIBIiibb")) == ("requant", (6, 1, 2, 2, 7, 8, 3, 4))
    assert (read("B"), read.text(), read("I"), read.ids(), read.ids(), read("I")) == (1, "", 0, [2], [3], 0)
    assert read.at == len(data)


def test_equal_content_gives_equal_bytes() -> None:
    first, second = builder(), builder()
    second.manifest = dict(reversed(first.manifest.items()))
    assert first.to_bytes() == second.to_bytes()
    second.arena_bytes += 64
    assert first.to_bytes() != second.to_bytes()


def test_a_name_that_is_too_long_is_refused() -> None:
    made = builder()
    made.outputs = [("x" * 65536, 3)]
    with pytest.raises(ValueError, match="65535"):
        made.to_bytes()


def test_save_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gadl"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["model.gadl"]
