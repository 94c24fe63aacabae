# SPDX-License-Identifier: Apache-2.0
"""Emission: placed and synchronised steps become instructions."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from gadl.compiler.ir.types import DType, Rounding
from gadl.passes.plan.program import Program, Ref, Wait

from .costs import TYPES
from .instruction import Instruction
from .isa import BY_NAME, MOST_POSTS, MOST_WAITS, Queue, Round

_REAL = frozenset({DType.F16, DType.BF16, DType.F32})
_ROUNDS = {r: Round[r.name] for r in Rounding}


def emit(program: Program, waits: Sequence[Wait]) -> list[Instruction]:
    """Instructions in step order, with semaphores, ended by END.

    One counting semaphore stands for each pair of queues: the waits of a pair are monotone, so its n-th wait takes the n-th
    post. More waits or posts than an instruction holds go into WAIT and POST instructions beside it.
    """
    waits_of: dict[int, list[tuple[int, int]]] = {}
    posts_of: dict[int, list[tuple[int, int]]] = {}
    numbers: dict[tuple[str, str], int] = {}
    for item in waits:
        pair = (program.steps[item.on].engine, program.steps[item.step].engine)
        semaphore = numbers.setdefault(pair, len(numbers))
        waits_of.setdefault(item.step, []).append((semaphore, 1))
        posts_of.setdefault(item.on, []).append((semaphore, 1))
    out: list[Instruction] = []
    for index, step in enumerate(program.steps):
        queue, debug = Queue[step.engine], step.op
        mine, given = waits_of.get(index, []), posts_of.get(index, [])
        while len(mine) > MOST_WAITS:
            out.append(Instruction("WAIT", queue, {}, tuple(mine[:MOST_WAITS]), (), debug))
            mine = mine[MOST_WAITS:]
        fields = encode_fields(step.instruction, step.fields)
        out.append(Instruction(step.instruction, queue, fields, tuple(mine), tuple(given[:MOST_POSTS]), debug))
        for first in range(MOST_POSTS, len(given), MOST_POSTS):
            out.append(Instruction("POST", queue, {}, (), tuple(given[first : first + MOST_POSTS]), debug))
    out.append(Instruction("END", Queue.CTL))
    return out


def encode_fields(instruction: str, fields: Mapping[str, Any]) -> dict[str, int]:
    """Field values as integers: addresses resolved, types and roundings numbered, real bounds as f32 bits."""
    real = any(fields.get(name) in _REAL for name in ("out_type", "type", "x_type"))
    known = BY_NAME[instruction].positions
    result: dict[str, int] = {}
    for name, value in fields.items():
        if type(value) is int and name not in ("lo", "hi"):
            result[name] = value
        elif isinstance(value, Ref):
            result[name] = value.resolve()
            if value.buffer.memory.startswith("dram"):
                result[f"{name}_region"] = int(value.buffer.memory[4:])
        elif isinstance(value, DType):
            result[name] = int(TYPES[value])
        elif isinstance(value, Rounding):
            result[name] = int(_ROUNDS[value])
        elif name in ("lo", "hi") and real:
            result[name] = struct.unpack("<i", struct.pack("<f", value))[0]
        else:
            result[name] = int(value)
        if name not in known:
            raise ValueError(f"{instruction} has no field '{name}'")
    return result
