# SPDX-License-Identifier: Apache-2.0
"""The program container: what a driver loads.

    0    magic "GNPU" | u16 ISA major | u16 ISA minor | 32 bytes SHA-256 of the machine record
    40   u32 cores | u32 machine parameters | u32 inputs | u32 outputs
    56   u64 offsets: machine record, core table, constants; u64 constants size; u64 offsets: inputs, outputs
    104  u64 offset and size of the JSON description (names, types, allocation, debug map) | u64 total size
    128  u64 sizes of regions R0-R7 (R0 constants, R1 inputs, R2 outputs, R3 scratch)
    192  sections, each aligned to 64 bytes

Core table: u64 offset, u64 size of each core's code. Input and output records: u32 region, u32 0, u64 offset, u64 size.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .isa import VERSION
from .machine import Machine

MAGIC = b"GNPU"
ALIGNMENT = 64
REGIONS = 8


@dataclass(frozen=True)
class Binding:
    """Where an input or output lies."""

    region: int
    offset: int
    size: int


@dataclass(frozen=True)
class Container:
    """Everything that goes into a container; `description` is for people and tools."""

    machine: Machine
    cores: Sequence[bytes]
    constants: bytes
    region_sizes: Mapping[int, int]
    inputs: Sequence[Binding]
    outputs: Sequence[Binding]
    description: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The container; the same content gives the same bytes."""
        body = bytearray(192)

        def section(data: bytes) -> int:
            body.extend(b"\0" * (-len(body) % ALIGNMENT))
            body.extend(data)
            return len(body) - len(data)

        machine_at = section(self.machine.record)
        table = b"".join(struct.pack("<QQ", section(code), len(code)) for code in self.cores)
        cores_at = section(table)
        constants_at = section(self.constants)
        inputs_at, outputs_at = (
            section(b"".join(struct.pack("<IIQQ", b.region, 0, b.offset, b.size) for b in bindings))
            for bindings in (self.inputs, self.outputs)
        )
        text = json.dumps(self.description, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        text_at = section(text)
        header = MAGIC + struct.pack("<HH", *VERSION) + self.machine.digest
        header += struct.pack(
            "<IIII", len(self.cores), len(self.machine.values), len(self.inputs), len(self.outputs)
        )
        header += struct.pack("<QQQQQQ", machine_at, cores_at, constants_at, len(self.constants), inputs_at, outputs_at)
        header += struct.pack("<QQQ", text_at, len(text), len(body))
        sizes = {0: len(self.constants), **self.region_sizes}
        header += struct.pack(f"<{REGIONS}Q", *(sizes.get(i, 0) for i in range(REGIONS)))
        body[: len(header)] = header
        return bytes(body)


def read_description(data: bytes) -> dict[str, Any]:
    """The JSON description of a container; `ValueError` when it is not one."""
    if data[:4] != MAGIC or len(data) < 192:
        raise ValueError("not an NPU program")
    at, size = struct.unpack_from("<QQ", data, 104)
    found = json.loads(data[at : at + size])
    if not isinstance(found, dict):
        raise ValueError("the description is not an object")
    return found


def core_code(data: bytes, core: int = 0) -> bytes:
    """The code of one core; `ValueError` when there is none."""
    if data[:4] != MAGIC or len(data) < 192:
        raise ValueError("not an NPU program")
    cores, table = struct.unpack_from("<I", data, 40)[0], struct.unpack_from("<Q", data, 64)[0]
    if not 0 <= core < cores or table + 16 * (core + 1) > len(data):
        raise ValueError(f"no core {core}")
    at, size = struct.unpack_from("<QQ", data, table + 16 * core)
    return data[at : at + size]
