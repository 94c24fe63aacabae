# SPDX-License-Identifier: Apache-2.0
"""What a target can say of a compiled program for reports: its layers, its memory map, and one run instruction by instruction."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from gadl.compiler.ir.types import Array


class Role(enum.Enum):
    """What a unit of a device does."""

    ARRAY = "array"
    DRAIN = "drain"
    VECTOR = "vector"
    LOAD = "load"
    STORE = "store"
    CONTROL = "control"


@dataclass(frozen=True)
class MachineFacts:
    """The numbers that a report draws: products per cycle, DRAM bytes per cycle, on-chip memory."""

    name: str
    clock_mhz: float
    macs_per_cycle: float
    dram_bytes_per_cycle: float
    sram_bytes: int
    sram_groups: int


@dataclass(frozen=True)
class LayerFacts:
    """A layer as it was compiled.

    `bound`: cycles that no schedule of this layer avoids, by resource (LBgeo is the largest): array, vector, dram.
    """

    name: str
    op: str
    source: str
    shape: tuple[int, ...]
    macs: int
    bound: Mapping[str, float]


@dataclass(frozen=True)
class BufferFacts:
    """A piece of on-chip memory: bytes `[address, address + size)` from step `first` to step `last`."""

    name: str
    address: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Unit:
    """A queue or unit that executes one step at a time."""

    name: str
    role: Role


@dataclass(frozen=True)
class Trace:
    """One run: parallel vectors with an element per executed step, in the order of their ends.

    `unit` and `layer` are indices. `bytes` is DRAM traffic as the step says, `burst_bytes` in whole bursts. Of
    `end - start` cycles, `fixed` pass before the work begins, `alone` is the work at full speed; the rest was lost to others
    that moved data at the same time.
    """

    step: Array
    unit: Array
    layer: Array
    instruction: tuple[str, ...]
    bytes: Array
    burst_bytes: Array
    macs: Array
    fixed: Array
    alone: Array
    start: Array
    end: Array


@dataclass(frozen=True)
class ProgramProfile:
    """A program and a run of it. `left_out`: executed steps beyond the trace's limit.

    `estimated` are cycles of the plan's groups as the planner sees them, before anything is expanded; nothing where it does not.
    `predicted` is the run that the target's analytic model (level L0) expects, of `predicted_cycles`; None where it has none.
    """

    machine: MachineFacts
    cycles: float
    layers: tuple[LayerFacts, ...]
    buffers: tuple[BufferFacts, ...]
    units: tuple[Unit, ...]
    trace: Trace
    left_out: int = 0
    predicted: Trace | None = None
    predicted_cycles: float = 0.0
    estimated: tuple[float, ...] = ()
