# SPDX-License-Identifier: Apache-2.0
"""Commands and their encoding, from the declarations of `isa.py`.

A command stream is a sequence of records, both engines' interleaved: a header (magic u8, descriptor bytes u8, engine u8, five
zero bytes) and the descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .chip import CHIPS, Chip
from .isa import HEADER_BYTES, LAYOUTS, Engine, Layout

_MAGICS = {chip.magic for chip in CHIPS.values()}
_PLACES = {engine: [(f.name, f.at, f.mask) for f in layout.fields] for engine, layout in LAYOUTS.items()}


class DescriptorError(ValueError):
    """A command does not fit its declaration, or bytes are not a command stream."""


@dataclass(frozen=True)
class Command:
    """One command with the bits of all its fields, as unsigned numbers."""

    engine: Engine
    fields: Mapping[str, int]

    @classmethod
    def of(cls, engine: Engine, fields: Mapping[str, int]) -> Command:
        """The command of some fields, the others at their reset values; `DescriptorError` names the one at fault."""
        layout = LAYOUTS[engine]
        return cls(engine, {**layout.reset, **{name: _bits(layout, name, value) for name, value in fields.items()}})


def _bits(layout: Layout, name: str, value: int) -> int:
    """A value as the bits of its field."""
    field = layout.by_name.get(name)
    if field is None:
        raise DescriptorError(f"a {layout.engine.name} descriptor has no field '{name}'")
    least = -(1 << (field.width - 1)) if field.signed else 0
    if not least <= value <= field.mask:
        raise DescriptorError(f"{layout.engine.name}.{name} = {value} is outside [{least}, {field.mask}]")
    return int(value) & field.mask


def encode(chip: Chip, engine: Engine, fields: Mapping[str, int]) -> bytes:
    """Header and descriptor; fields that are not given keep their reset values. `DescriptorError` names the one at fault."""
    layout = LAYOUTS[engine]
    bits = layout.reset_bits
    for name, value in fields.items():
        wanted, field = _bits(layout, name, value), layout.by_name[name]
        bits ^= (wanted ^ field.reset) << field.at
    size = layout.size_bytes
    return bytes((chip.magic, size, engine)).ljust(HEADER_BYTES, b"\0") + bits.to_bytes(size, "little")


def decode(engine: Engine, descriptor: bytes) -> Command:
    """The command of a descriptor without its header."""
    if len(descriptor) != LAYOUTS[engine].size_bytes:
        raise DescriptorError(f"a {engine.name} descriptor has {LAYOUTS[engine].size_bytes} bytes, not {len(descriptor)}")
    bits = int.from_bytes(descriptor, "little")
    return Command(engine, {name: bits >> at & mask for name, at, mask in _PLACES[engine]})


def commands(magic: int | None, stream: bytes) -> list[Command]:
    """The commands of a stream for the chip of this magic (None: of any one chip); `DescriptorError` when it is damaged."""
    found, at = [], 0
    expected = _MAGICS if magic is None else {magic}
    while at < len(stream):
        header = stream[at : at + HEADER_BYTES]
        if len(header) < HEADER_BYTES:
            raise DescriptorError(f"the stream ends inside the header at byte {at}")
        if header[0] not in expected:
            raise DescriptorError(f"no command starts at byte {at}")
        expected = {header[0]}
        layout = LAYOUTS.get(header[2])  # type: ignore[call-overload]
        if layout is None or header[1] != layout.size_bytes or any(header[3:]):
            raise DescriptorError(f"the header at byte {at} is of no known command")
        at += HEADER_BYTES
        if len(stream) - at < layout.size_bytes:
            raise DescriptorError(f"the stream ends inside the descriptor at byte {at}")
        found.append(decode(layout.engine, stream[at : at + layout.size_bytes]))
        at += layout.size_bytes
    return found
