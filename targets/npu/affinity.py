# SPDX-License-Identifier: Apache-2.0
"""Which SRAM buffers are in use at the same time, and how much they would slow each other in one group of banks."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice

from gadl.passes.memory.banks import Banks, Greed
from gadl.passes.plan.program import Buffer, Program, Region, Step

from .expand.context import SRAM
from .machine import Machine

#: Most products before a step of the vector unit that may run beside it.
NEAR = 64
#: A buffer and the bytes per cycle that a step moves there.
Rates = list[tuple[Buffer, float]]


class _Pairs:
    """Cycles that two buffers cost each other where they share a group of banks, by the pair's ids."""

    def __init__(self, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        self.cycles: dict[tuple[int, int], float] = defaultdict(float)
        self.buffers: dict[int, Buffer] = {}
        self.alone: dict[tuple[int, int, int, float], float] = defaultdict(float)

    def ask(self, region: Region, rate: float, cycles: float) -> None:
        """Somebody asks one region for more than a group of banks gives, or not."""
        if rate > self.bandwidth:
            self.buffers[id(region.buffer)] = region.buffer
            self.alone[id(region.buffer), region.start, region.size, rate / self.bandwidth] += cycles

    def greedy(self) -> dict[int, list[Greed]]:
        """What is asked for too much, by buffer."""
        found: dict[int, list[Greed]] = defaultdict(list)
        for (buffer, start, size, times), cycles in self.alone.items():
            found[buffer].append(Greed(start, size, times, cycles))
        return found

    def meet(self, these: Rates, those: Rates, cycles: float) -> None:
        """Everybody of one side meets everybody of the other for some cycles; a buffer does not meet itself."""
        for a, mine in these:
            for b, yours in those:
                # Beyond what the one that moves more loses by itself.
                lost = mine + yours - max(mine, yours, self.bandwidth)
                if a is not b and lost > 0:
                    self.buffers |= {id(a): a, id(b): b}
                    self.cycles[min(id(a), id(b)), max(id(a), id(b))] += cycles * lost / self.bandwidth


def overlaps(program: Program) -> bool:
    """True where one layer takes both array and vector unit, copies aside, so that it is open how much they meet."""
    arrays = {step.op for step in program.steps if step.engine == "MMA" and step.instruction != "EPI"}
    return any(step.engine == "VEC" and step.instruction != "VTR" and step.op in arrays for step in program.steps)


def bank_use(program: Program, machine: Machine, wanted: Mapping[int, int], share: float = 1.0) -> Banks:
    """The array reads the next product while the drain writes the last one; transfers go on beside both, and so does the vector unit
    where one layer takes both, for a `share` of its time with the products in front of it and of that with those behind.

    `wanted` is the step at which an early load begins, by `id` of the buffer that it fills.
    """
    pairs = _Pairs(machine["sram.banks"] * machine["sram.bank_bytes"] / machine["sram.groups"])
    rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"] / machine.load_queues
    drained: tuple[Rates, float] = ([], 0)
    products: list[tuple[int, int, Rates]] = []
    beside: list[tuple[int, float, Rates, int | None]] = []
    for index, step in enumerate(program.steps):
        cycles = max(1, step.cycles)
        if step.core and not step.shared:
            continue  # what the first core does, the others do at the same addresses
        if step.engine == "MMA" and step.instruction != "EPI":
            product = _product(step, cycles, machine.integer("mma.shape.1"))
            if step.reads[0].buffer is product[0][0]:
                pairs.ask(step.reads[0], product[0][1], cycles)
            pairs.meet(product[:1], product[1:], cycles)
            pairs.meet(product, drained[0], min(cycles, drained[1]))
            products.append((index, cycles, [*product, *drained[0]]))
            drained = [], 0
        elif step.instruction == "EPI":
            mine = _drained(step, max(1, cycles - machine["mma.fill"]))
            pairs.meet(mine[:1], mine[1:], cycles)
            drained = mine, cycles
        elif step.engine == "VEC":
            mine = _elements(step, cycles)
            pairs.meet(mine, mine[1:], cycles)
            beside.append((index, cycles, mine, step.op))
        else:
            for region in (*step.reads, *step.writes):
                if region.buffer.memory == SRAM:
                    beside.append((wanted.get(id(region.buffer), index), region.size / rate, [(region.buffer, rate)], None))
    starts = [index for index, _, _ in products]
    for begin, long, mine, op in beside:
        at = bisect_left(starts, begin)
        # A transfer begins there; the vector unit may be behind or ahead of the array.
        for near in (islice(products, at, None), () if op is None else reversed(products[max(0, at - NEAR) : at])):
            left = long if op is None else share * long
            for index, cycles, rates in near:
                if op not in (None, program.steps[index].op):
                    break
                pairs.meet(mine, rates, min(left, cycles))
                left -= cycles
                if left <= 0:
                    break
    together: dict[int, list[tuple[Buffer, float]]] = defaultdict(list)
    for (first, second), weight in pairs.cycles.items():
        together[first].append((pairs.buffers[second], weight))
        together[second].append((pairs.buffers[first], weight))
    return Banks(machine.sram_bytes // machine.integer("sram.groups"), together, pairs.greedy())


def _product(step: Step, cycles: int, unit: int) -> Rates:
    """The operand is read once for each block of output channels, the weights once."""
    fields = step.fields
    *operands, weights = [r for r in step.reads if r.buffer.memory == SRAM]
    if step.instruction == "MMA_MATMUL":
        passes, touched = -(-int(fields["n"]) // unit), math.inf
    else:
        # A hull of some channels of some columns holds more than is read.
        passes = -(-int(fields["oc"]) // unit) if "oc" in fields else 1
        touched = int(fields["ic"]) * fields["x_type"].size_bytes * math.prod(
            min(int(fields[f"i{a}"]), (int(fields[f"o{a}"]) - 1) * int(fields[f"stride_{a}"]) + (int(fields[f"k{a}"]) - 1) * int(fields[f"dil_{a}"]) + 1)
            for a in "hw"
        )  # fmt: skip
    return [*((r.buffer, min(r.size, touched) * passes / cycles) for r in operands), (weights.buffer, weights.size / cycles)]


def _drained(step: Step, cycles: float) -> Rates:
    """What a drain writes, and the residual that it reads."""
    results = math.prod(int(step.fields[key]) for key in ("oh", "ow", "oc")) * step.fields["out_type"].size_bytes
    return [(r.buffer, min(r.size, results) / cycles) for r in (*step.writes, *step.reads[2:3]) if r.buffer.memory == SRAM]


def _elements(step: Step, cycles: float) -> Rates:
    """Of a smaller operand a byte moves for each element at least, however often it is the same."""
    count = math.prod(max(1, int(step.fields.get(f"n{number}", 1))) for number in range(4)) if step.instruction == "VBIN" else 0
    return [(buffer, max(rate, count / cycles)) for buffer, rate in _whole((*step.reads, *step.writes), cycles)]


def _whole(regions: tuple[Region, ...], cycles: float) -> Rates:
    """Every byte moves once."""
    return [(r.buffer, r.size / cycles) for r in regions if r.buffer.memory == SRAM]
