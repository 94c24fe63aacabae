# SPDX-License-Identifier: Apache-2.0
"""The plans of a segment as a tuner sees them: which are legal, what changes one a little, what it costs by the overlap model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import product

from gadl.passes.memory.allocate import AllocationError
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.passes.plan.tiling import even_splits
from gadl.targets.base import DeviceProgram, Segment
from gadl.targets.moves import Groups, Move, Moves, TileChoices, with_layer

from .backend import Build, CviBackend
from .bounds import least_of, segment_bounds
from .chip import Chip
from .expand.group import slice_of
from .expand.kernel import shape_or_raise
from .expand.resize import is_magnified
from .grouping import MOVED
from .in_place import way_in_place
from .layer_costs import LayerCosts
from .layers import REDUCTIONS, Layer, is_depthwise, layers_of, row_reads
from .planner import Planner
from .tiles import ORDERS, best_tile, input_parts
from .timeline import Timeline

#: Parts of a lane that starting points are planned with, and what a byte of traffic costs beside its time.
_BUDGETS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4)
_PRICES = (0.0, 0.25, 0.5)
#: Layers whose output channels may come in chunks.
_CHUNKED = frozenset({"conv", "conv_transpose", "max_pool", "avg_pool", "reduce_mean", "reduce_sum", "reduce_max"})


class CviSpace(Moves[Layer]):
    """All plans of `segment` on `chip`."""

    def __init__(self, chip: Chip, segment: Segment) -> None:
        self.chip, self.segment, self.unit = chip, segment, chip.lanes
        self.backend = CviBackend(chip)
        self.layers = layers_of(segment)
        self.by_op = {layer.ops[0]: layer for layer in self.layers}
        self.returned = {id(v) for v in segment.outputs}
        self.last = {id(v): layer.index for layer in self.layers for v in layer.op.inputs}
        self.costs = LayerCosts(chip, self.backend.mb_per_s, self.layers)
        self.estimate = Timeline(self.costs, self.returned).estimate

    def __reduce__(self) -> tuple[type[CviSpace], tuple[Chip, Segment]]:
        """Caches and `id`s stay behind when a space moves to another process."""
        return CviSpace, (self.chip, self.segment)

    @property
    def machine_digest(self) -> str:
        """Of the chip's numbers and the bandwidth of DDR."""
        values = {key: value for key, value in asdict(self.chip).items() if key != "name"} | {"mb_per_s": self.backend.mb_per_s}
        return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]

    @property
    def compressed(self) -> list[int]:
        """The chip loads constants as they are."""
        return []

    @cached_property
    def bound(self) -> float:
        """Every layer in one instruction, or all that has to pass DDR once."""
        rate = self.backend.mb_per_s / self.chip.mhz
        return float(segment_bounds(least_of(self.layers, self.segment, self.chip), self.layers, rate)["lb0_cycles"])

    # -- plans -----------------------------------------------------------------

    def initial(self) -> Plan:
        """What the backend chooses by itself."""
        return Plan.from_json(self.backend.compile(self.segment).plan)

    def candidates(self, rng: random.Random) -> Iterator[Plan]:
        """The planner's choice for other parts of a lane and other prices of traffic."""
        for share, price in product(_BUDGETS, _PRICES):
            yield Planner(self.costs, self.backend.mb_per_s, int(self.chip.lane_bytes * share), price).plan(self.segment)

    def simulate(self, plan: Plan) -> float:
        """Cycles of the overlap model, of the best arrangement."""
        build = Build(self.segment, self.layers, plan, self.chip, self.backend.mb_per_s)
        try:
            return build.overlap_us * self.chip.mhz
        except AllocationError as error:
            raise self.backend.too_large(self.layers, error) from error

    def compile(self, plan: Plan) -> DeviceProgram:
        """The program of a plan; `GADL-P001` when a layer finds no place."""
        return self.backend.compile(self.segment, plan)

    def legal_group(self, group: GroupPlan, members: Sequence[Layer]) -> bool:
        """True when its layers can run that way."""
        if group.cores != 1:
            return False
        if group.iterations == 0:
            return len(members) == 1 and self._legal_alone(group.layers[0], members[0])
        if not 1 <= group.iterations <= self.height(members) or not all(self.by_rows(layer) for layer in members):
            return False
        if any(p.order is LoopOrder.CHANNELS for p in group.layers):
            return len(members) == 1 and group.iterations == 1 and self._legal_slice(group.layers[0], members[0])
        return all(self._legal_member(group, p, m) for p, m in zip(group.layers, members))

    def _legal_alone(self, plan: LayerPlan, layer: Layer) -> bool:
        """From memory to memory: dense convolutions with a tile, and what only moves."""
        if not self._is_dense(layer):
            return (layer.op.name in MOVED or is_magnified(layer.op)) and plan == LayerPlan(layer.ops)
        shape, inputs = shape_or_raise(layer.result), input_parts(layer, self.chip)[0]
        whole = shape_or_raise(layer.op.inputs[0]).c
        fits = 1 <= plan.rows <= shape.h and 1 <= plan.channels <= shape.c and not (plan.kept or plan.in_place)
        # A whole sum, or parts of it that begin on the first lane.
        return fits and (plan.depth in (0, inputs) or (0 < plan.depth < whole and plan.depth % (2 * self.unit) == 0))

    def _legal_slice(self, plan: LayerPlan, layer: Layer) -> bool:
        """Some channels at a time, and some rows of these unless all rows stay or are summed up."""
        height = shape_or_raise(layer.result).h
        if not slice_of(layer, self.unit)[0] or plan.in_place or plan.channels <= 0 or plan.channels % self.unit:
            return False
        return plan.rows in (0, height) or (0 < plan.rows < height and not plan.kept and layer.op.name not in REDUCTIONS)

    def _legal_member(self, group: GroupPlan, plan: LayerPlan, layer: Layer) -> bool:
        if plan.in_place:
            way, operand = way_in_place(layer, self.chip.lanes), layer.op.inputs[0]
            others = [v for v in layer.op.inputs[1:] if v is operand]
            late = self.last[id(operand)] > layer.index or id(operand) in self.returned
            return way is not None and group.iterations == 1 and not others and not late and plan.channels == way.channels
        channels = self.divisible_channels(layer)
        return plan.channels == 0 or (channels > 1 and 0 < plan.channels < channels and plan.channels % self.unit == 0)

    def _is_dense(self, layer: Layer) -> bool:
        return layer.op.name in ("conv", "conv_transpose") and not is_depthwise(layer.op) and self.by_rows(layer)

    # -- moves -----------------------------------------------------------------

    @property
    def moves(self) -> Sequence[Move]:
        """Groups in, groups out; None where there is nothing to change."""
        return (
            self.iterate, self.iterate, self.iterate, self.shift, self.shift, self.shift, self.chunk, self.chunk, self.split, self.merge,
            self.keep, self._stream, self._put_over, self._slice, self.isolate, self.absorb, self.tile, self.tile,
        )  # fmt: skip

    def by_rows(self, layer: Layer) -> bool:
        """True for a layer that can be part of a group."""
        return row_reads(layer) is not None

    def height(self, members: Sequence[Layer]) -> int:
        """The rows of the tallest result."""
        return max(shape_or_raise(m.result).h for m in members)

    def first_chunk(self, layer: Layer) -> int:
        """What the planner chooses."""
        return self.costs.chunk(layer)

    def divisible_channels(self, layer: Layer) -> int:
        """Of layers that make their channels in several instructions."""
        return shape_or_raise(layer.result).c if layer.op.name in _CHUNKED else 0

    def chunks(self, layer: Layer) -> Sequence[int]:
        """Even ones."""
        return even_splits(shape_or_raise(layer.result).c, self.unit)

    def alone(self, layer: Layer) -> GroupPlan | None:
        """A dense convolution with the cheapest tile; another layer in a group of its own."""
        if not self._is_dense(layer):
            return GroupPlan((LayerPlan(layer.ops),), int(self.by_rows(layer)))
        rate = self.backend.mb_per_s / self.chip.mhz
        tile = best_tile(layer, self.chip, self.chip.lane_bytes, rate, 0.0)
        if tile is None:
            return None
        return GroupPlan((LayerPlan(layer.ops, tile.rows, tile.channels, tile.order, tile.resident, tile.depth),))

    def tiles(self, layer: Layer) -> TileChoices:
        """Of dense convolutions."""
        shape = shape_or_raise(layer.result)
        parts = input_parts(layer, self.chip)[1:]
        return TileChoices(even_splits(shape.h), even_splits(shape.c, self.unit), parts, ORDERS)

    def _stream(self, groups: Groups, rng: random.Random) -> Groups | None:
        """The constants of a layer come again in every iteration, or stay."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations <= 1:
            return None
        at = rng.randrange(len(group.layers))
        plan = group.layers[at]
        channels = self.first_chunk(self.members(group)[at]) if plan.resident else 0
        return with_layer(groups, index, at, replace(plan, resident=not plan.resident, channels=channels))

    def _put_over(self, groups: Groups, rng: random.Random) -> Groups | None:
        """A result goes over its operand, or no longer does."""
        index = rng.randrange(len(groups))
        group = groups[index]
        at = rng.randrange(len(group.layers))
        layer, plan = self.members(group)[at], group.layers[at]
        way = way_in_place(layer, self.chip.lanes) if self.by_rows(layer) else None
        if group.iterations != 1 or way is None:
            return None
        channels = self.first_chunk(layer) if plan.in_place else way.channels
        return with_layer(groups, index, at, replace(plan, in_place=not plan.in_place, channels=channels, order=LoopOrder.ROWS))

    def _slice(self, groups: Groups, rng: random.Random) -> Groups | None:
        """A layer by itself makes some channels at a time, in another number, or no longer does."""
        index = rng.randrange(len(groups))
        group = groups[index]
        (plan, *more), layer = group.layers, self.members(group)[0]
        if more or group.iterations == 0 or not self.by_rows(layer) or not slice_of(layer, self.unit)[0]:
            return None
        if plan.order is LoopOrder.CHANNELS and rng.random() < 0.3:
            changed = replace(plan, order=LoopOrder.ROWS, channels=self.first_chunk(layer), rows=0)
        else:
            channels = rng.choice(self.chunks(layer)[1:] or [self.unit])
            rows = rng.choice((0, slice_of(layer, self.unit)[1], rng.choice(even_splits(shape_or_raise(layer.result).h))))
            changed = replace(plan, order=LoopOrder.CHANNELS, channels=channels, rows=rows, in_place=False, resident=True)
        groups[index] = replace(group, layers=(changed,), iterations=1)
        return groups
