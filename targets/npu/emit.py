# SPDX-License-Identifier: Apache-2.0
"""Emission: placed and synchronised steps become code."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gadl.compiler.ir.types import DType, Rounding
from gadl.passes.plan.program import Program, Ref, Step, Wait
from gadl.passes.schedule.cores import Item

from .costs import TYPES
from .instruction import Instruction, field_bits, semaphore_bits
from .isa import BY_NAME, MOST_COUNT, MOST_POSTS, MOST_WAITS, Queue, Round

_REAL = frozenset({DType.F16, DType.BF16, DType.F32})
_ROUNDS = {r: Round[r.name] for r in Rounding}


@dataclass(frozen=True)
class _Template:
    """A step's instruction but for its queue, its semaphores and its addresses."""

    bits: int
    addresses: tuple[tuple[str, Ref], ...]
    words: int


class Emitter:
    """Encodes programs that share steps: what does not depend on placement and order is encoded once for each step.

    One counting semaphore stands for each pair of queues: the waits of a pair are monotone, so its n-th wait takes the n-th
    post. More waits or posts than an instruction holds go into WAIT and POST instructions beside it.
    """

    def __init__(self) -> None:
        self._templates: dict[int, tuple[Step, _Template]] = {}

    def code(self, program: Program, waits: Sequence[Wait]) -> bytes:
        """Instructions in step order, ended by END; `IsaError` names a field whose value does not fit."""
        waits_of: dict[int, list[tuple[int, int]]] = {}
        posts_of: dict[int, list[tuple[int, int]]] = {}
        numbers: dict[tuple[str, str], int] = {}
        for item in waits:
            pair = (program.steps[item.on].engine, program.steps[item.step].engine)
            semaphore = numbers.setdefault(pair, len(numbers))
            waits_of.setdefault(item.step, []).append((semaphore, 1))
            posts_of.setdefault(item.on, []).append((semaphore, 1))
        out = bytearray()
        for index, step in enumerate(program.steps):
            out += self._step(step, waits_of.get(index, []), posts_of.get(index, []))
        out += Instruction("END", Queue.CTL).encode()
        return bytes(out)

    def core_code(self, items: Sequence[Item], signal: Mapping[str, int]) -> bytes:
        """The code of one of several cores, ended by END; `signal` are the fields of a signal's load."""
        out = bytearray()
        for item in items:
            waits, queue = [], Queue[item.queue]
            for semaphore, count in item.waits:
                for _ in range((count - 1) // MOST_COUNT):
                    out += Instruction("WAIT", queue, {}, [(semaphore, MOST_COUNT)], (), item.op).encode()
                waits.append((semaphore, (count - 1) % MOST_COUNT + 1))
            if item.step is not None:
                out += self._step(item.step, waits, item.posts)
                continue
            while len(waits) > MOST_WAITS:
                out += Instruction("WAIT", queue, {}, waits[:MOST_WAITS], (), item.op).encode()
                waits = waits[MOST_WAITS:]
            name, fields = ("LD", signal) if item.signal else ("WAIT", {})
            out += Instruction(name, queue, fields, waits, item.posts[:MOST_POSTS], item.op).encode()
            out += self._posts(queue, item.posts, item.op)
        out += Instruction("END", Queue.CTL).encode()
        return bytes(out)

    def _step(self, step: Step, waits: list[tuple[int, int]], posts: list[tuple[int, int]]) -> bytes:
        queue, out = Queue[step.queue], bytearray()
        while len(waits) > MOST_WAITS:
            out += Instruction("WAIT", queue, {}, waits[:MOST_WAITS], (), step.op).encode()
            waits = waits[MOST_WAITS:]
        template = self._template(step)
        bits = template.bits | queue << 8
        if waits or posts:
            bits |= semaphore_bits(step.instruction, waits, posts[:MOST_POSTS])
        for name, ref in template.addresses:
            bits |= field_bits(step.instruction, name, ref.resolve())
        out += bits.to_bytes(template.words * 8, "little")
        return bytes(out + self._posts(queue, posts, step.op))

    @staticmethod
    def _posts(queue: Queue, posts: list[tuple[int, int]], op: int) -> bytes:
        """The posts that an instruction does not hold."""
        rest = (posts[first : first + MOST_POSTS] for first in range(MOST_POSTS, len(posts), MOST_POSTS))
        return b"".join(Instruction("POST", queue, {}, (), part, op).encode() for part in rest)

    def _template(self, step: Step) -> _Template:
        known = self._templates.get(id(step))
        if known is None:
            spec = BY_NAME[step.instruction]
            fields: dict[str, int] = {}
            addresses: list[tuple[str, Ref]] = []
            real = any(step.fields.get(name) in _REAL for name in ("out_type", "type", "x_type"))
            for name, value in step.fields.items():
                if isinstance(value, Ref):
                    addresses.append((name, value))
                    if value.buffer.memory.startswith("dram"):
                        fields[f"{name}_region"] = int(value.buffer.memory[4:])
                else:
                    fields[name] = _number(name, value, real)
            bits = Instruction(step.instruction, spec.queues[0], fields, debug=step.op).bits() & ~(0xF << 8)
            known = self._templates[id(step)] = step, _Template(bits, tuple(addresses), spec.words)
        return known[1]


def _number(name: str, value: Any, real: bool) -> int:
    """A field's value: types and roundings numbered, real bounds as f32 bits."""
    if isinstance(value, DType):
        return int(TYPES[value])
    if isinstance(value, Rounding):
        return int(_ROUNDS[value])
    if name in ("lo", "hi") and real:
        return int(struct.unpack("<i", struct.pack("<f", value))[0])
    return int(value)
