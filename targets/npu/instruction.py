# SPDX-License-Identifier: Apache-2.0
"""Instructions and their encoding, from the declarations of `isa.py`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .isa import BY_NAME, BY_OPCODE, MOST_COUNT, MOST_POSTS, MOST_WAITS, SEMAPHORES, Queue


class IsaError(ValueError):
    """An instruction does not fit its declaration, or bytes are not an instruction."""


@dataclass(frozen=True)
class Instruction:
    """One instruction. Fields that are not given are 0; `waits` and `posts` are (semaphore, count) pairs."""

    name: str
    queue: Queue
    fields: Mapping[str, int] = field(default_factory=dict)
    waits: Sequence[tuple[int, int]] = ()
    posts: Sequence[tuple[int, int]] = ()
    debug: int = 0

    def encode(self) -> bytes:
        """The instruction's words; `IsaError` names the field that is out of range."""
        return self.bits().to_bytes(BY_NAME[self.name].words * 8, "little")

    def bits(self) -> int:
        """The instruction's words as one number."""
        spec = BY_NAME.get(self.name)
        if spec is None:
            raise IsaError(f"there is no instruction '{self.name}'")
        if self.queue not in spec.queues:
            raise IsaError(f"{self.name} does not run on queue {self.queue.name}")
        word0 = spec.opcode | self.queue << 8 | spec.words << 12 | self.debug << 20
        if not 0 <= self.debug < 1 << 32:
            raise IsaError(f"{self.name}: debug id {self.debug} is out of range")
        bits = word0 | semaphore_bits(self.name, self.waits, self.posts)
        for name, value in self.fields.items():
            bits |= field_bits(self.name, name, value)
        return bits


def field_bits(instruction: str, name: str, value: int) -> int:
    """A field's value at its place in the instruction; `IsaError` when there is no such field, or the value does not fit."""
    found = BY_NAME[instruction].layout.get(name)
    if found is None:
        raise IsaError(f"{instruction} has no field '{name}'")
    at, low, high, mask = found
    if not low <= value <= high:
        raise IsaError(f"{instruction}.{name} = {value} is outside [{low}, {high}]")
    return (int(value) & mask) << at


def semaphore_bits(instruction: str, waits: Sequence[tuple[int, int]], posts: Sequence[tuple[int, int]]) -> int:
    """Waits and posts at their place in the instruction."""
    if len(waits) > MOST_WAITS or len(posts) > MOST_POSTS:
        raise IsaError(f"{instruction} has more than {MOST_WAITS} waits or {MOST_POSTS} posts")
    bits = 0
    for first, pairs in ((0, waits), (MOST_WAITS, posts)):
        for number, (semaphore, count) in enumerate(pairs, start=first):
            if not (0 <= semaphore < SEMAPHORES and 0 <= count <= MOST_COUNT):
                raise IsaError(f"{instruction}: semaphore {semaphore} or count {count} is out of range")
            bits |= (semaphore | count << 6) << (64 + 12 * number)
    return bits


def encode(instructions: Iterable[Instruction]) -> bytes:
    """The code of a core."""
    return b"".join(item.encode() for item in instructions)


def decode(code: bytes) -> list[Instruction]:
    """The instructions in `code`; `IsaError` when it is damaged."""
    found, at = [], 0
    while at < len(code):
        if len(code) - at < 16:
            raise IsaError("the code ends inside an instruction")
        word0, word1 = struct.unpack_from("<QQ", code, at)
        spec = BY_OPCODE.get(word0 & 0xFF)
        queue = word0 >> 8 & 0xF
        if spec is None or queue not in spec.queues or word0 >> 12 & 0xFF != spec.words or word0 >> 52 or word1 >> 60:
            raise IsaError(f"there is no instruction at byte {at}")
        if len(code) - at < spec.words * 8:
            raise IsaError("the code ends inside an instruction")
        bits = int.from_bytes(code[at : at + spec.words * 8], "little")
        fields = {}
        for name, (position, item) in spec.positions.items():
            value = bits >> position & ((1 << item.bits) - 1)
            if item.signed and value >> (item.bits - 1):
                value -= 1 << item.bits
            if value:
                fields[name] = value
        pairs = [((word1 >> 12 * i) & 0x3F, (word1 >> (12 * i + 6)) & 0x3F) for i in range(MOST_WAITS + MOST_POSTS)]
        waits = tuple(p for p in pairs[:MOST_WAITS] if p[1])
        posts = tuple(p for p in pairs[MOST_WAITS:] if p[1])
        found.append(Instruction(spec.name, Queue(queue), fields, waits, posts, word0 >> 20 & 0xFFFFFFFF))
        at += spec.words * 8
    return found
