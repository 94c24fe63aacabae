# SPDX-License-Identifier: Apache-2.0
"""Which SRAM buffers are in use at the same time: they belong into different groups of banks."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from gadl.passes.memory.banks import Banks
from gadl.passes.plan.program import Buffer, Program, Step

from .expand.context import SRAM
from .machine import Machine

#: Operands of the array that a transfer is taken to meet: those read last before it in program order.
RECENT = 1
#: Part of a group's bandwidth that a transfer takes.
SHARE = 0.1


class _Pairs:
    """Cycles in which two buffers meet."""

    def __init__(self) -> None:
        self.cycles: dict[tuple[int, int], float] = defaultdict(float)
        self.buffers: dict[int, Buffer] = {}

    def meet(self, a: Buffer, b: Buffer, cycles: float) -> None:
        """Two buffers of one moment; a buffer does not meet itself."""
        if a is not b:
            self.buffers |= {id(a): a, id(b): b}
            self.cycles[min(id(a), id(b)), max(id(a), id(b))] += cycles


def bank_use(program: Program, machine: Machine) -> Banks:
    """The array reads the next product while the drain writes the last one; transfers go on beside both.

    The weight of a pair is the number of cycles in which they meet.
    """
    pairs = _Pairs()
    drained: list[Buffer] = []
    recent: OrderedDict[int, Buffer] = OrderedDict()
    for step in program.steps:
        mine = _touched(step)
        company = mine
        if step.instruction == "EPI":
            drained = mine
        elif step.engine == "MMA":
            company, drained = [*mine, *drained], []
            for buffer in mine[:1]:
                recent[id(buffer)] = buffer
                recent.move_to_end(id(buffer))
                if len(recent) > RECENT:
                    recent.popitem(last=False)
        elif step.engine != "VEC":
            for buffer in mine:
                for other in recent.values():
                    pairs.meet(buffer, other, step.cycles * SHARE)
            continue
        for a in mine:
            for b in company:
                pairs.meet(a, b, step.cycles)
    together: dict[int, list[tuple[Buffer, float]]] = defaultdict(list)
    for (first, second), weight in pairs.cycles.items():
        together[first].append((pairs.buffers[second], weight))
        together[second].append((pairs.buffers[first], weight))
    return Banks(machine.sram_bytes // machine.integer("sram.groups"), together)


def _touched(step: Step) -> list[Buffer]:
    """The SRAM buffers of a step, each once."""
    found = {id(r.buffer): r.buffer for r in (*step.reads, *step.writes) if r.buffer.memory == SRAM}
    return list(found.values())
