# SPDX-License-Identifier: Apache-2.0
"""Program: the steps that a device segment executes, before and after placement in memory.

A step names its engine, the memory it reads and writes, and the target's instruction as payload. Allocation,
ordering and synchronisation (`gadl.passes.memory`, `gadl.passes.schedule`) know only this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Buffer:
    """A piece of one memory. `address` is in bytes (or accumulator cells) and None until it is allocated."""

    memory: str
    size: int
    name: str = ""
    alignment: int = 16
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes `[start, start + size)` of a buffer; a strided access gives its hull."""

    buffer: Buffer
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Ref:
    """An address in a payload: `buffer.address + offset` once the buffer is allocated."""

    buffer: Buffer
    offset: int = 0

    def resolve(self) -> int:
        """The address; `ValueError` before allocation."""
        if self.buffer.address is None:
            raise ValueError(f"buffer '{self.buffer.name}' has no address")
        return self.buffer.address + self.offset


@dataclass(slots=True)
class Step:
    """One instruction for one engine.

    `payload` is the target's instruction: a name and fields whose values may be `Ref`. `cycles` is the analytic cost, `op`
    the index of the segment's op that it belongs to; `early` steps only bring data nearer, and may come as soon as they can.
    Engines of another core than the first are named with its number behind a dot; `shared` steps write on every core.
    """

    engine: str
    instruction: str
    fields: dict[str, Any]
    reads: tuple[Region, ...]
    writes: tuple[Region, ...]
    op: int
    cycles: int = 0
    early: bool = False
    shared: bool = False

    @property
    def core(self) -> int:
        """The core whose engine runs the step."""
        return int(self.engine.partition(".")[2] or 0)

    @property
    def queue(self) -> str:
        """The engine's name within its core."""
        return self.engine.partition(".")[0]


@dataclass(slots=True)
class Program:
    """Steps in a legal sequential order, with the buffers they use."""

    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)

    def buffer(self, memory: str, size: int, name: str = "", alignment: int = 16, address: int | None = None) -> Buffer:
        """A buffer of this program."""
        made = Buffer(memory, size, name, alignment, address)
        self.buffers.append(made)
        return made

    def lifetimes(self) -> dict[int, tuple[int, int]]:
        """First and last step of each buffer, by `id(buffer)`."""
        spans: dict[int, tuple[int, int]] = {}
        for index, step in enumerate(self.steps):
            for region in (*step.reads, *step.writes):
                key = id(region.buffer)
                known = spans.get(key)
                spans[key] = (index, index) if known is None else (known[0], index)
        return spans


@dataclass(frozen=True, slots=True)
class Wait:
    """Step `step` may start only when step `on` is complete (steps of other engines; indices into `Program.steps`)."""

    step: int
    on: int


def by_engine(steps: Sequence[Step]) -> dict[str, list[int]]:
    """Step indices per engine, in order."""
    queues: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        queues.setdefault(step.engine, []).append(index)
    return queues
