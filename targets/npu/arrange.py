# SPDX-License-Identifier: Apache-2.0
"""Arrangements of a program on chip: who lies where, and when loads begin. The event simulation decides between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.place import Order, Policy, Rule, place
from gadl.passes.plan.program import Program, Step
from gadl.passes.schedule.hoist import hoist_early
from gadl.passes.schedule.prefetch import move_loads, share_queues, wanted_starts

from .affinity import bank_use, overlaps
from .costs import Costs
from .expand.context import CONSTANTS, SRAM
from .machine import Machine

#: Part of SRAM that early loads may fill: what is left takes the gaps between buffers.
FULL = 0.95
#: How buffers are placed, one arrangement for each; the first one drafts a plan.
POLICIES = (
    Policy(Order.AREA, Rule.ENDS), Policy(Order.USE, Rule.ENDS), Policy(Order.USE, Rule.COMPANY), Policy(Order.AREA, Rule.LOWEST),
)  # fmt: skip


#: Parts of its time for which the vector unit meets the products of its own layer, on either side.
SHARES = (0.5, 1.0)


class Fastest:
    """Of the arrangements that a program was in, the one of least cycles."""

    def __init__(self, program: Program) -> None:
        self.program, self.cycles = program, math.inf
        self._steps: list[tuple[Step, str]] = []
        self._addresses: list[int | None] = []

    def offer(self, cycles: float) -> None:
        """The program as it is now takes so many cycles."""
        if cycles < self.cycles:
            self.cycles = cycles
            self._steps = [(step, step.engine) for step in self.program.steps]
            self._addresses = [buffer.address for buffer in self.program.buffers]

    def restore(self) -> None:
        """Put the program into that arrangement."""
        _restore(self.program, self._steps)
        for buffer, address in zip(self.program.buffers, self._addresses, strict=True):
            buffer.address = address


class Arrangements:
    """Tries arrangements of one program, and keeps the one of least cycles in it."""

    def __init__(self, program: Program, machine: Machine, cycles: Callable[[Program], float]) -> None:
        self.program, self.machine, self.cycles = program, machine, cycles
        self._steps = [(step, step.engine) for step in program.steps]
        self._ahead = _Ahead(program, machine)
        self._fastest = Fastest(program)
        self._tried: set[tuple[Policy, float]] = set()
        self._turned = False

    def draft(self) -> float:
        """Cycles of the first arrangement that fits; raises `AllocationError` when none does."""
        for policy in POLICIES:
            if self.least == math.inf:
                self._try(policy, self._ahead.shares[0])
        if self.least == math.inf:
            self._in_turn()
        return self.least

    @property
    def least(self) -> float:
        """The least cycles so far."""
        return self._fastest.cycles

    def all(self) -> float:
        """Leave the program in the fastest of all arrangements; returns its cycles. `AllocationError` as for `draft`."""
        self.draft()
        for share in self._ahead.shares:
            for policy in POLICIES:
                self._try(policy, share)
        if not self._turned:
            with suppress(AllocationError):
                self._in_turn()
        self._fastest.restore()
        return self.least

    def _reset(self) -> None:
        _restore(self.program, self._steps)
        for buffer in self.program.buffers:
            if buffer.memory == SRAM:
                buffer.address = None

    def _try(self, policy: Policy, share: float) -> None:
        """One arrangement, once."""
        if (policy, share) in self._tried:
            return
        self._tried.add((policy, share))
        self._reset()
        try:
            self._ahead.arrange(policy, share)
        except AllocationError:
            return
        self._fastest.offer(self.cycles(self.program))

    def _in_turn(self) -> None:
        """Loads where the computation asks for them, memory that was released longest ago first; the last resort, which searches."""
        self._turned = True
        self._reset()
        allocate(self.program, SRAM, self.machine.sram_bytes)
        self._fastest.offer(self.cycles(self.program))


class _Ahead:
    """Arrangements where constants are loaded while memory is idle."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.program, self.machine = program, machine
        self.loads = [f"LD{i}" for i in range(machine.load_queues)]
        self.rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
        hoist_early(program)
        self.steps = list(program.steps)
        self.width = min(Costs(machine).channels_for_full_rate, max(1, len(self.loads) - 1))
        room = int(machine.sram_bytes * FULL)
        self.wanted = wanted_starts(program, SRAM, CONSTANTS, [*self.loads, "ST"], room, self.rate, len(self.loads))
        self.shares = SHARES if overlaps(program) else SHARES[:1]
        self.banks = {share: bank_use(program, machine, self.wanted, share) for share in self.shares}

    def arrange(self, policy: Policy, share: float) -> None:
        """Place and order by a policy."""
        self.program.steps[:] = self.steps
        move_loads(self.program, place(self.program, SRAM, self.machine.sram_bytes, self.wanted, policy, self.banks[share]))
        share_queues(self.program, self.loads, self.rate, self.width)


def _restore(program: Program, steps: list[tuple[Step, str]]) -> None:
    program.steps[:] = [step for step, _ in steps]
    for step, engine in steps:
        step.engine = engine
