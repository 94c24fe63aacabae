# SPDX-License-Identifier: Apache-2.0
"""From a traced run to numbers per layer and group.

Every cycle of a run belongs to one layer, and to one cause (`Spent`). Where something computes it is that of the first unit at
work among array, drain and vector unit. Where nothing does, the layer that computes next is waiting: for a transfer if one
is under way. Transfers of a layer that only moves data are its computation. So layers sum to groups, and groups to the run;
and so does the run that the analytic model expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.types import Array
from gadl.passes.plan.plan import LayerPlan, Plan
from gadl.targets.profile import ProgramProfile, Role, Trace, Unit

from .model import Agreement, Device, Figures, GroupRow, LayerRow, Limit, Performance, Spent, SramBlock
from .score import agreement

#: A resource that works for this share of the cycles is what limits; below, it is what most cycles went to.
SATURATED = 0.6
_ORDER = (Role.ARRAY, Role.DRAIN, Role.VECTOR)
_KINDS = tuple(Spent)
_WAITING = _KINDS.index(Spent.WAITING)
_SPENT = {Role.ARRAY: Spent.ARRAY, Role.DRAIN: Spent.DRAIN, Role.VECTOR: Spent.VECTOR}
_LIMIT = {
    Spent.ARRAY: Limit.MMA, Spent.BANKS: Limit.BANKS, Spent.DRAIN: Limit.DRAIN, Spent.VECTOR: Limit.VECTOR,
    Spent.DRAM: Limit.DRAM, Spent.WAITING: Limit.WAITING,
}  # fmt: skip


def attribute(units: Sequence[Unit], trace: Trace, cycles: float, layers: int) -> Array:
    """Cycles of a run by layer and cause: f64[layers, len(Spent)]; they sum to the run's."""
    found = np.zeros((max(1, layers), len(_KINDS)))
    if not len(trace.unit):
        found[0, _WAITING] = cycles
        return found
    computes = np.array([unit.role in _ORDER for unit in units])[trace.unit]
    # A transfer is under way from its issue on, a product or a vector instruction when it computes.
    begin = np.where(computes, trace.start + trace.fixed, trace.start)
    edges = np.unique(np.concatenate(([0.0, cycles], begin, trace.end)))
    edges = edges[edges <= cycles]
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    # What a layer's cycles are counted by; who comes next in a cycle in which nothing of that is at work, or came last.
    counts = computes | ~np.isin(trace.layer, trace.layer[computes])
    order = np.flatnonzero(counts)[np.argsort(begin[counts], kind="stable")]
    following = np.searchsorted(begin[order], middle)
    last = order[int(np.argmax(trace.end[order]))]
    chosen = np.where(following < len(order), order[np.minimum(following, len(order) - 1)], last)
    kind, oldest = np.full(len(middle), _WAITING), np.full(len(middle), np.inf)
    for number, unit in enumerate(units):
        mine = np.flatnonzero(trace.unit == number)
        if not len(mine) or unit.role in _ORDER:
            continue
        event, active = _active(begin, trace.end, mine, middle)
        kind[active] = _KINDS.index(Spent.DRAM)
        better = active & counts[event] & (begin[event] < oldest)
        chosen[better], oldest[better] = event[better], begin[event[better]]
    for wanted in reversed(_ORDER):
        for number, unit in enumerate(units):
            mine = np.flatnonzero(trace.unit == number)
            if len(mine) and unit.role is wanted:
                event, active = _active(begin, trace.end, mine, middle)
                chosen[active], kind[active] = event[active], _KINDS.index(_SPENT[wanted])
    layer, moving = trace.layer[chosen], trace.end - begin
    slowed = np.where(computes & (moving > 0), 1 - trace.alone / np.where(moving > 0, moving, 1), 0.0)
    works = np.isin(kind, [_KINDS.index(_SPENT[role]) for role in _ORDER])
    lost = width * np.where(works, np.clip(slowed[chosen], 0, 1), 0)
    np.add.at(found, (layer, kind), width - lost)
    found[:, _KINDS.index(Spent.BANKS)] += np.bincount(layer, lost, minlength=len(found))
    return found


def _active(begin: Array, end: Array, events: Array, times: Array) -> tuple[Array, Array]:
    """For each time the last of a unit's events that began before it, and whether it still lasts. A unit does one at a time."""
    ordered = events[np.argsort(begin[events], kind="stable")]
    place = np.searchsorted(begin[ordered], times, side="right") - 1
    event = ordered[np.maximum(place, 0)]
    return event, (place >= 0) & (end[event] > times)


@dataclass(frozen=True)
class _Sums:
    """What is known of each layer of one program, as matrices with a row per layer."""

    profile: ProgramProfile
    spent: Array
    predicted: Array | None
    busy: Array
    work: Array
    bytes: Array
    bursts: Array
    macs: Array
    steps: Array

    @staticmethod
    def of(profile: ProgramProfile) -> _Sums:
        trace, count = profile.trace, max(1, len(profile.layers))
        units = len(profile.units)

        def total(weights: Array | None, columns: int = 1, column: Array | int = 0) -> Array:
            flat = np.bincount(trace.layer * columns + column, weights, minlength=count * columns)
            return flat.reshape(count, columns) if columns > 1 else flat

        return _Sums(
            profile, attribute(profile.units, trace, profile.cycles, count),
            None if (told := profile.predicted) is None else attribute(profile.units, told, profile.predicted_cycles, count),
            total(trace.end - trace.start, units, trace.unit),
            total(trace.alone, units, trace.unit), total(trace.bytes), total(trace.burst_bytes), total(trace.macs), total(None),
        )  # fmt: skip

    def figures(self, members: Sequence[int]) -> dict[str, Any]:
        """The fields of `Figures` over some layers."""
        rows, device = list(members), self.profile.machine
        spent = {kind.value: float(c) for kind, c in zip(_KINDS, self.spent[rows].sum(axis=0))}
        busy = {u.name: float(c) for u, c in zip(self.profile.units, self.busy[rows].sum(axis=0)) if c > 0}
        facts = [self.profile.layers[i] for i in rows]
        predicted = {} if self.predicted is None else {k.value: float(c) for k, c in zip(_KINDS, self.predicted[rows].sum(axis=0))}
        bound = {key: sum(f.bound.get(key, 0.0) for f in facts) for key in dict.fromkeys(k for f in facts for k in f.bound)}
        measured, macs = sum(spent.values()), int(self.macs[rows].sum())
        by_role = {
            role: float(sum(self.work[rows, i].sum() for i, u in enumerate(self.profile.units) if u.role is role)) for role in _ORDER
        }
        work = {_SPENT[role].value: cycles for role, cycles in by_role.items()}
        work[Spent.DRAM.value] = float(self.bursts[rows].sum()) / device.dram_bytes_per_cycle
        return {
            "measured_cycles": measured,
            "predicted_cycles": sum(predicted.values()),
            "bound_cycles": max(bound.values(), default=0.0),
            "limit": _limit(measured, work, spent),
            "macs": macs,
            "dram_bytes": int(self.bytes[rows].sum()),
            "mac_utilisation": macs / (measured * device.macs_per_cycle) if measured else 0.0,
            "spent": spent,
            "work": work,
            "predicted": predicted,
            "bound": bound,
            "busy": busy,
        }


def _limit(measured: float, work: dict[str, float], spent: dict[str, float]) -> Limit:
    """The resource that is nearly always at work, else what most cycles went to."""
    if measured < 0.5:
        return Limit.HIDDEN
    most = max(work, key=lambda kind: work[kind])
    if work[most] < SATURATED * measured:
        most = max(spent, key=lambda kind: spent[kind])
    return _LIMIT[Spent(most)]


def measure(profiles: Sequence[ProgramProfile], plans: Sequence[Plan]) -> Performance | None:
    """The performance of all device segments, one after another; None when there is none."""
    if not profiles:
        return None
    groups: list[GroupRow] = []
    blocks: list[SramBlock] = []
    parts: list[dict[str, Any]] = []
    at = 0.0
    for segment, (profile, plan) in enumerate(zip(profiles, plans, strict=True)):
        sums = _Sums.of(profile)
        taken = 0
        for group, told in zip(plan.groups, profile.estimated or (None,) * len(plan.groups), strict=True):
            members = range(taken, taken + len(group.layers))
            taken += len(group.layers)
            figures = sums.figures(members)
            rows = tuple(_layer(sums, i, chosen) for i, chosen in zip(members, group.layers))
            groups.append(GroupRow(**figures, index=len(groups), segment=segment, iterations=group.iterations, estimated_cycles=told, layers=rows))
        if taken != len(profile.layers):
            raise ValueError(f"the plan has {taken} layers, the program {len(profile.layers)}")
        parts.append(sums.figures(range(len(profile.layers))))
        blocks += _blocks(profile, at)
        at += profile.cycles
    machine = profiles[0].machine
    layers = [layer for group in groups for layer in group.layers]
    return Performance(
        Device(machine.name, machine.clock_mhz, machine.macs_per_cycle, machine.dram_bytes_per_cycle, machine.sram_bytes, machine.sram_groups),
        _together(parts, machine.macs_per_cycle),
        tuple(groups),
        _score(layers),
        _score(groups),
        _score_estimates(groups),
        tuple(blocks),
        max(_peak(profile) for profile in profiles),
        sum(p.left_out for p in profiles),
    )  # fmt: skip


def _layer(sums: _Sums, index: int, plan: LayerPlan) -> LayerRow:
    facts = sums.profile.layers[index]
    return LayerRow(
        **sums.figures([index]), index=index, name=facts.name, op=facts.op, source=facts.source, shape=facts.shape,
        rows=plan.rows, channels=plan.channels, steps=int(sums.steps[index]),
    )  # fmt: skip


def _score(rows: Sequence[Figures]) -> Agreement:
    """The score of rows that have a prediction: not every target has an analytic model."""
    known = [row for row in rows if row.predicted]
    return agreement([row.predicted_cycles for row in known], [row.measured_cycles for row in known])


def _score_estimates(groups: Sequence[GroupRow]) -> Agreement:
    """The score of the planner's estimates."""
    known = [(g.estimated_cycles, g.measured_cycles) for g in groups if g.estimated_cycles is not None]
    return agreement([estimated for estimated, _ in known], [measured for _, measured in known])


def _together(parts: list[dict[str, Any]], macs_per_cycle: float) -> Figures:
    """Segments that run one after another: their cycles add up, what limits is what limits the longest."""
    measured, macs = sum(p["measured_cycles"] for p in parts), sum(p["macs"] for p in parts)

    def added(key: str) -> dict[str, float]:
        return {k: sum(p[key].get(k, 0.0) for p in parts) for k in dict.fromkeys(k for p in parts for k in p[key])}

    return Figures(
        measured, sum(p["predicted_cycles"] for p in parts), sum(p["bound_cycles"] for p in parts),
        max(parts, key=lambda p: p["measured_cycles"])["limit"], macs, sum(p["dram_bytes"] for p in parts),
        macs / (measured * macs_per_cycle) if measured else 0.0, added("spent"), added("work"), added("predicted"), added("bound"), added("busy"),
    )  # fmt: skip


def _peak(profile: ProgramProfile) -> int:
    """Bytes in use at most."""
    change = np.zeros(max((b.last for b in profile.buffers), default=0) + 2, np.int64)
    for buffer in profile.buffers:
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    return int(np.cumsum(change).max())


def _blocks(profile: ProgramProfile, at: float) -> list[SramBlock]:
    """The SRAM map of one program from cycle `at` on."""
    trace = profile.trace
    count = int(trace.step.max()) + 1 if len(trace.step) else 0
    start, end, layer = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    start[trace.step], end[trace.step], layer[trace.step] = trace.start, trace.end, trace.layer
    return [
        SramBlock(b.name, profile.layers[layer[b.first]].name, b.address, b.size, at + float(start[b.first]), at + float(end[b.last]))
        for b in profile.buffers
        if b.first < count and b.last < count
    ]
