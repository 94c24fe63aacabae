# SPDX-License-Identifier: Apache-2.0
"""The backend: a segment is planned, expanded, allocated, synchronised and encoded."""

from __future__ import annotations

from dataclasses import dataclass

from gadl.passes.memory.allocate import Reuse, allocate
from gadl.passes.plan.plan import Plan
from gadl.passes.schedule.synchronize import find_waits
from gadl.targets.base import DeviceProgram, Segment

from .arrange import Arrangements
from .chip import Chip
from .cost import MB_PER_S, overlap
from .descriptor import Command
from .emit import commands_of
from .expand.context import SCRATCH, Expansion
from .expand.group import GroupExpansion
from .expand.lone import expand_movement
from .expand.matrix import expand_linear
from .in_place import chains_of
from .layers import Layer, layers_of
from .places import bind, place_values
from .planner import Planner


@dataclass(frozen=True)
class CviBackend:
    """Compiles segments for one chip. `mb_per_s` is the bandwidth of DDR that plans are made for."""

    chip: Chip
    mb_per_s: float = MB_PER_S

    def compile(self, segment: Segment, plan: Plan | None = None, *, groups: bool = True) -> DeviceProgram:
        """Plan (unless a plan is given), expand and encode; without `groups` layer by layer, from memory to memory."""
        raise NotImplementedError


class Build:
    """One plan of a segment, expanded."""

    def __init__(self, segment: Segment, layers: list[Layer], plan: Plan, chip: Chip, mb_per_s: float) -> None:
        self.segment, self.layers, self.plan, self.chip, self.mb_per_s = segment, layers, plan, chip, mb_per_s
        self.context = Expansion(chip, mb_per_s)
        self.bindings = bind(self.context, segment.inputs, segment.outputs)
        returned = {id(v) for v in segment.outputs}
        place_values(self.context, layers, returned)
        self._expand(returned)
        self.program = self.context.program
        allocate(self.program, SCRATCH, 1 << 32, Reuse.LOWEST)
        self.arrangements = Arrangements(self.program, chip, mb_per_s)

    def _expand(self, returned: set[int]) -> None:
        by_op = {layer.ops[0]: layer for layer in self.layers}
        by_rows = {id(by_op[p.ops[0]].op) for g in self.plan.groups if g.iterations for p in g.layers}
        chains = chains_of([([by_op[p.ops[0]] for p in g.layers], g) for g in self.plan.groups], self.chip.lanes)
        for number, group in enumerate(self.plan.groups):
            members = [by_op[p.ops[0]] for p in group.layers]
            if group.iterations == 0:
                (layer,) = members
                self.context.op = layer.index
                (expand_linear if layer.op.name == "linear" else expand_movement)(self.context, layer)
                continue
            inside = {id(m.op) for m in members}
            kept = {id(m.result) for m, p in zip(members, group.layers) if p.kept}
            stored = {
                id(m.result) for m in members
                if id(m.result) in returned or any(id(user) not in (by_rows if id(m.result) in kept else inside) for user in m.result.users)
            }  # fmt: skip
            here = {value: chain for (at, value), chain in chains.items() if at == number}
            GroupExpansion(self.context, members, group, stored, kept, here).run()

    def commands(self) -> list[Command]:
        """The stream in the best arrangement; `AllocationError` when none fits."""
        self.arrangements.run()
        return commands_of(self.program, find_waits(self.program))


def build(segment: Segment, chip: Chip, plan: Plan | None = None, mb_per_s: float = MB_PER_S, share: float = 0.9) -> Build:
    """Plan and expand a segment."""
    layers = layers_of(segment)
    planner = Planner(chip, mb_per_s, int(chip.lane_bytes * share))
    return Build(segment, layers, plan or planner.grouped(layers, {id(v) for v in segment.outputs}), chip, mb_per_s)


__all__ = ["Build", "CviBackend", "build", "overlap"]
