# SPDX-License-Identifier: Apache-2.0
"""Emission: placed and synchronised steps become descriptors.

Each engine counts its descriptors from 1. One that must wait names the last descriptor of the other engine that has to be done;
a descriptor without a wait of its own repeats the last one, so the numbers never decrease.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gadl.passes.plan.program import Program, Ref, Step, Wait

from .chip import Chip
from .descriptor import Command, encode
from .isa import LANE_SHIFT, LAST_ID, LAYOUTS, Engine

#: Descriptors of each engine in one command section.
MOST_COMMANDS = LAST_ID - 1


def engine_of(step: Step) -> Engine:
    """The engine that runs a step."""
    return Engine[step.engine]


@dataclass(frozen=True)
class Pair:
    """Two operands of one instruction that lie anywhere: what it needs to know follows from their addresses."""

    a: Ref
    b: Ref

    @property
    def swapped(self) -> bool:
        """True where `b` lies first."""
        return self.b.resolve() < self.a.resolve()


@dataclass(frozen=True)
class First(Pair):
    """The lower address."""

    def resolve(self) -> int:
        """Bytes."""
        return min(self.a.resolve(), self.b.resolve())


@dataclass(frozen=True)
class Apart(Pair):
    """The distance."""

    def resolve(self) -> int:
        """Bytes."""
        return abs(self.a.resolve() - self.b.resolve())


@dataclass(frozen=True)
class Ordered(Pair):
    """One address where `a` lies first, another one where `b` does."""

    straight: Ref
    reverse: Ref

    def resolve(self) -> int:
        """Bytes."""
        return (self.reverse if self.swapped else self.straight).resolve()


def tiu_fields(fields: Mapping[str, Any], unplaced: int | None = None) -> dict[str, int]:
    """Addresses resolved; `unplaced` stands for every address where buffers have none yet."""
    return {name: value if isinstance(value, int) else _address(value, unplaced) for name, value in fields.items()}


def tdma_fields(fields: Mapping[str, Any], unplaced: int | None = None) -> dict[str, int]:
    """Both ends as base registers and addresses, channel strides in two parts."""
    found: dict[str, int] = {}
    for name, value in fields.items():
        if name in ("src", "dst"):
            address = _address(value, unplaced)
            if value.buffer.memory.startswith("ddr"):
                found[f"{name}_base_reg_sel"] = int(value.buffer.memory[3:])
                found[f"{name}_base_addr_high"] = address >> 32
            else:
                address |= fields.get(f"{name}_lane", 0) << LANE_SHIFT
            found[f"{name}_base_addr_low"] = address & 0xFFFFFFFF
        elif name in ("src_c_stride", "dst_c_stride"):
            found[f"{name}_low"], found[f"{name}_high"] = value & 0xFFFF, value >> 16
        elif name not in ("src_lane", "dst_lane"):
            found[name] = value
    return found


def _address(value: Any, unplaced: int | None) -> int:
    if unplaced is not None and (not isinstance(value, Ref) or value.buffer.address is None):
        return unplaced
    return int(value.resolve())


def complete(engine: Engine, fields: Mapping[str, int]) -> dict[str, int]:
    """All fields of a descriptor."""
    return {**LAYOUTS[engine].reset, **fields}


def commands_of(program: Program, waits: Iterable[Wait]) -> list[Command]:
    """The commands of a program in step order."""
    wait_of: dict[int, int] = {}
    for wait in waits:
        wait_of[wait.step] = max(wait_of.get(wait.step, -1), wait.on)
    numbers: list[int] = []
    counts = {Engine.TIU: 0, Engine.TDMA: 0}
    last = {Engine.TIU: 0, Engine.TDMA: 0}
    found = []
    for index, step in enumerate(program.steps):
        engine = engine_of(step)
        counts[engine] += 1
        numbers.append(counts[engine])
        if index in wait_of:
            last[engine] = max(last[engine], numbers[wait_of[index]])
        if engine is Engine.TIU:
            fields = tiu_fields(step.fields) | {"cmd_en": 1, "cmd_id_en": 1, "cmd_id_tpu": counts[engine], "cmd_id_gdma": last[engine], "layer_info": step.op & 0xFFFF}
        else:
            fields = tdma_fields(step.fields) | {"vld": 1, "bar_en": 1, "cmd_id": counts[engine], "wait_id_tpu": last[engine], "layer_ID": step.op & 0xFFFF}
        found.append(Command.of(engine, fields))
    return found


def stream_of(commands: Sequence[Command], chip: Chip) -> bytes:
    """Headers and descriptors."""
    return b"".join(encode(chip, command.engine, command.fields) for command in commands)
