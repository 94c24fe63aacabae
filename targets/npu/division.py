# SPDX-License-Identifier: Apache-2.0
"""Plans in which several cores divide the rows of layers: who owns how many, which rows are exchanged, and how weights come."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cache

from gadl.compiler.diag import GadlError
from gadl.passes.plan.exchange import Prices, choose_exchanges
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan

from .bounds import windows_of
from .costs import Costs
from .expand.cores import divisible, may_spread, shape_of, shares_of
from .layers import Layer
from .machine import Machine
from .planner import Planner
from .rowwise import is_reduction, partial_bytes, row_reads, weight_bytes

#: By how much the bytes that cross a cut may grow on the way back to a better one.
LITTLE_MORE = 1.02
#: What a cycle of the cores counts against one of the memory, in drafts of a plan.
EFFORTS = (0.7, 0.35, 0.0875)


@dataclass(frozen=True)
class Manner:
    """What a divided plan goes by.

    Bytes of weights that are loaded at a time; how many cores own the rows of what reductions read of at most so many rows, as
    (rows, owners), ascending (all cores own others); and what a cycle of the cores counts against one of the memory, where rows
    are either exchanged or computed twice. `room` is how often what is computed twice counts as if it were loaded: it takes room.
    """

    chunk_bytes: int
    effort: float
    owners: tuple[tuple[int, int], ...] = ()
    room: float = 0.0

    def of(self, rows: int) -> int:
        """How many cores own what a reduction reads of so many rows; 0: all."""
        return next((count for limit, count in self.owners if rows <= limit), 0)


def fewer_owners(machine: Machine) -> list[int]:
    """How many cores may own the rows of a value, where these are not all."""
    cores = machine.integer("machine.cores")
    return [1 << n for n in range(cores.bit_length()) if 1 << n < cores]


def cut_before(layers: Sequence[Layer], op: int, cuts: Set[int]) -> int:
    """Where to cut the layers when layer `op` finds no room: back from it, as long as hardly more bytes cross; at `op` if that is cut."""
    last = {id(v): at for at, layer in enumerate(layers) for v in layer.op.inputs}
    crossing = [0] * (len(layers) + 1)
    for made, layer in enumerate(layers):
        for at in range(made + 1, last.get(id(layer.result), made) + 1):
            crossing[at] += layer.result.type.size_bytes
    at = start = next(at for at, layer in enumerate(layers) if layer.index == op)
    while at > 1 and layers[at - 1].index not in cuts and crossing[at - 1] <= LITTLE_MORE * crossing[at]:
        at -= 1
    found = min(range(at, start + 1), key=lambda at: (crossing[at], -at))
    return layers[found].index


def reduced_rows(layers: Sequence[Layer]) -> list[int]:
    """How many rows reductions read, ascending."""
    return sorted({shape_of(m.op.inputs[0]).rows for m in layers if divisible(m) and is_reduction(m)})


def divided_plan(
    planner: Planner, layers: Sequence[Layer], returned: set[int], manner: Manner, cuts: Set[int] = frozenset(),
    alone: Set[int] = frozenset(),
) -> Plan | None:  # fmt: skip
    """A plan in which cores divide the rows of all layers that run by rows; None where that is not possible.

    All values stay on chip within a run of layers; at `cuts`, the indices of layers, they pass through memory. Layers `alone` run
    on one core from memory to memory.
    """
    if not any(divisible(layer) for layer in layers):
        return None
    groups: list[GroupPlan] = []
    run: list[Layer] = []
    able = {layer.index for layer in layers if layer.index not in alone and divisible(layer)}
    for layer in (*layers, None):
        if run and (layer is None or layer.index in cuts or layer.index not in able):
            groups.append(_divided(planner.costs, run, returned, manner))
            run = []
        if layer is not None and layer.index in able:
            run.append(layer)
        elif layer is not None:
            try:
                groups += planner.plan([layer]).groups
            except GadlError:
                return None
    return Plan(tuple(groups))


def _divided(costs: Costs, run: Sequence[Layer], returned: set[int], manner: Manner) -> GroupPlan:
    ops = {id(op) for layer in run for op in (layer.op, layer.lut)}
    stored = {id(m.result) for m in run if id(m.result) in returned or any(id(u) not in ops for u in m.result.users)}
    cores, unit, size = costs.machine.integer("machine.cores"), costs.machine.integer("mma.shape.1"), manner.chunk_bytes
    reduced = {id(m.op.inputs[0]) for m in run if is_reduction(m)}
    plans = []
    for m in run:
        spread = may_spread(m) and weight_bytes(m) > size
        channels = _chunk(m, unit, cores if spread else 1, size)
        owners = manner.of(shape_of(m.result).rows) if id(m.result) in reduced else 0
        plans.append(LayerPlan(m.ops, channels=channels, kept=True, owners=owners, spread=spread))
    # The parts of a reduction are those of its operand.
    fixed = reduced | {id(m.op) for m in run if is_reduction(m)}
    counts = [0, *fewer_owners(costs.machine)]
    chosen = choose_exchanges(shares_of(run, plans, cores, stored), _prices(costs, run, manner), counts, fixed)
    done = [replace(p, owners=c.owners, exchanged=c.exchanged) for p, c in zip(plans, (chosen[id(m.result)] for m in run))]
    return GroupPlan(tuple(done), 1, cores)


def _chunk(layer: Layer, unit: int, parts: int, size: int) -> int:
    """Output channels whose weights are loaded at a time, a multiple of `unit`, for at least `parts` of them; 0: all."""
    shape, weights = shape_of(layer.result), weight_bytes(layer)
    if layer.op.name not in ("conv", "linear") or (weights <= size and parts == 1):
        return 0
    most = -(-shape.channels // parts // unit) * unit
    return min(most, max(unit, shape.channels * size // weights // unit * unit))


def _prices(costs: Costs, run: Sequence[Layer], manner: Manner) -> Prices:
    """What exchanges and computation of rows of a run cost."""
    machine, cores = costs.machine, costs.machine.integer("machine.cores")
    rate = machine["dram.bytes_per_cycle"] * machine["dram.eff"]
    made = {id(m.result): m for m in run}
    sizes = {id(v): shape_of(v).row_bytes for m in run for v in (m.result, *(v for v, _ in row_reads(m) or ()))}
    sizes |= {id(m.op): partial_bytes(m, 1) for m in run if is_reduction(m)}

    @cache
    def cycles(value: int, rows: int) -> float:
        layer = made.get(value)
        if layer is None or not rows:
            return 0.0
        shape = shape_of(layer.result)
        held = manner.room * max(0, rows - -(-shape.rows // cores)) * shape.row_bytes / rate
        windows = [w for w, _ in windows_of(layer)]
        if not windows:
            return held + manner.effort * costs.vector(rows * shape.row_bytes, 1)
        array = sum(w.batch * costs.product(w, rows, w.oc, layer.op.inputs[0].dtype) for w in windows)
        # While its weights come, a layer may as well compute.
        return held + manner.effort * max(0.0, array - weight_bytes(layer) / rate)

    return Prices(lambda value, rows: rows * sizes[value] / rate, cycles, manner.effort * costs.passing)
