# SPDX-License-Identifier: Apache-2.0
"""Plans of a segment: groups of layers by estimated cost."""

from __future__ import annotations

from collections.abc import Sequence

from gadl.passes.plan.cuts import Cut, CutSearch, Memory
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.targets.base import Segment

from .expand.group import slice_of
from .grouping import GroupCosts
from .in_place import way_in_place
from .layer_costs import LayerCosts
from .layers import Layer


class Planner:
    """Plans the layers of a segment.

    `budget` is the part of a lane, in bytes, that a group may use. `price`: what a byte of DDR traffic costs beside its time, as a part
    of that; traffic that is hidden here is not on a board with slower memory.
    """

    def __init__(self, costs: LayerCosts, mb_per_s: float, budget: int, price: float) -> None:
        self.costs, self.chip, self.mb_per_s, self.budget, self.price = costs, costs.chip, mb_per_s, budget, price

    def plan(self, segment: Segment, groups: bool = True) -> Plan:
        """Groups of least estimated time; without `groups`, layers by themselves, from memory to memory."""
        layers = self.costs.layers
        rate = self.mb_per_s / self.chip.mhz
        costs = GroupCosts(self.costs, {id(v) for v in segment.outputs}, self.budget, rate, self.price, groups)
        # On-chip bytes are a lane's, and constants fill all lanes.
        memory = Memory(self.budget, rate, 0.0, 1, float(self.chip.lanes), self.price / rate)
        search = CutSearch(costs.ways, memory, costs.last_reader, costs.sizes, costs.constants)
        return Plan(tuple(self._group(costs, layers[c.first : c.end], c) for c in search.run()))

    def _group(self, costs: GroupCosts, members: Sequence[Layer], cut: Cut) -> GroupPlan:
        if cut.parts == 0:
            tile = costs.tile(members[0].index)
            if tile is None:
                return GroupPlan((LayerPlan(members[0].ops),))
            return GroupPlan((LayerPlan(members[0].ops, tile.rows, tile.channels, tile.order, tile.resident, tile.depth),))
        plans = []
        for member in members:
            chunk = cut.chunk if cut.streamed else 0
            way = way_in_place(member, self.chip.lanes) if cut.over is not None else None
            chunk = chunk if way is None else way.channels
            kept, order, rows = id(member.result) in cut.kept, LoopOrder.ROWS, 0
            if cut.sliced:
                (chunk, rows), order = slice_of(member, self.chip.lanes), LoopOrder.CHANNELS
            streamed = cut.streamed and not cut.sliced
            plans.append(LayerPlan(member.ops, rows, chunk, order, not streamed, kept=kept, in_place=way is not None))
        return GroupPlan(tuple(plans), cut.parts)
