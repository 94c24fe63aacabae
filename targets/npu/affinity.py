# SPDX-License-Identifier: Apache-2.0
"""Which SRAM buffers are in use at the same time, and how much they would slow each other in one group of banks."""

from __future__ import annotations

from collections import defaultdict

from gadl.passes.memory.banks import Banks
from gadl.passes.plan.program import Buffer, Program, Region, Step

from .expand.context import SRAM
from .machine import Machine

#: A buffer and the bytes per cycle that a step moves there.
Rates = list[tuple[Buffer, float]]


class _Pairs:
    """Cycles that two buffers cost each other where they share a group of banks, by the pair's ids."""

    def __init__(self, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        self.cycles: dict[tuple[int, int], float] = defaultdict(float)
        self.buffers: dict[int, Buffer] = {}

    def meet(self, these: Rates, those: Rates, cycles: float) -> None:
        """Everybody of one side meets everybody of the other for some cycles; a buffer does not meet itself."""
        for a, mine in these:
            for b, yours in those:
                if a is not b and mine + yours > self.bandwidth:
                    self.buffers |= {id(a): a, id(b): b}
                    self.cycles[min(id(a), id(b)), max(id(a), id(b))] += cycles * ((mine + yours) / self.bandwidth - 1)


def bank_use(program: Program, machine: Machine) -> Banks:
    """The array reads the next product while the drain writes the last one; a transfer goes on beside both."""
    pairs = _Pairs(machine["sram.banks"] * machine["sram.bank_bytes"] / machine["sram.groups"])
    rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"] / machine.load_queues
    drained: tuple[Rates, float] = ([], 0)
    product: Rates = []
    for step in program.steps:
        cycles = max(1, step.cycles)
        if step.engine == "MMA" and step.instruction != "EPI":
            product = _product(step, cycles, machine.integer("mma.shape.1"))
            pairs.meet(product[:1], product[1:], cycles)
            pairs.meet(product, drained[0], min(cycles, drained[1]))
            drained = [], 0
        elif step.instruction == "EPI":
            mine = _whole((*step.writes, *step.reads[2:3]), max(1, cycles - machine["mma.fill"]))
            pairs.meet(mine[:1], mine[1:], cycles)
            drained = mine, cycles
        elif step.engine == "VEC":
            mine = _whole((*step.reads, *step.writes), cycles)
            pairs.meet(mine, mine[1:], cycles)
        else:
            moved = [(r.buffer, rate) for r in (*step.reads, *step.writes) if r.buffer.memory == SRAM]
            pairs.meet(moved, product, step.cycles)
    together: dict[int, list[tuple[Buffer, float]]] = defaultdict(list)
    for (first, second), weight in pairs.cycles.items():
        together[first].append((pairs.buffers[second], weight))
        together[second].append((pairs.buffers[first], weight))
    return Banks(machine.sram_bytes // machine.integer("sram.groups"), together)


def _product(step: Step, cycles: int, unit: int) -> Rates:
    """The operand is read once for each block of output channels, the weights once."""
    passes = -(-int(step.fields.get("oc", step.fields.get("n", 1))) // unit)
    *operands, weights = [r for r in step.reads if r.buffer.memory == SRAM]
    return [*((r.buffer, r.size * passes / cycles) for r in operands), (weights.buffer, weights.size / cycles)]


def _whole(regions: tuple[Region, ...], cycles: float) -> Rates:
    """Every byte moves once."""
    return [(r.buffer, r.size / cycles) for r in regions if r.buffer.memory == SRAM]
