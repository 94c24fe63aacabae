# SPDX-License-Identifier: Apache-2.0
"""The plans of a segment as a tuner sees them: which are legal, what changes one a little, what it costs by simulation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import product

from gadl.compiler.diag import GadlError
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.passes.plan.tiling import depths, even_splits
from gadl.targets.base import DeviceProgram, Segment

from . import attention
from .backend import DRAFTS, NpuBackend
from .bounds import channels_of, segment_bounds
from .compression import compressed_sizes
from .cores import can_divide
from .costs import Costs
from .division import Manner, divided_plan
from .expand.cores import divisible
from .grouping import chunk_channels
from .in_place import reads_all, ways_in_place
from .layers import Layer, layers_of, window_of
from .machine import Machine
from .planner import Planner
from .rowwise import row_reads, weight_bytes
from .tiles import splits_depth, tile_orders
from .timeline import Timeline, tallest, tile_rows

#: Parts of SRAM that starting points are planned with.
_BUDGETS = (0.95, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
#: KiB of weights that several cores load at a time.
_CHUNKS = (96, 128, 192, 256, 320, 448)
#: Kinds that run by rows only, also by themselves.
_ROWWISE = frozenset({"conv_transpose", "max_pool", "avg_pool", "resize"})
#: Attempts of a random change before the plan is returned as it is.
_ATTEMPTS = 24


class NpuSpace:
    """All plans of `segment` on `machine`."""

    def __init__(self, machine: Machine, segment: Segment) -> None:
        self.machine, self.segment = machine, segment
        self.backend, self.costs = NpuBackend(machine), Costs(machine)
        self.layers = layers_of(segment)
        self.unit = machine.integer("mma.shape.1")
        self.by_op = {layer.ops[0]: layer for layer in self.layers}
        self.returned = {id(v) for v in segment.outputs}
        self.estimate = Timeline(machine, self.costs, self.layers, self.returned).estimate

    def __reduce__(self) -> tuple[type[NpuSpace], tuple[Machine, Segment]]:
        """Caches and `id`s stay behind when a space moves to another process."""
        return NpuSpace, (self.machine, self.segment)

    @property
    def machine_digest(self) -> str:
        """Of all values of the machine, not of its name."""
        return self.machine.digest.hex()[:16]

    @cached_property
    def compressed(self) -> list[int]:
        """The streams of whole tensors, where they pay: what single chunks gain in others is too little to tell segments apart."""
        return [size for layer in self.layers for size in compressed_sizes(self.machine, layer)]

    @cached_property
    def bound(self) -> float:
        """LBgeo in cycles."""
        return float(segment_bounds(self.machine, self.layers, self.segment)["lbgeo_cycles"])

    # -- plans -----------------------------------------------------------------

    def initial(self) -> Plan:
        """What the backend chooses by itself."""
        return Plan.from_json(self.backend.compile(self.segment).plan)

    def candidates(self, rng: random.Random) -> Iterator[Plan]:
        """The planner's choice with other budgets and some of its own groups forbidden; with rows divided, other chunks of weights."""
        for manner in (Manner(size << 10) for size in _CHUNKS) if can_divide(self.machine) else ():
            divided = divided_plan(Planner(self.costs, int(self.machine.sram_bytes * _BUDGETS[0])), self.layers, self.returned, manner)
            if divided is not None:
                yield divided
        for share, in_place in product(_BUDGETS, (False, True)):
            planner = Planner(self.costs, int(self.machine.sram_bytes * share), in_place)
            refused: list[tuple[int, int, int]] = []
            for _ in range(1 if in_place else 3):
                try:
                    plan = planner.grouped(self.layers, self.returned, refused)
                except GadlError:
                    break
                yield plan
                groups, at = [], 0
                for group in plan.groups:
                    if group.iterations:
                        groups.append((at, at + len(group.layers), group.iterations))
                    at += len(group.layers)
                if not groups:
                    break
                refused.append(rng.choice(groups))

    def legal(self, plan: Plan) -> bool:
        """True when every layer runs once, in order, in a way that it can run; whether it fits shows when it is expanded."""
        chosen = [layer for group in plan.groups for layer in group.layers]
        if [p.ops for p in chosen] != [layer.ops for layer in self.layers]:
            return False
        return all(self._legal_group(group) for group in plan.groups)

    def _legal_group(self, group: GroupPlan) -> bool:
        members = self._members(group)
        if not members:
            return False
        if group.iterations == 0:
            layer, plan = members[0], group.layers[0]
            if len(members) != 1 or layer.op.name in _ROWWISE:
                return False
            tiled = int(layer.op.name in ("conv", "linear"))
            if layer.op.name == "attention":
                return plan.rows >= 1 and attention.legal(layer, plan)
            if plan.depth and not (tiled and 0 < plan.depth and splits_depth(window_of(layer.op), layer.op.inputs[0].dtype)):
                return False
            return tiled <= plan.rows <= tile_rows(layer) and tiled <= plan.channels <= channels_of(layer)
        if any(m.op.name == "attention" and not attention.legal(m, plan) for m, plan in zip(members, group.layers)):
            return False
        if any(plan.channels < 0 for plan in group.layers) or any(row_reads(layer) is None for layer in members):
            return False
        if group.cores != 1:
            every = self.machine.integer("machine.cores") if can_divide(self.machine) else 1
            whole = group.iterations == 1 and group.cores == every and all(divisible(layer) for layer in members)
            return whole and all(0 <= plan.owners <= every for plan in group.layers)
        return 1 <= group.iterations <= tallest(members)

    def simulate(self, plan: Plan) -> float:
        """Cycles of the simulated program, timing only."""
        return float(self.compile(plan).report["simulated_cycles"])

    def compile(self, plan: Plan) -> DeviceProgram:
        """The program of a plan; `GADL-P001` when a layer finds no place."""
        return self.backend.compile(self.segment, plan)

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """A legal plan one move away; the plan itself where no move was found."""
        moves = (
            self._iterate, self._iterate, self._iterate, self._shift, self._shift, self._shift, self._chunk, self._chunk,
            self._chunk_all, self._split, self._merge, self._keep, self._put_over, self._own, self._own, self._pass_rows, self._isolate, self._absorb, self._tile, self._tile,
            self._attend,
        )  # fmt: skip
        for _ in range(_ATTEMPTS):
            groups = rng.choice(moves)(list(plan.groups), rng)
            if groups is not None:
                made = replace(plan, groups=tuple(groups))
                if made != plan and self.legal(made):
                    return made
        return plan

    # -- moves: groups in, groups out; None where there is nothing to change ----------

    def _iterate(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Another number of iterations."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0 or group.cores > 1:
            return None
        groups[index] = self._with_iterations(group, self._other_iterations(group, rng))
        return groups

    def _other_iterations(self, group: GroupPlan, rng: random.Random) -> int:
        height, now = tallest(self._members(group)), group.iterations
        counts = sorted({-(-height // rows) for rows in range(1, height + 1)})
        near = min(range(len(counts)), key=lambda i: abs(counts[i] - now))
        around = counts[max(0, near - 2) : near + 3]
        return rng.choice([*around, now - 1, now + 1, now // 2, now * 2, rng.choice(counts)])

    def _with_iterations(self, group: GroupPlan, iterations: int) -> GroupPlan:
        """Chunks of channels belong to a single iteration: they come and go with it."""
        iterations = min(max(1, iterations), tallest(self._members(group)))
        if (iterations == 1) == (group.iterations == 1):
            return replace(group, iterations=iterations)
        layers = tuple(
            replace(p, channels=chunk_channels(m, self.unit) if iterations == 1 else 0) for m, p in zip(self._members(group), group.layers)
        )
        return replace(group, layers=layers, iterations=iterations)

    def _shift(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Some layers change to the group before or behind."""
        pairs = [i for i in range(len(groups) - 1) if groups[i].iterations and groups[i + 1].iterations]
        if not pairs:
            return None
        at = rng.choice(pairs)
        layers, first = (*groups[at].layers, *groups[at + 1].layers), len(groups[at].layers)
        cut = min(max(0, first + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 3, 4, 6, 8))), len(layers))
        kept = groups[at].layers[-1].kept
        made = [self._regroup(g, part) for g, part in ((groups[at], layers[:cut]), (groups[at + 1], layers[cut:])) if part]
        if len(made) == 2:
            made[0] = _keeping(made[0], kept)
        return [*groups[:at], *made, *groups[at + 2 :]]

    def _regroup(self, group: GroupPlan, layers: tuple[LayerPlan, ...]) -> GroupPlan:
        """`group` with other layers."""
        members = [self.by_op[p.ops[0]] for p in layers]
        iterations = min(max(1, group.iterations), tallest(members))
        kept = {p.ops for p in group.layers}
        fresh = tuple(
            p if p.ops in kept else LayerPlan(p.ops, channels=chunk_channels(m, self.unit) if iterations == 1 else 0)
            for p, m in zip(layers, members)
        )
        return replace(group, layers=fresh, iterations=iterations)

    def _split(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Two groups of one."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if len(group.layers) < 2:
            return None
        cut = rng.randrange(1, len(group.layers))
        parts = [_keeping(self._regroup(group, group.layers[:cut]), rng.random() < 0.7), self._regroup(group, group.layers[cut:])]
        if rng.random() < 0.5:
            which = rng.randrange(2)
            parts[which] = self._with_iterations(parts[which], self._other_iterations(parts[which], rng))
        return [*groups[:index], *parts, *groups[index + 1 :]]

    def _merge(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """One group of two neighbours."""
        pairs = [i for i in range(len(groups) - 1) if groups[i].iterations and groups[i + 1].iterations]
        if not pairs:
            return None
        at = rng.choice(pairs)
        model = groups[at + rng.randrange(2)]
        made = self._regroup(model, (*groups[at].layers, *groups[at + 1].layers))
        return [*groups[:at], made, *groups[at + 2 :]]

    def _keep(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """A result that leaves its group stays on chip, or no longer does."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0:
            return None
        at = rng.choice((len(group.layers) - 1, rng.randrange(len(group.layers))))
        changed = replace(group.layers[at], kept=not group.layers[at].kept)
        return _changed(groups, index, at, changed)

    def _put_over(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """A result goes over its operand in another way, or no longer does."""
        index = rng.randrange(len(groups))
        group = groups[index]
        at = rng.randrange(len(group.layers))
        layer, plan = self._members(group)[at], group.layers[at]
        if group.iterations != 1 or group.cores != 1:
            return None
        ways = ways_in_place(self.costs, layer)
        way = rng.choice([None, *ways]) if plan.in_place else rng.choice(ways) if ways else None
        if way is None and not plan.in_place:
            return None
        changed = replace(plan, in_place=way is not None, rows=0 if way is None else way.block)
        if reads_all(layer):
            each = plan.channels or chunk_channels(layer, self.unit) or channels_of(layer)
            changed = replace(changed, channels=0 if way is not None and not way.streamed else each)
        return _changed(groups, index, at, changed)

    def _own(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Another number of cores divides the rows of some layers."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.cores == 1:
            return None
        first = rng.randrange(len(group.layers))
        end = rng.choice((first + 1, first + 3, len(group.layers), rng.randint(first + 1, len(group.layers))))
        count = rng.randint(0, group.cores - 1)
        layers = (replace(p, owners=count) if first <= at < end else p for at, p in enumerate(group.layers))
        groups[index] = replace(group, layers=tuple(layers))
        return groups

    def _pass_rows(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Cores pass the rows of a result to each other, or no longer do."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.cores == 1:
            return None
        at = rng.randrange(len(group.layers))
        changed = replace(group.layers[at], exchanged=not group.layers[at].exchanged)
        return _changed(groups, index, at, changed)

    def _isolate(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """A layer leaves its group and runs from memory to memory."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0:
            return None
        at = rng.randrange(len(group.layers))
        try:
            (alone,) = Planner(self.costs, int(self.machine.sram_bytes * DRAFTS[0][0])).plan([self.by_op[group.layers[at].ops[0]]]).groups
        except GadlError:
            return None
        before = [self._regroup(group, group.layers[:at])] if at else []
        behind = [self._regroup(group, group.layers[at + 1 :])] if at + 1 < len(group.layers) else []
        return [*groups[:index], *before, alone, *behind, *groups[index + 1 :]]

    def _absorb(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """A lone layer joins a neighbouring group, or becomes a group."""
        lone = [i for i, g in enumerate(groups) if g.iterations == 0 and row_reads(self._members(g)[0]) is not None]
        if not lone:
            return None
        at = rng.choice(lone)
        (layer,) = groups[at].layers
        neighbours = [i for i in (at - 1, at + 1) if 0 <= i < len(groups) and groups[i].iterations]
        if not neighbours or rng.random() < 0.3:
            count = rng.randint(1, tallest(self._members(groups[at])))
            groups[at] = replace(groups[at], layers=(LayerPlan(layer.ops),), iterations=count)
            return groups
        into = rng.choice(neighbours)
        layers = (*groups[into].layers, layer) if into < at else (layer, *groups[into].layers)
        groups[into] = self._regroup(groups[into], layers)
        del groups[at]
        return groups

    def _chunk(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Another chunk of channels for one layer of a group."""
        index = rng.randrange(len(groups))
        group = groups[index]
        at = rng.randrange(len(group.layers))
        if group.iterations == 0:
            return None
        layer, plan = self._members(group)[at], group.layers[at]
        channels = channels_of(layer)
        if layer.op.name not in ("conv", "linear", "conv_transpose") or channels <= 1:
            return None
        unit = self.unit
        now = plan.channels or channels
        wanted = rng.choice([0, now + unit, now - unit, now // 2, now * 2, rng.choice(even_splits(channels, unit))])
        wanted = 0 if wanted >= channels or wanted <= 0 else -(-wanted // unit) * unit
        changed = replace(plan, channels=0 if wanted >= channels else wanted)
        return _changed(groups, index, at, changed)

    def _chunk_all(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """All chunks of a group larger or smaller."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0:
            return None
        size = rng.choice((6, 9, 12, 16, 20, 24, 32, 40, 48, 64, 96)) << 10
        unit = self.unit
        layers = []
        for layer, plan in zip(self._members(group), group.layers):
            channels, weights = channels_of(layer), weight_bytes(layer)
            if layer.op.name in ("conv", "linear"):
                part = max(unit, channels * size // weights // unit * unit)
                plan = replace(plan, channels=0 if part >= channels else part)
            layers.append(plan)
        groups[index] = replace(group, layers=tuple(layers))
        return groups

    def _tile(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Another tile of a lone layer: rows, channels, input channels at a time, which loop is outside, what is resident."""
        lone = [i for i, g in enumerate(groups) if g.iterations == 0 and g.layers[0].rows]
        if not lone:
            return None
        at = rng.choice(lone)
        (plan,), (layer,) = groups[at].layers, self._members(groups[at])
        if layer.op.name not in ("conv", "linear"):
            groups[at] = replace(groups[at], layers=(replace(plan, rows=rng.choice(even_splits(tile_rows(layer)))),))
            return groups
        window = window_of(layer.op)
        match rng.randrange(4):
            case 0:
                plan = replace(plan, rows=rng.choice(even_splits(tile_rows(layer))))
            case 1:
                plan = replace(plan, channels=rng.choice(even_splits(channels_of(layer), self.unit)))
            case 2:
                found = depths(window.ic, self.machine.integer("mma.shape.2"))
                plan = replace(plan, depth=rng.choice([0, *found[1:]]))
            case _:
                outside, resident = rng.choice(tile_orders(window))
                plan = replace(plan, order=LoopOrder.CHANNELS if outside else LoopOrder.ROWS, resident=bool(resident))
        groups[at] = replace(groups[at], layers=(plan,))
        return groups

    def _attend(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Other rows of attention that go together, or another tile of keys."""
        found = [(i, at) for i, g in enumerate(groups) for at, m in enumerate(self._members(g)) if m.op.name == "attention"]
        if not found:
            return None
        index, at = rng.choice(found)
        layer, plan = self._members(groups[index])[at], groups[index].layers[at]
        rows, keys = attention.choices(layer)
        if rng.random() < 0.6:
            return _changed(groups, index, at, replace(plan, rows=rng.choice(rows)))
        return _changed(groups, index, at, replace(plan, depth=rng.choice(keys), resident=rng.random() < 0.5))

    def _members(self, group: GroupPlan) -> list[Layer]:
        return [self.by_op[p.ops[0]] for p in group.layers]


def _changed(groups: list[GroupPlan], index: int, at: int, layer: LayerPlan) -> list[GroupPlan]:
    """The groups with another plan for one layer."""
    layers = groups[index].layers
    groups[index] = replace(groups[index], layers=(*layers[:at], layer, *layers[at + 1 :]))
    return groups


def _keeping(group: GroupPlan, kept: bool) -> GroupPlan:
    """A group whose last result stays on chip, or does not."""
    return replace(group, layers=(*group.layers[:-1], replace(group.layers[-1], kept=kept)))
