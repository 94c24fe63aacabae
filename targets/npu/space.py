# SPDX-License-Identifier: Apache-2.0
"""The plans of a segment as a tuner sees them: which are legal, what changes one a little, what it costs by simulation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

from gadl.compiler.diag import GadlError
from gadl.passes.plan.plan import GroupPlan, Plan
from gadl.passes.plan.tiling import depths, even_splits
from gadl.targets.base import DeviceProgram, Segment
from gadl.targets.moves import Move, Moves, TileChoices, with_layer

from . import attention
from .backend import DRAFTS, NpuBackend
from .bounds import channels_of, segment_bounds
from .compression import compressed_sizes
from .cores import can_divide
from .costs import Costs
from .division import EFFORTS, Manner, divided_plan
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


class NpuSpace(Moves[Layer]):
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
        """The planner's choice with other budgets and some of its own groups forbidden; with rows divided, in other manners."""
        for manner in (Manner(size << 10, effort) for size, effort in product(_CHUNKS, EFFORTS)) if can_divide(self.machine) else ():
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

    def legal_group(self, group: GroupPlan, members: Sequence[Layer]) -> bool:
        """True when its layers can run that way."""
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

    # -- moves -----------------------------------------------------------------

    @property
    def moves(self) -> Sequence[Move]:
        """Groups in, groups out; None where there is nothing to change."""
        return (
            self.iterate, self.iterate, self.iterate, self.shift, self.shift, self.shift, self.chunk, self.chunk, self._chunk_all, self.split,
            self.merge, self.keep, self._put_over, self._own, self._own, self._pass_rows, self.isolate, self.absorb, self.tile, self.tile,
            self._attend,
        )  # fmt: skip

    def by_rows(self, layer: Layer) -> bool:
        """True for a layer that can be part of a group."""
        return row_reads(layer) is not None

    def height(self, members: Sequence[Layer]) -> int:
        """The rows of the tallest result."""
        return tallest(members)

    def first_chunk(self, layer: Layer) -> int:
        """What the planner chooses."""
        return chunk_channels(layer, self.unit)

    def divisible_channels(self, layer: Layer) -> int:
        """Of layers with weights."""
        return channels_of(layer) if layer.op.name in ("conv", "linear", "conv_transpose") else 0

    def chunks(self, layer: Layer) -> Sequence[int]:
        """Even ones."""
        return even_splits(channels_of(layer), self.unit)

    def alone(self, layer: Layer) -> GroupPlan | None:
        """With the planner's tile."""
        try:
            (alone,) = Planner(self.costs, int(self.machine.sram_bytes * DRAFTS[0][0])).plan([layer]).groups
        except GadlError:
            return None
        return alone

    def tiles(self, layer: Layer) -> TileChoices:
        """Rows of any layer; of products channels and orders too."""
        rows = even_splits(tile_rows(layer))
        if layer.op.name not in ("conv", "linear"):
            return TileChoices(rows)
        window = window_of(layer.op)
        inputs = depths(window.ic, self.machine.integer("mma.shape.2"))[1:]
        return TileChoices(rows, even_splits(channels_of(layer), self.unit), inputs, tile_orders(window))

    def _put_over(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """A result goes over its operand in another way, or no longer does."""
        index = rng.randrange(len(groups))
        group = groups[index]
        at = rng.randrange(len(group.layers))
        layer, plan = self.members(group)[at], group.layers[at]
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
        return with_layer(groups, index, at, changed)

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
        return with_layer(groups, index, at, changed)

    def _chunk_all(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """All chunks of a group larger or smaller."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0:
            return None
        size = rng.choice((6, 9, 12, 16, 20, 24, 32, 40, 48, 64, 96)) << 10
        unit = self.unit
        layers = []
        for layer, plan in zip(self.members(group), group.layers):
            channels, weights = channels_of(layer), weight_bytes(layer)
            if layer.op.name in ("conv", "linear"):
                part = max(unit, channels * size // weights // unit * unit)
                plan = replace(plan, channels=0 if part >= channels else part)
            layers.append(plan)
        groups[index] = replace(group, layers=tuple(layers))
        return groups

    def _attend(self, groups: list[GroupPlan], rng: random.Random) -> list[GroupPlan] | None:
        """Other rows of attention that go together, or another tile of keys."""
        found = [(i, at) for i, g in enumerate(groups) for at, m in enumerate(self.members(g)) if m.op.name == "attention"]
        if not found:
            return None
        index, at = rng.choice(found)
        layer, plan = self.members(groups[index])[at], groups[index].layers[at]
        rows, keys = attention.choices(layer)
        if rng.random() < 0.6:
            return with_layer(groups, index, at, replace(plan, rows=rng.choice(rows)))
        return with_layer(groups, index, at, replace(plan, depth=rng.choice(keys), resident=rng.random() < 0.5))
