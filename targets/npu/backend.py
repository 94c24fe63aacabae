# SPDX-License-Identifier: Apache-2.0
"""The backend: a segment is planned, expanded, allocated, synchronised, encoded and bounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gadl.targets.npu._sim as _sim
from gadl.compiler.diag import GadlError
from gadl.passes.memory.allocate import AllocationError, Reuse, allocate, peak_use
from gadl.passes.plan.plan import LayerPlan, Plan
from gadl.passes.plan.program import Program
from gadl.passes.schedule.double_buffer import double_buffer
from gadl.passes.schedule.synchronize import find_waits
from gadl.targets.base import DeviceProgram, Segment

from .arrange import Arrangements
from .bounds import segment_bounds
from .container import Container
from .cores import CoreArrangements, Way, can_divide, schedule
from .costs import Costs
from .division import EFFORTS, Manner, cut_before, divided_plan, fewer_owners, reduced_rows
from .emit import Emitter
from .expand.attention import AttentionKernel
from .expand.context import ACC, INPUTS, OUTPUTS, SCRATCH, SRAM, Expansion
from .expand.cores import CoreExpansion, DividedExpansion
from .expand.elementwise import ElementwiseExpansion
from .expand.group import GroupExpansion, may_keep
from .expand.matmul import expand_matmul
from .expand.movement import expand_movement
from .expand.pooling import expand_reduction
from .expand.window import WindowExpansion
from .in_place import chains_of
from .layers import Layer, layers_of
from .machine import Machine
from .places import bind, end_of, lay_apart, place_values
from .planner import Planner, Refused
from .profile import describe
from .timeline import Timeline

#: Parts of SRAM that plans are drafted with (what is left takes the gaps between buffers), and whether results may go over
#: operands; the last for small programs, or where none of the others fits.
DRAFTS = ((0.9, False), (0.96, False), (0.9, True), (0.62, False))
#: Longest program of which more than one draft is made, and of which all are.
MOST_STEPS, FEW_STEPS = 12_000, 3_000
#: Small drafts of up to so many times the cycles of the best one are tried in all arrangements.
CLOSE = 1.02
#: What remains of the budget when a layer by itself found no place, and how often planning is tried.
TIGHTER, MOST_ATTEMPTS = 0.8, 12
#: Several cores: bytes of weights that are loaded at a time, and how many rows for each core reductions read that fewer may own.
CHUNKS_BYTES, MOST_ROWS = (192 << 10, 320 << 10), 4
#: How often rows that are computed twice count as if they passed through memory, where values find no room.
ROOM = 4.0
#: How many cycles one of the memory is worth, in drafts of several cores that are so near to the fastest, where LBgeo is the memory's.
FAVOUR, NEAR = 5.0, 1.05
#: Beyond what part of the fastest draft's cycles none with less effort is tried.
FAR = 1.2
#: How often the layers of several cores are cut.
MOST_CUTS = 16
#: Cycles over LBgeo from which a program of several cores is compared with one for one core.
ENOUGH = 2.0


@dataclass(frozen=True)
class NpuBackend:
    """Compiles segments for one machine."""

    machine: Machine

    def compile(self, segment: Segment, plan: Plan | None = None, *, groups: bool = True) -> DeviceProgram:
        """Plan (unless a plan is given), expand and encode; `GADL-P001` when a layer does not fit at all.

        Where a group's buffers find no place, the segment is planned again without that group. Without `groups` every layer
        runs by itself, from memory to memory.
        """
        costs, layers = Costs(self.machine), layers_of(segment)
        if plan is not None:
            try:
                return _Build(segment, layers, plan, costs).finish()
            except AllocationError as error:
                raise self._too_large(layers, error) from error
        planner = Planner(costs, int(self.machine.sram_bytes * DRAFTS[0][0]))
        divided = self._on_cores(segment, layers, planner) if groups else None
        if divided is not None and divided.report["simulated_cycles"] <= ENOUGH * divided.report["lbgeo_cycles"]:
            return divided
        try:
            single = self._on_one_core(segment, layers, planner, groups)
        except GadlError:
            if divided is None:
                raise
            return divided
        both = (single,) if divided is None else (divided, single)
        return min(both, key=lambda made: float(made.report["simulated_cycles"]))

    def _on_cores(self, segment: Segment, layers: list[Layer], planner: Planner) -> DeviceProgram | None:
        """With rows divided among cores, in the best of several ways; None where none fits."""
        if not can_divide(self.machine):
            return None
        made: dict[Plan, _Build] = {}
        drafts: dict[Manner, _Build] = {}
        manner = Manner(CHUNKS_BYTES[0], EFFORTS[0])

        def improves(other: Manner) -> bool:
            nonlocal manner
            build = self._divided(segment, layers, planner, other, made)
            if build is None:
                return False
            better = manner not in drafts or build.least < drafts[manner].least
            drafts[other] = build
            manner = other if better else manner
            return better

        first = improves(manner)
        small = not first or len(drafts[manner].program.steps) <= MOST_STEPS
        if not first or (small and len(drafts[manner].plan.groups) > 1):
            improves(replace(manner, room=ROOM))
        if not drafts:
            return None
        cores, fewer = self.machine.integer("machine.cores"), fewer_owners(self.machine)
        # What reductions read may belong to fewer cores.
        for rows in (n for n in reduced_rows(layers) if small and 1 < n <= MOST_ROWS * cores):
            owners = manner.owners
            if not any([improves(replace(manner, owners=(*owners, (rows, count)))) for count in fewer]):
                break
        for size in CHUNKS_BYTES[1:] if small else ():
            improves(replace(manner, chunk_bytes=size))
        base = manner
        for effort in EFFORTS[1:] if small else ():
            lower = replace(base, effort=effort)
            if not improves(lower) and (lower not in drafts or drafts[lower].least > FAR * drafts[manner].least):
                break
        bounds = segment_bounds(self.machine, layers, segment)
        near = [build for build in drafts.values() if build.least <= NEAR * drafts[manner].least]
        favour = FAVOUR if bounds["dram_cycles"] >= bounds["lbgeo_cycles"] else 0.0
        return min(near, key=lambda build: build.least + favour * build.moved_bytes / bounds["dram_bound_bytes"] * bounds["dram_cycles"]).finish()

    def _divided(
        self, segment: Segment, layers: list[Layer], planner: Planner, manner: Manner, made: dict[Plan, _Build]
    ) -> _Build | None:
        """A draft with rows divided, one of those that are `made` where the plan is theirs.

        Values pass through memory before a layer that found no room on chip. A layer that finds none even so runs on one core.
        """
        returned = {id(v) for v in segment.outputs}
        cuts: set[int] = set()
        alone: set[int] = set()
        #: Cuts before layers that found no room; where one finds none even so, it is cut right before it.
        moved: dict[int, int] = {}
        for _ in range(MOST_CUTS):
            plan = divided_plan(planner, layers, returned, manner, cuts, alone)
            if plan is None:
                return None
            try:
                if plan not in made:
                    build = _Build(segment, layers, plan, planner.costs)
                    build.draft()
                    made[plan] = build
                return made[plan]
            except AllocationError as error:
                if error.op in alone:
                    return None
                op = error.op
                if op in cuts or op == 0:
                    alone.add(op)
                elif op in moved:
                    cuts = cuts - {moved.pop(op)} | {op}
                else:
                    moved[op] = cut_before(layers, op, cuts)
                    cuts = cuts | {moved[op]}
        return None

    def _on_one_core(self, segment: Segment, layers: list[Layer], planner: Planner, groups: bool) -> DeviceProgram:
        costs, returned = planner.costs, {id(v) for v in segment.outputs}
        drafts = self._drafts(segment, layers, costs) if groups else []
        if drafts:
            least = min(build.least for build in drafts)
            close = [build for build in drafts if build.least <= least or (build.least <= CLOSE * least and len(build.program.steps) <= FEW_STEPS)]
            return min(close, key=lambda build: build.arrangements.all()).finish()
        refused: list[Refused] = []
        for _ in range(MOST_ATTEMPTS):
            chosen = planner.grouped(layers, returned, refused) if groups else planner.plan(layers)
            try:
                return _Build(segment, layers, chosen, costs).finish()
            except AllocationError as error:
                problem = error
            if groups and (group := _around(chosen, layers, problem.op))[2]:
                refused.append(group)
            else:
                planner.budget = int(planner.budget * TIGHTER)
        raise self._too_large(layers, problem)

    def _drafts(self, segment: Segment, layers: list[Layer], costs: Costs) -> list[_Build]:
        """Plans for different budgets, each in one arrangement; those that fit."""
        found: dict[Plan, _Build] = {}
        for share, in_place in DRAFTS:
            if (share, in_place) == DRAFTS[-1] and any(len(build.program.steps) > FEW_STEPS for build in found.values()):
                break
            try:
                planner = Planner(costs, int(self.machine.sram_bytes * share), in_place)
                plan = planner.grouped(layers, {id(v) for v in segment.outputs})
                if plan not in found:
                    build = _Build(segment, layers, plan, costs)
                    build.draft()
                    found[plan] = build
                    if len(build.program.steps) > MOST_STEPS:
                        break
            except (AllocationError, GadlError):
                continue
        return list(found.values())

    @staticmethod
    def _too_large(layers: list[Layer], problem: AllocationError) -> GadlError:
        (layer,) = (found for found in layers if found.index == problem.op)
        return GadlError.of("GADL-P001", layer.op.loc, layer=layer.name, memory=problem.memory, needed=problem.needed,
                            capacity=problem.capacity)


class _Build:
    """One plan of a segment, expanded."""

    def __init__(self, segment: Segment, layers: list[Layer], plan: Plan, costs: Costs) -> None:
        self.segment, self.layers, self.plan, self.costs, self.machine = segment, layers, plan, costs, costs.machine
        self.several = max((group.cores for group in plan.groups), default=1) > 1
        self.context = CoreExpansion(costs) if self.several else Expansion(costs, [f"LD{i}" for i in range(self.machine.load_queues)])
        self.inputs, input_bytes = bind(self.context, segment.inputs, INPUTS)
        self.outputs, output_bytes = bind(self.context, segment.outputs, OUTPUTS)
        place_values(self.context, layers, {id(v) for v in segment.outputs})
        _expand(self.context, layers, plan, segment)
        self.program = self.context.program
        if self.several:
            lay_apart(self.program, SCRATCH)
        else:
            allocate(self.program, SCRATCH, 1 << 34, Reuse.LOWEST)
        allocate(self.program, ACC, self.machine.acc_bytes)
        self.regions = {1: input_bytes, 2: output_bytes, 3: end_of(self.program, SCRATCH)}
        self.emitter = Emitter()
        #: Bytes between memory and chip, as last simulated.
        self.moved_bytes = 0
        arrangements = CoreArrangements if self.several else Arrangements
        self.arrangements = arrangements(self.program, self.machine, self._cycles)

    def draft(self) -> None:
        """Try one arrangement; `AllocationError` when none fits."""
        self.arrangements.draft()

    @property
    def least(self) -> float:
        """The least cycles of what was tried."""
        return self.arrangements.least

    def finish(self) -> DeviceProgram:
        """The program in its fastest arrangement; `AllocationError` when none fits."""
        program = self.program
        took = self.arrangements.all()
        way = self.arrangements.way if isinstance(self.arrangements, CoreArrangements) else None
        items = None if way is None else schedule(program, self.machine, way).order[0]
        description = {"machine": self.machine.name} | describe(program, self.layers, self.segment, self.machine, self._estimate(), items)
        container, waits = self._packed(program, description, way)
        bounds = segment_bounds(self.machine, self.layers, self.segment)
        report: dict[str, Any] = {
            **bounds,
            "steps": len(program.steps),
            "waits": waits,
            "code_bytes": sum(map(len, container.cores)),
            "constant_bytes": len(self.context.blob),
            "weights_raw_bytes": self.context.raw_bytes,
            "weights_compressed_bytes": self.context.stored_bytes,
            "sram_peak_bytes": peak_use(program, SRAM),
            "scratch_bytes": self.regions[3],
            "layers": [layer.name for layer in self.layers],
            "simulated_cycles": took,
        }
        debug = tuple((f"{layer.op.name} {layer.name}", str(layer.op.loc)) for layer in self.layers)
        return DeviceProgram(container.to_bytes(), self.plan.to_json(), report, debug)

    def _estimate(self) -> list[float]:
        """What the plan was estimated to take, by group; nothing for several cores, whose plans are not chosen by estimates."""
        if self.several:
            return []
        return Timeline(self.machine, self.costs, self.layers, {id(v) for v in self.segment.outputs}).groups(self.plan)

    def _cycles(self, arranged: Program, way: Way | None = None) -> float:
        container, _ = self._packed(arranged, {}, way)
        found = _sim.simulate(container.to_bytes(), {}, functional=False, races=False)
        self.moved_bytes = int(found["dram_read_bytes"]) + int(found["dram_write_bytes"])
        return float(found["cycles"])

    def _packed(self, program: Program, description: dict[str, Any], way: Way | None = None) -> tuple[Container, int]:
        if way is not None:
            made = schedule(program, self.machine, way)
            codes, count = made.codes(self.emitter), made.waits
        else:
            waits = find_waits(program)
            codes, count = [self.emitter.code(program, waits)], len(waits)
        return Container(self.machine, codes, bytes(self.context.blob), self.regions, self.inputs, self.outputs, description), count


def _around(plan: Plan, layers: list[Layer], op: int) -> Refused:
    """The group that holds a layer: its layers `[first, end)` and its iterations."""
    at = 0
    for group in plan.groups:
        end = at + len(group.layers)
        if any(layer.index == op for layer in layers[at:end]):
            return at, end, group.iterations
        at = end
    raise ValueError(f"the plan has no layer {op}")


def _expand(context: Expansion, layers: list[Layer], plan: Plan, segment: Segment) -> None:
    """Expand every group; a result is stored when somebody reads it who does not find it on chip."""
    returned = {id(v) for v in segment.outputs}
    by_op = {layer.ops[0]: layer for layer in layers}
    by_rows = {id(op) for g in plan.groups if g.iterations and g.cores == 1 for p in g.layers for op in (by_op[p.ops[0]].op, by_op[p.ops[0]].lut)}
    last = {id(v): layer.index for layer in layers for v in layer.op.inputs}
    groups = [([by_op[p.ops[0]] for p in group.layers], group) for group in plan.groups]
    chains = chains_of(context.costs, groups, last)
    for number, (members, group) in enumerate(groups):
        if group.cores > 1 and isinstance(context, CoreExpansion):
            run = {id(op) for layer in members for op in (layer.op, layer.lut)}
            whole = {id(m.result) for m in members if id(m.result) in returned or any(id(u) not in run for u in m.result.users)}
            DividedExpansion(context, members, group.layers, group.cores, whole).run()
            continue
        if group.iterations == 0:
            (layer,), (chosen,) = members, group.layers
            context.op, start = layer.index, len(context.program.steps)
            expand_layer(context, layer, chosen)
            double_buffer(context.program, start, context.queues)
            continue
        inside = {id(op) for layer in members for op in (layer.op, layer.lut)}
        kept = {id(layer.result) for layer, chosen in zip(members, group.layers) if chosen.kept and may_keep(layer.result)}
        stored = {
            id(v) for v in (layer.result for layer in members)
            if id(v) in returned or any(id(user) not in (by_rows if id(v) in kept else inside) for user in v.users)
        }  # fmt: skip
        here = {value: chain for (at, value), chain in chains.items() if at == number}
        GroupExpansion(context, members, group, stored, kept, last, here).run()


def expand_layer(context: Expansion, layer: Layer, plan: LayerPlan) -> None:
    """Expand one layer by its kind, from memory to memory."""
    match layer.op.name:
        case "conv" | "linear":
            WindowExpansion(context, layer, plan).run()
        case "matmul":
            expand_matmul(context, layer, plan)
        case "attention":
            AttentionKernel(context, layer, plan).from_memory()
        case "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min":
            expand_reduction(context, layer)
        case "concat" | "slice" | "pad" | "reshape" | "transpose" | "relayout":
            expand_movement(context, layer)
        case _:
            ElementwiseExpansion(context, layer).run()

