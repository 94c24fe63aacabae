# SPDX-License-Identifier: Apache-2.0
"""Arrangements of a program on chip: who lies where, and when loads begin. The event simulation decides between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.place import Order, Policy, Rule, place
from gadl.passes.plan.program import Program, Step
from gadl.passes.schedule.hoist import hoist_early
from gadl.passes.schedule.prefetch import move_loads, share_queues, wanted_starts

from .affinity import bank_use
from .expand.context import CONSTANTS, SRAM
from .machine import Machine

#: Part of SRAM that early loads may fill: what is left takes the gaps between buffers.
FULL = 0.95
#: How buffers are placed, one arrangement for each; None: in turn, without early loads.
POLICIES: tuple[Policy | None, ...] = (*(Policy(order, rule) for order in Order for rule in Rule), None)


def arrangements(program: Program, machine: Machine) -> Iterator[Program]:
    """`program` in each arrangement that fits, one after another; raises `AllocationError` when none does."""
    steps = [(step, step.engine) for step in program.steps]
    ahead = _Ahead(program, machine)
    problem, found = None, False
    for policy in POLICIES:
        _restore(program, steps)
        for buffer in program.buffers:
            if buffer.memory == SRAM:
                buffer.address = None
        try:
            if policy is None:
                allocate(program, SRAM, machine.sram_bytes)
            else:
                ahead.arrange(policy)
        except AllocationError as error:
            problem = problem or error
            continue
        found = True
        yield program
    if not found and problem is not None:
        raise problem


class _Ahead:
    """Arrangements where constants are loaded while memory is idle."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.program, self.machine = program, machine
        self.loads = [f"LD{i}" for i in range(machine.load_queues)]
        self.rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
        hoist_early(program)
        self.steps = list(program.steps)
        room = int(machine.sram_bytes * FULL)
        self.wanted = wanted_starts(program, SRAM, CONSTANTS, [*self.loads, "ST"], room, self.rate, len(self.loads))
        self.banks = bank_use(program, machine, self.wanted)

    def arrange(self, policy: Policy) -> None:
        """Place and order by a policy."""
        self.program.steps[:] = self.steps
        move_loads(self.program, place(self.program, SRAM, self.machine.sram_bytes, self.wanted, policy, self.banks))
        share_queues(self.program, self.loads, self.rate)


def _restore(program: Program, steps: list[tuple[Step, str]]) -> None:
    program.steps[:] = [step for step, _ in steps]
    for step, engine in steps:
        step.engine = engine


def fastest(program: Program, machine: Machine, cycles: Callable[[Program], float]) -> float:
    """Leave `program` in the arrangement that takes the least cycles; returns these."""
    return keep_fastest(program, arrangements(program, machine), cycles)


def keep_fastest(program: Program, arranged_ways: Iterator[Program], cycles: Callable[[Program], float]) -> float:
    """Leave `program` in the one of its arrangements that takes the least cycles; returns these."""
    best: tuple[float, list[tuple[Step, str]], list[int | None]] | None = None
    for arranged in arranged_ways:
        now = cycles(arranged)
        if best is None or now < best[0]:
            best = now, [(s, s.engine) for s in arranged.steps], [b.address for b in arranged.buffers]
    if best is None:
        raise ValueError("a program has at least one arrangement")
    _restore(program, best[1])
    for buffer, address in zip(program.buffers, best[2], strict=True):
        buffer.address = address
    return best[0]
