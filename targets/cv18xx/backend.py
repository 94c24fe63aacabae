# SPDX-License-Identifier: Apache-2.0
"""The backend: a segment is planned, expanded, allocated, synchronised, encoded and put into the vendor's container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gadl.compiler.diag import GadlError
from gadl.passes.memory.allocate import AllocationError, Reuse, allocate, peak_use
from gadl.passes.plan.cuts import Uncovered
from gadl.passes.plan.plan import Plan
from gadl.passes.schedule.double_buffer import double_buffer
from gadl.passes.schedule.synchronize import find_waits
from gadl.targets.base import DeviceProgram, Segment
from gadl.targets.profile import BufferFacts

from .arrange import Arrangements
from .bounds import layer_facts, least_of, segment_bounds
from .chip import Chip
from .cost import MB_PER_S, overlap, serial_us, tdma_bytes
from .cvimodel import Port, place_ports
from .cvimodel import build as build_model
from .descriptor import Command
from .emit import MOST_COMMANDS, commands_of, stream_of
from .expand.context import LOCAL, SCRATCH, TDMA, TIU, Expansion
from .expand.group import GroupExpansion
from .expand.lone import expand_movement
from .expand.product import expand_product
from .expand.resize import Magnified, is_magnified
from .expand.tiled import TiledConvolution
from .in_place import chains_of
from .isa import Engine
from .layer_costs import LayerCosts
from .layers import PRODUCTS, Layer, layers_of
from .places import bind, place_values
from .planner import Planner
from .profile import DESCRIPTION, pack

#: Parts of a lane that plans are drafted with, and what a byte of traffic costs beside its time.
DRAFTS = ((0.9, 0.25), (1.0, 0.25), (0.95, 0.25), (0.85, 0.5), (0.75, 0.5), (0.6, 0.5), (0.45, 0.5))
#: The same for plans layer by layer, of which one will do.
LONE = ((0.9, 0.25), (0.6, 0.25), (0.4, 0.25), (0.25, 0.25))
#: Longest program of which all drafts are made; of longer ones the first that fits, and of very long ones another one.
MOST_STEPS, VERY_LONG, LONG = 6000, 20_000, ((0.95, 0.1),)
#: How much slower than the fastest draft one may be that takes less time without overlap.
SLOWER = 1.06


@dataclass(frozen=True)
class CviBackend:
    """Compiles segments for one chip. `mb_per_s` is the bandwidth of DDR that plans are made for."""

    chip: Chip
    mb_per_s: float = MB_PER_S

    def compile(self, segment: Segment, plan: Plan | None = None, *, groups: bool = True) -> DeviceProgram:
        """Plan (unless a plan is given), expand and encode; without `groups` layer by layer, from memory to memory.

        Of several drafts, the one that the vendor's estimator likes best among the nearly fastest. `GADL-P001` when a layer does not fit at all.
        """
        layers = layers_of(segment)
        if plan is not None:
            build = Build(segment, layers, plan, self.chip, self.mb_per_s)
            try:
                build.arrangements.draft()
            except AllocationError as error:
                raise self.too_large(layers, error) from error
            return build.finish()
        costs = LayerCosts(self.chip, self.mb_per_s, layers)
        drafts, problem = self._drafts(segment, costs, DRAFTS if groups else LONE, groups)
        if groups and drafts and len(drafts[-1].program.steps) > VERY_LONG:
            drafts += self._drafts(segment, costs, LONG, groups)[0]
        if not drafts and groups:
            # No group finds a place: layer by layer they ask for least.
            drafts, _ = self._drafts(segment, costs, LONE, False)
        if not drafts:
            raise self.too_large(layers, problem)
        least = min(draft.arrangements.least for draft in drafts)
        near = [draft for draft in drafts if draft.arrangements.least <= SLOWER * least]
        # What is hidden behind computation here is not where memory is slower: the estimator that adds up decides.
        return min(near, key=lambda draft: draft.serial_us).finish()

    def _drafts(
        self, segment: Segment, costs: LayerCosts, settings: Sequence[tuple[float, float]], groups: bool
    ) -> tuple[list[Build], AllocationError | None]:
        """Plans by several settings, each in one arrangement: those that fit, and what one that does not is short of."""
        drafts: list[Build] = []
        problem: AllocationError | None = None
        plans: set[Plan] = set()
        for share, price in settings:
            budget = int(self.chip.lane_bytes * share)
            try:
                chosen = Planner(costs, self.mb_per_s, budget, price).plan(segment, groups)
            except Uncovered as error:
                problem = problem or AllocationError(LOCAL, budget + 1, budget, error.layer)
                continue
            if chosen in plans:
                continue
            plans.add(chosen)
            draft = Build(segment, costs.layers, chosen, self.chip, self.mb_per_s)
            try:
                draft.arrangements.draft()
            except AllocationError as error:
                problem = error
                continue
            drafts.append(draft)
            if not groups or len(draft.program.steps) > MOST_STEPS:
                break
        return drafts, problem

    @staticmethod
    def too_large(layers: list[Layer], problem: AllocationError | None) -> GadlError:
        """The error of a layer that finds no place."""
        if problem is None:
            raise ValueError("there was no draft")
        layer = layers[problem.op]
        return GadlError.of("GADL-P001", layer.op.loc, layer=layer.name, memory="local", needed=problem.needed, capacity=problem.capacity)


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
                self.context.op, start = layer.index, len(self.context.program.steps)
                if layer.op.name in ("conv", "conv_transpose"):
                    TiledConvolution(self.context, layer, group.layers[0]).run()
                    double_buffer(self.context.program, start, (TDMA,))
                elif is_magnified(layer.op):
                    Magnified(self.context, layer, group.layers[0]).run()
                else:
                    (expand_product if layer.op.name in PRODUCTS else expand_movement)(self.context, layer)
                continue
            inside = {id(m.op) for m in members}
            kept = {id(m.result) for m, p in zip(members, group.layers) if p.kept}
            stored = {
                id(m.result) for m in members
                if id(m.result) in returned or any(id(user) not in (by_rows if id(m.result) in kept else inside) for user in m.result.users)
            }  # fmt: skip
            here = {value: chain for (at, value), chain in chains.items() if at == number}
            GroupExpansion(self.context, members, group, stored, kept, here).run()

    @cached_property
    def commands(self) -> list[Command]:
        """The stream in its best arrangement; `AllocationError` when none fits."""
        self.arrangements.all()
        count = max(sum(step.engine == engine for step in self.program.steps) for engine in (TIU, TDMA))
        if count > MOST_COMMANDS:
            raise GadlError.of("GADL-P005", count=count, most=MOST_COMMANDS)
        return commands_of(self.program, find_waits(self.program))

    @cached_property
    def overlap_us(self) -> float:
        """Time of the overlap model."""
        return overlap(self.commands, self.chip, self.mb_per_s).total_us

    @cached_property
    def serial_us(self) -> float:
        """Time of the vendor's estimator, which no arrangement changes."""
        return serial_us(commands_of(self.program, ()), self.chip)

    @cached_property
    def ddr_bytes(self) -> int:
        """Bytes that transfers ask for."""
        return sum(tdma_bytes(c.fields).useful for c in self.commands if c.engine is Engine.TDMA)

    def finish(self) -> DeviceProgram:
        """The container and what is known about it."""
        commands, program = self.commands, self.program
        rate = self.mb_per_s / self.chip.mhz
        least = least_of(self.layers, self.segment, self.chip)
        spans = program.lifetimes()
        buffers = [
            BufferFacts(b.name, b.address, b.size, *spans[id(b)])
            for b in program.buffers if b.memory == LOCAL and b.address is not None and id(b) in spans
        ]  # fmt: skip
        description = pack(layer_facts(least, self.layers, rate), buffers)
        ports = [Port(v.name, tuple(v.shape), 1.0 if v.quant is None else v.quant.scale[0]) for v in (*self.segment.inputs, *self.segment.outputs)]
        count = len(self.segment.inputs)
        inputs, outputs, private = place_ports(ports[:count], ports[count:], 0)
        for port, binding in zip((*inputs, *outputs), self.bindings, strict=True):
            if (f"ddr{port.region}", port.address) != (binding.buffer.memory, binding.buffer.address):
                raise ValueError(f"'{port.name}' lies elsewhere than in the container")
        streams = [stream_of(commands, self.chip)]
        model = build_model(
            self.chip, "gadl", bytes(self.context.blob), streams, inputs, outputs, shared_bytes=_end(program, SCRATCH), private_bytes=private,
            extra={DESCRIPTION: description},
        )  # fmt: skip
        report: dict[str, Any] = {
            **segment_bounds(least, self.layers, rate),
            "steps": len(program.steps),
            "constant_bytes": len(self.context.blob),
            "weights_raw_bytes": len(self.context.blob),
            "weights_compressed_bytes": len(self.context.blob),
            "sram_peak_bytes": peak_use(program, LOCAL) * self.chip.lanes,
            "scratch_bytes": _end(program, SCRATCH),
            "layers": [layer.name for layer in self.layers],
            "estimated_cycles": self.overlap_us * self.chip.mhz,
            "estimated_dram_bytes": self.ddr_bytes,
            "serial_us": self.serial_us,
        }
        debug = tuple((f"{layer.op.name} {layer.name}", str(layer.op.loc)) for layer in self.layers)
        return DeviceProgram(model.encode(), self.plan.to_json(), report, debug)


def _end(program: Any, memory: str) -> int:
    """Bytes of a memory up to the end of the last buffer."""
    return max((b.address + b.size for b in program.buffers if b.memory == memory and b.address is not None), default=0)


