# SPDX-License-Identifier: Apache-2.0
"""Several cores: plans that divide rows among them, their arrangement on chip, and the code of every core."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from gadl.compiler.diag import GadlError
from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.place import place
from gadl.passes.plan.division import Case, Division, without
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.plan.program import Program
from gadl.passes.schedule.cores import CoreSchedule, Item, Queues
from gadl.passes.schedule.prefetch import move_loads, wanted_starts

from .affinity import bank_use
from .arrange import FULL, POLICIES, Fastest
from .bounds import windows_of
from .costs import Costs
from .emit import Emitter
from .expand.context import ACC, CONSTANTS, INPUTS, SRAM
from .expand.cores import LOADING, SHARING, SIGNAL_BYTES, divisible, may_spread, rows_of, shape_of
from .isa import Queue
from .layers import Layer
from .machine import Machine
from .planner import Planner
from .rowwise import row_reads, weight_bytes

#: Bytes of weights that are loaded at a time, and of a load that all cores share out.
CHUNK_BYTES, SPLIT_BYTES = 128 << 10, 4 << 10


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


def divided_plan(
    planner: Planner, layers: Sequence[Layer], returned: set[int], cuts: Set[int] = frozenset(), alone: Set[int] = frozenset()
) -> Plan | None:
    """A plan in which cores divide the rows of all layers that run by rows; None where that is not possible.

    All values stay on chip within a run of layers; at `cuts`, the indices of layers, they pass through memory. Layers `alone` run
    on one core from memory to memory.
    """
    machine = planner.costs.machine
    if not can_divide(machine) or not any(divisible(layer) for layer in layers):
        return None
    groups: list[GroupPlan] = []
    run: list[Layer] = []
    able = {layer.index for layer in layers if layer.index not in alone and divisible(layer)}
    for layer in (*layers, None):
        if run and (layer is None or layer.index in cuts or layer.index not in able):
            groups.append(_divided(planner.costs, run, returned))
            run = []
        if layer is not None and layer.index in able:
            run.append(layer)
        elif layer is not None:
            try:
                groups += planner.plan([layer]).groups
            except GadlError:
                return None
    return Plan(tuple(groups))


def _divided(costs: Costs, run: Sequence[Layer], returned: set[int]) -> GroupPlan:
    ops = {id(op) for layer in run for op in (layer.op, layer.lut)}
    stored = {id(m.result) for m in run if id(m.result) in returned or any(id(u) not in ops for u in m.result.users)}
    cores, unit = costs.machine.integer("machine.cores"), costs.machine.integer("mma.shape.1")
    spread = {id(m.result) for m in run if may_spread(m) and weight_bytes(m) > CHUNK_BYTES}
    division = Division(*rows_of(run, cores), cores, stored, lambda case: _exchange(costs, run, case), spread)
    plans = (
        LayerPlan(
            m.ops, channels=_chunk(m, unit, cores if id(m.result) in spread else 1), kept=True,
            exchanged=id(m.result) in division.exchanged, spread=id(m.result) in spread,
        )
        for m in run
    )  # fmt: skip
    return GroupPlan(tuple(plans), 1, cores)


def _chunk(layer: Layer, unit: int, parts: int) -> int:
    """Output channels whose weights are loaded at a time, a multiple of `unit`, for at least `parts` of them; 0: all."""
    shape, weights = shape_of(layer.result), weight_bytes(layer)
    if layer.op.name not in ("conv", "linear") or (weights <= CHUNK_BYTES and parts == 1):
        return 0
    most = -(-shape.channels // parts // unit) * unit
    return min(most, max(unit, shape.channels * CHUNK_BYTES // weights // unit * unit))


def _exchange(costs: Costs, run: Sequence[Layer], case: Case) -> bool:
    """True when it costs less to pass the rows of a value through memory than to compute them on every core that needs them.

    These need rows of the operands in turn, which are counted as passed through memory.
    """
    layer, machine = next((m for m in run if id(m.result) == case.value), None), costs.machine
    if layer is None:
        return True  # partial results
    rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
    mine = {id(m.result) for m in run}
    moved = 2.0 * shape_of(layer.result).row_bytes * sum(high - low for n, o in zip(case.needed, case.owned) for low, high in without(n, o))
    again = 0.0
    for value, rows in row_reads(layer) or ():
        for need, own in zip(case.needed, case.owned):
            wanted, there = ((int(rows.low[low]), int(rows.high[high - 1])) if high > low else (0, 0) for low, high in (need, own))
            extra = sum(high - low for low, high in without(wanted, there))
            again += extra * shape_of(value).row_bytes * (2 if id(value) in mine else 1)
    added = max(high - low for low, high in case.needed) - max(high - low for low, high in case.owned)
    compute = sum(w.batch * costs.mma(w, 1, w.ow, w.oc, layer.op.inputs[0].dtype) for w, _ in windows_of(layer)) * max(0, added)
    return moved / rate <= again / rate + compute


def fastest_on_cores(program: Program, machine: Machine, cycles: Callable[[Program, Way], float]) -> tuple[float, Way]:
    """Leave `program` in the arrangement that takes the least cycles; returns these, and how constants come.

    The arrangements are compared in one way, and the ways on the best arrangement.
    """
    steps = list(program.steps)
    capacity = machine.sram_bytes - SIGNAL_BYTES * machine.integer("machine.cores")
    suffixes = ("", *(f".{core}" for core in range(1, machine.integer("machine.cores"))))
    transfers = [f"{queue}{suffix}" for suffix in suffixes for queue in (LOADING, *SHARING, "ST")]
    rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
    wanted = wanted_starts(program, SRAM, CONSTANTS, transfers, int(capacity * FULL), rate, 2)
    banks = bank_use(program, machine, wanted)

    fastest, problem = Fastest(program), None
    for policy in (*POLICIES, None):
        program.steps[:] = steps
        for buffer in program.buffers:
            if buffer.memory == SRAM:
                buffer.address = None
        try:
            if policy is None:
                allocate(program, SRAM, capacity)
            else:
                move_loads(program, place(program, SRAM, capacity, wanted, policy, banks))
        except AllocationError as error:
            problem = problem or error
            continue
        fastest.offer(cycles(program, WAYS[-1]))
    if fastest.cycles == math.inf and problem is not None:
        raise problem
    fastest.restore()
    took = {WAYS[-1]: fastest.cycles}
    took |= {way: cycles(program, way) for way in WAYS[:-1]}
    best = min(took, key=lambda way: took[way])
    return took[best], best


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
