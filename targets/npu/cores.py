# SPDX-License-Identifier: Apache-2.0
"""Several cores: the arrangement of their common program on chip, and the code of every core."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.place import Policy, place
from gadl.passes.plan.program import Program
from gadl.passes.schedule.cores import CoreSchedule, Item, Queues
from gadl.passes.schedule.prefetch import move_loads, wanted_starts

from .affinity import bank_use
from .arrange import FULL, POLICIES, Fastest
from .emit import Emitter
from .expand.context import ACC, CONSTANTS, INPUTS, SRAM
from .expand.cores import LOADING, SHARING, SIGNAL_BYTES
from .isa import Queue
from .machine import Machine

#: Bytes of a load that all cores share out.
SPLIT_BYTES = 4 << 10


@dataclass(frozen=True)
class Way:
    """How constants come: queues of each core that load them, and whether they let the inputs pass."""

    queues: int
    inputs_first: bool


#: More queues fill the memory better; fewer leave more of it to what the computation waits for, and a queue to signals.
WAYS = tuple(Way(queues, first) for queues in range(1, len(SHARING) + 1) for first in (False, True))


def can_divide(machine: Machine) -> bool:
    """True when cores can share loads, with a queue left for signals."""
    cores = machine.integer("machine.cores")
    return cores > 1 and machine["noc.multicast"] > 0 and machine["noc.bytes_per_cycle"] > 0 and machine.load_queues >= 3


class CoreArrangements:
    """Tries arrangements of a program of several cores, and keeps the one of least cycles in it.

    `cycles(program, way)` measures one. The arrangements are compared in one way, and the ways on the best arrangement.
    """

    def __init__(self, program: Program, machine: Machine, cycles: Callable[[Program, Way], float]) -> None:
        self.program, self.cycles = program, cycles
        self.capacity = machine.sram_bytes - SIGNAL_BYTES * machine.integer("machine.cores")
        self.way = WAYS[-1]
        self._steps = list(program.steps)
        suffixes = ("", *(f".{core}" for core in range(1, machine.integer("machine.cores"))))
        transfers = [f"{queue}{suffix}" for suffix in suffixes for queue in (LOADING, *SHARING, "ST")]
        rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
        self._wanted = wanted_starts(program, SRAM, CONSTANTS, transfers, int(self.capacity * FULL), rate, 2)
        self._banks = bank_use(program, machine, self._wanted)
        self._fastest = Fastest(program)
        self._left: list[Policy | None] = [*POLICIES, None]

    @property
    def least(self) -> float:
        """The least cycles so far."""
        return self._fastest.cycles

    def draft(self) -> float:
        """Cycles of the first arrangement that fits; raises `AllocationError` when none does."""
        problem = None
        while self._left and self.least == math.inf:
            problem = self._try(self._left.pop(0)) or problem
        if self.least == math.inf and problem is not None:
            raise problem
        return self.least

    def all(self) -> float:
        """Leave the program in the fastest of all arrangements; returns its cycles. `AllocationError` as for `draft`."""
        self.draft()
        while self._left:
            self._try(self._left.pop(0))
        self._fastest.restore()
        took = {self.way: self.least} | {way: self.cycles(self.program, way) for way in WAYS if way != self.way}
        self.way = min(took, key=lambda way: took[way])
        return took[self.way]

    def _try(self, policy: Policy | None) -> AllocationError | None:
        """One arrangement; None searches places with every load where it stands. Returns why it does not fit."""
        self.program.steps[:] = self._steps
        for buffer in self.program.buffers:
            if buffer.memory == SRAM:
                buffer.address = None
        try:
            if policy is None:
                allocate(self.program, SRAM, self.capacity)
            else:
                move_loads(self.program, place(self.program, SRAM, self.capacity, self._wanted, policy, self._banks))
        except AllocationError as error:
            return error
        self._fastest.offer(self.cycles(self.program, self.way))
        return None


@dataclass(frozen=True)
class CodeOfCores:
    """The synchronised items of every core."""

    order: list[list[Item]]
    signal_at: int
    waits: int

    def codes(self, emitter: Emitter) -> list[bytes]:
        """The code of every core."""
        cores = len(self.order)
        return [
            emitter.core_code(items, {
                "row_bytes": SIGNAL_BYTES, "dst": self.signal_at + SIGNAL_BYTES * core, "multicast": (1 << cores) - 1,
            })
            for core, items in enumerate(self.order)
        ]  # fmt: skip


def schedule(program: Program, machine: Machine, way: Way) -> CodeOfCores:
    """Synchronise an arranged program."""
    cores = machine.integer("machine.cores")
    queues = Queues([queue.name for queue in Queue], SHARING[: way.queues], LOADING if way.queues > 1 else SHARING[1], LOADING, "CTL")
    made = CoreSchedule(program, cores, queues, (SRAM, ACC), SPLIT_BYTES, INPUTS if way.inputs_first else None)
    return CodeOfCores(made.order, machine.sram_bytes - SIGNAL_BYTES * cores, sum(len(item.on) for item in made.items))
