# SPDX-License-Identifier: Apache-2.0
"""Plans in which several cores divide the rows of layers: who owns how many, which rows are exchanged, and how weights come."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from gadl.compiler.diag import GadlError
from gadl.passes.plan.division import Case, without
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan

from .bounds import windows_of
from .costs import Costs
from .expand.cores import divisible, division, may_spread, shape_of
from .layers import Layer
from .planner import Planner
from .rowwise import row_reads, weight_bytes


@dataclass(frozen=True)
class Manner:
    """What a divided plan goes by: bytes of weights that are loaded at a time, and how many cores own the rows of a layer that
    touches values of at most so many rows, as (rows, owners), ascending; all cores own those of others.
    """

    chunk_bytes: int
    owners: tuple[tuple[int, int], ...] = ()

    def of(self, layer: Layer) -> int:
        """How many cores own the rows of a layer's result; 0: all."""
        rows = tallest(layer)
        return next((count for limit, count in self.owners if rows <= limit), 0)


def tallest(layer: Layer) -> int:
    """The most rows of what a layer reads and makes."""
    return max(shape_of(v).rows for v in (layer.result, *(v for v, _ in row_reads(layer) or ())))


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
    plans = []
    for m in run:
        spread = may_spread(m) and weight_bytes(m) > size
        channels = _chunk(m, unit, cores if spread else 1, size)
        plans.append(LayerPlan(m.ops, channels=channels, kept=True, owners=manner.of(m), spread=spread))
    exchanged = division(run, plans, cores, stored, lambda case: _exchange(costs, run, case)).exchanged
    return GroupPlan(tuple(replace(p, exchanged=id(m.result) in exchanged) for m, p in zip(run, plans)), 1, cores)


def _chunk(layer: Layer, unit: int, parts: int, size: int) -> int:
    """Output channels whose weights are loaded at a time, a multiple of `unit`, for at least `parts` of them; 0: all."""
    shape, weights = shape_of(layer.result), weight_bytes(layer)
    if layer.op.name not in ("conv", "linear") or (weights <= size and parts == 1):
        return 0
    most = -(-shape.channels // parts // unit) * unit
    return min(most, max(unit, shape.channels * size // weights // unit * unit))


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


