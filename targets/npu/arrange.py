# SPDX-License-Identifier: Apache-2.0
"""Arrangements of a program on chip: who lies where, and when loads begin. The event simulation decides between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.place import place
from gadl.passes.plan.program import Program, Step
from gadl.passes.schedule.prefetch import move_loads, wanted_starts

from .affinity import bank_use
from .expand.context import CONSTANTS, SRAM
from .machine import Machine


def arrangements(program: Program, machine: Machine) -> Iterator[Program]:
    """`program` in each arrangement that fits, one after another; raises `AllocationError` when none does."""
    steps, problem, found = list(program.steps), None, False
    for arrange in (_ahead, _in_turn):
        program.steps[:] = steps
        for buffer in program.buffers:
            if buffer.memory == SRAM:
                buffer.address = None
        try:
            arrange(program, machine)
        except AllocationError as error:
            problem = problem or error
            continue
        found = True
        yield program
    if not found and problem is not None:
        raise problem


def _ahead(program: Program, machine: Machine) -> None:
    """Constants are loaded while memory is idle; operands that are used together lie in different banks."""
    transfers = [*(f"LD{i}" for i in range(machine.load_queues)), "ST"]
    wanted = wanted_starts(program, SRAM, CONSTANTS, transfers)
    move_loads(program, place(program, SRAM, machine.sram_bytes, wanted, bank_use(program, machine)))


def _in_turn(program: Program, machine: Machine) -> None:
    """Loads where the computation asks for them; memory that was released longest ago is taken first."""
    allocate(program, SRAM, machine.sram_bytes)


def fastest(program: Program, machine: Machine, cycles: Callable[[Program], float]) -> None:
    """Leave `program` in the arrangement that takes the least cycles."""
    best: tuple[float, list[Step], list[int | None]] | None = None
    for arranged in arrangements(program, machine):
        now = cycles(arranged)
        if best is None or now < best[0]:
            best = now, list(arranged.steps), [b.address for b in arranged.buffers]
    if best is not None:
        program.steps[:] = best[1]
        for buffer, address in zip(program.buffers, best[2], strict=True):
            buffer.address = address

