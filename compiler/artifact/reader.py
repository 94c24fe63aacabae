# SPDX-License-Identifier: Apache-2.0
"""Reads the table of contents and the descriptive sections of `.gadl` files; the runtime reads the rest."""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any

from gadl.compiler.diag import GadlError

from .format import ABI, ALIGNMENT, ENTRY_BYTES, HEADER_BYTES, MAGIC, Feature

#: Sections of one file; more than any compiler writes.
MOST_SECTIONS = 65536


class ArtifactFile:
    """A `.gadl` file. Header and table of contents are checked at once, a section's checksum when it is read."""

    def __init__(self, data: bytes | mmap.mmap, where: str = "<memory>") -> None:
        self.data, self.where = data, where
        self._checksums: dict[tuple[str, int], int] = {}
        self.sections = self._table()

    @classmethod
    def open(cls, path: Path | str) -> ArtifactFile:
        """Map a file.

        Raises `GADL-A001` when it is not a sound artefact, `GADL-A002` when it is too new, `GADL-A003` when it needs a
        feature that this version does not know.
        """
        try:
            with Path(path).open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: the file is empty
            raise GadlError.of("GADL-A001", path, detail=str(error)) from None
        return cls(data, str(path))

    def _bad(self, detail: str) -> GadlError:
        return GadlError.of("GADL-A001", self.where, detail=detail)

    def _table(self) -> dict[tuple[str, int], tuple[int, int]]:
        data = self.data
        if len(data) < HEADER_BYTES or data[:4] != MAGIC:
            raise self._bad("it is not a .gadl file")
        major, minor, features, count, _, size = struct.unpack_from("<HHQIIQ", data, 4)
        if (major, minor) > ABI:
            raise GadlError.of("GADL-A002", self.where, file=f"{major}.{minor}", runtime=f"{ABI[0]}.{ABI[1]}")
        unknown = features & ~sum(Feature)
        if unknown:
            raise GadlError.of("GADL-A003", self.where, features=hex(unknown))
        if size != len(data) or count > MOST_SECTIONS or HEADER_BYTES + ENTRY_BYTES * count > len(data):
            raise self._bad("it is truncated")
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for number in range(count):
            name, index, crc, at, length = struct.unpack_from("<16sIIQQ", data, HEADER_BYTES + ENTRY_BYTES * number)
            key = (name.rstrip(b"\0").decode("ascii", "replace"), index)
            if at > len(data) or length > len(data) - at or at % ALIGNMENT or key in found:
                raise self._bad(f"section {number} is damaged")
            found[key], self._checksums[key] = (at, length), crc
        return found

    def section(self, name: str, index: int = 0) -> bytes:
        """The bytes of a section, empty where there is none; `GADL-A001` when they are damaged."""
        if (name, index) not in self.sections:
            return b""
        at, length = self.sections[name, index]
        found = self.data[at : at + length]
        if zlib.crc32(found) != self._checksums[name, index]:
            raise self._bad(f"section '{name}' is damaged")
        return found

    def verify(self) -> None:
        """Check every section; `GADL-A001` names the first that is damaged."""
        for name, index in self.sections:
            self.section(name, index)

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
