# SPDX-License-Identifier: Apache-2.0
"""Artefacts as read: damaged, too new, of unknown features."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.artifact.writer import ArtifactBuilder
from gadl.compiler.diag import GadlError


def small(**parts: object) -> bytearray:
    return bytearray(ArtifactBuilder({"k": [1, 2]}, programs=[b"one", b"two"], debug={"d": 3}, **parts).to_bytes())  # type: ignore[arg-type]


def with_u64(data: bytearray, at: int, value: int) -> bytearray:
    struct.pack_into("<Q", data, at, value)
    return data


def test_sections() -> None:
    file = ArtifactFile(bytes(small()))
    file.verify()
    assert file.manifest == {"k": [1, 2]} and file.debug == {"d": 3} and file.programs == [b"one", b"two"]
    assert file.section("nothing") == b"" and file.section("program", 7) == b""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not a .gadl file"),
        (b"GADL" + bytes(10), "not a .gadl file"),
        (b"ELF!" + bytes(60), "not a .gadl file"),
        (small()[:-1], "truncated"),
        (small() + b"x", "truncated"),
        (with_u64(small(), 16, 2**31), "truncated"),
        (with_u64(small(), 32 + 24, 2**63), "section 0 is damaged"),
        (with_u64(small(), 32 + 24, 8), "section 0 is damaged"),
        (with_u64(small(), 32 + 32, 2**63), "section 0 is damaged"),
        (small()[:72] + small()[32:72] + small()[112:], "section 1 is damaged"),
    ],
)
def test_damaged_tables_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(GadlError, match=rf"GADL-A001.*{text}"):
        ArtifactFile(bytes(data))


def test_a_damaged_section_is_refused_when_it_is_read() -> None:
    data = small()
    at = data.index(b"two")
    data[at] ^= 1
    file = ArtifactFile(bytes(data))
    assert file.section("program", 0) == b"one"
    with pytest.raises(GadlError, match=r"GADL-A001.*'program' is damaged"):
        file.section("program", 1)
    with pytest.raises(GadlError, match="GADL-A001"):
        file.verify()


def test_versions_and_features() -> None:
    for major, minor in ((1, 1), (2, 0)):
        data = small()
        struct.pack_into("<HH", data, 4, major, minor)
        with pytest.raises(GadlError, match=rf"GADL-A002.*{major}\.{minor}.*1\.0[\s\S]*pip install -U opengadl"):
            ArtifactFile(bytes(data))
    with pytest.raises(GadlError, match=r"GADL-A003.*0x100"):
        ArtifactFile(bytes(with_u64(small(), 8, 0x101)))


@pytest.mark.parametrize("content", [b"[1, 2]", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_object_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gadl.compiler.artifact.writer._json", lambda data: content)
    with pytest.raises(GadlError, match="GADL-A001.*manifest"):
        _ = ArtifactFile(bytes(small())).manifest


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "empty.gadl").touch()
    for path in (tmp_path, tmp_path / "missing.gadl", tmp_path / "empty.gadl"):
        with pytest.raises(GadlError, match="GADL-A001"):
            ArtifactFile.open(path)
