# SPDX-License-Identifier: Apache-2.0
"""Arrangements of a program in local memory: who lies where, and when loads begin. The event model decides between them."""

from __future__ import annotations

import math
from contextlib import suppress

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.place import Order, Policy, Rule, place
from gadl.passes.plan.program import Program, Step
from gadl.passes.schedule.hoist import hoist_early
from gadl.passes.schedule.prefetch import move_loads, wanted_starts
from gadl.passes.schedule.synchronize import find_waits

from .chip import Chip
from .expand.context import LOCAL, TDMA, WEIGHTS

#: Part of a lane that early loads may fill: what is left takes the gaps between buffers.
FULL = 0.95
#: How buffers are placed, one arrangement for each.
POLICIES = tuple(
    Policy(order, rule, nearest) for nearest in (True, False)
    for order, rule in ((Order.AREA, Rule.ENDS), (Order.USE, Rule.ENDS), (Order.USE, Rule.COMPANY))
)  # fmt: skip


def cycles_of(program: Program) -> float:
    """When both engines are done: each in order, held back by the waits."""
    wait_of: dict[int, int] = {}
    for wait in find_waits(program):
        wait_of[wait.step] = max(wait_of.get(wait.step, -1), wait.on)
    ends, free = [0.0] * len(program.steps), dict.fromkeys({s.engine for s in program.steps}, 0.0)
    for index, step in enumerate(program.steps):
        start = free[step.engine]
        if index in wait_of:
            start = max(start, ends[wait_of[index]])
        ends[index] = free[step.engine] = start + step.cycles
    return max(free.values(), default=0.0)


class Arrangements:
    """Tries arrangements of one program, and leaves it in the fastest."""

    def __init__(self, program: Program, chip: Chip, mb_per_s: float) -> None:
        self.program, self.chip = program, chip
        hoist_early(program)
        self.steps = list(program.steps)
        # Loads count the bytes of a lane.
        self.rate = mb_per_s / chip.mhz / chip.lanes
        self.wanted = wanted_starts(program, LOCAL, WEIGHTS, [TDMA], int(chip.lane_bytes * FULL), self.rate, 2)
        self.least = math.inf
        self._tried: set[Policy] = set()
        self._best: tuple[list[Step], list[int | None]] | None = None

    def draft(self) -> float:
        """Cycles of the first arrangement that fits; `AllocationError` when none does."""
        for policy in POLICIES:
            if self.least == math.inf:
                self._try(policy)
        if self.least == math.inf:
            self._reset()
            allocate(self.program, LOCAL, self.chip.lane_bytes)
            self._offer()
        return self.least

    def all(self) -> None:
        """Leave the program in the fastest of all arrangements; `AllocationError` as for `draft`."""
        self.draft()
        for policy in POLICIES:
            self._try(policy)
        if self._best is not None:
            self.program.steps[:] = self._best[0]
            for buffer, address in zip(self.program.buffers, self._best[1], strict=True):
                buffer.address = address

    def _try(self, policy: Policy) -> None:
        """One arrangement, once."""
        if policy in self._tried:
            return
        self._tried.add(policy)
        with suppress(AllocationError):
            self._reset()
            move_loads(self.program, place(self.program, LOCAL, self.chip.lane_bytes, self.wanted, policy))
            self._offer()

    def _reset(self) -> None:
        self.program.steps[:] = self.steps
        for buffer in self.program.buffers:
            if buffer.memory == LOCAL:
                buffer.address = None

    def _offer(self) -> None:
        cycles = cycles_of(self.program)
        if cycles < self.least:
            self.least, self._best = cycles, (list(self.program.steps), [b.address for b in self.program.buffers])
