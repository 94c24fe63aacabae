# SPDX-License-Identifier: Apache-2.0
"""Reads the table of contents and the descriptive sections of `.gadl` files; the runtime reads the rest."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from gadl.compiler.diag import GadlError

from .format import ABI, ENTRY_BYTES, HEADER_BYTES, MAGIC

#: Sections of one file; more than any compiler writes.
MOST_SECTIONS = 65536


class ArtifactFile:
    """A checked `.gadl` file."""

    def __init__(self, data: bytes, where: str = "<memory>") -> None:
        self.data, self.where = data, where
        self.sections = self._table()

    @classmethod
    def open(cls, path: Path | str) -> ArtifactFile:
        """Read a file; `GADL-A001` when it is not a sound artefact, `GADL-A002` when it is too new."""
        try:
            return cls(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise GadlError.of("GADL-A001", path, detail=str(error)) from None

    def _bad(self, detail: str) -> GadlError:
        return GadlError.of("GADL-A001", self.where, detail=detail)

    def _table(self) -> dict[tuple[str, int], tuple[int, int]]:
        data = self.data
        if len(data) < HEADER_BYTES or data[:4] != MAGIC:
            raise self._bad("it is not a .gadl file")
        major, minor, _, count, _, size = struct.unpack_from("<HHQIIQ", data, 4)
        if (major, minor) > ABI or major != ABI[0]:
            raise GadlError.of("GADL-A002", self.where, file=f"{major}.{minor}", runtime=f"{ABI[0]}.{ABI[1]}")
        if size != len(data) or count > MOST_SECTIONS or HEADER_BYTES + ENTRY_BYTES * count > len(data):
            raise self._bad("it is truncated")
        found = {}
        for number in range(count):
            name, index, crc, at, length = struct.unpack_from("<16sIIQQ", data, HEADER_BYTES + ENTRY_BYTES * number)
            if at > len(data) or length > len(data) - at or zlib.crc32(data[at : at + length]) != crc:
                raise self._bad(f"section {number} is damaged")
            found[(name.rstrip(b"\0").decode("ascii", "replace"), index)] = (at, length)
        return found

    def section(self, name: str, index: int = 0) -> bytes:
        """The bytes of a section, empty where there is none."""
        at, length = self.sections.get((name, index), (0, 0))
        return self.data[at : at + length]

    def _object(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self.section(name) or b"{}")
        except (ValueError, RecursionError):
            raise self._bad(f"its {name} is not JSON") from None
        if not isinstance(found, dict):
            raise self._bad(f"its {name} is not an object")
        return found

    @property
    def manifest(self) -> dict[str, Any]:
        """What people and tools read."""
        return self._object("manifest")

    @property
    def debug(self) -> dict[str, Any]:
        """Debug ids and tensor names."""
        return self._object("debug")

    @property
    def programs(self) -> list[bytes]:
        """The device segments' programs."""
        return [self.section("program", i) for i in range(sum(n == "program" for n, _ in self.sections))]
