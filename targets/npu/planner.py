# SPDX-License-Identifier: Apache-2.0
"""Plans of a segment: groups of layers by estimated cost, and layers by themselves with their best tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gadl.compiler.diag import GadlError
from gadl.passes.plan.cuts import Cut, CutSearch, Memory
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.tiling import Tile, depths, enumerate_tiles, even_splits, search

from .attention import Extents, memory_tile
from .bounds import channels_of
from .compression import packed_part
from .costs import Costs
from .expand.bands import row_shape
from .expand.matmul import matmul_window
from .expand.normalise import OVER_LAST_AXIS
from .grouping import CHUNK_BYTES, GroupCosts, chunk_channels
from .in_place import reads_all
from .layers import Layer, Window, window_of
from .rowwise import band_bytes, row_layers, weight_bytes
from .tiles import BYTE_WEIGHT, WindowTraffic, splits_depth, tile_orders, window_tiles

#: A group of layers `[first, end)` and its number of iterations.
Refused = tuple[int, int, int]


class Planner:
    """Plans the layers of a segment. `budget` is the SRAM in bytes that a layer by itself, or a group, may use; `in_place`: results
    may go over operands.
    """

    def __init__(self, costs: Costs, budget: int, in_place: bool = False) -> None:
        self.costs, self.budget, self.in_place = costs, budget, in_place

    def plan(self, layers: list[Layer]) -> Plan:
        """Layer by layer; `GADL-P001` when a layer's smallest tile does not fit."""
        return Plan(tuple(self._alone(layer) for layer in layers))

    def grouped(self, layers: list[Layer], returned: set[int], refused: Sequence[Refused] = ()) -> Plan:
        """Groups of least estimated time; layers that do not run by rows, or fit no group, stand alone.

        `returned` are the values (by `id`) that somebody outside reads, `refused` the groups that found no place before.
        """
        costs = GroupCosts(self.costs, layers, returned, self.budget, self.in_place)
        machine = self.costs.machine
        memory = Memory(
            self.budget, machine["dram.bytes_per_cycle"] * machine["dram.eff"], machine["dma.issue"] + machine["dram.latency_rd"],
            machine.load_queues, packed_part(machine, layers),
        )  # fmt: skip
        search = CutSearch(costs.ways, memory, costs.last_reader, costs.sizes, [weight_bytes(layer) for layer in layers])
        for group in refused:
            costs.refuse(*group)
        while True:
            cuts = search.run()
            large = list(self._too_tight(costs, cuts))
            if not large:
                return Plan(tuple(self._group(costs, layers[c.first : c.end], c) for c in cuts))
            for cut in large:
                costs.refuse(cut.first, cut.end, cut.parts)

    def _too_tight(self, costs: GroupCosts, cuts: list[Cut]) -> Iterator[Cut]:
        """Groups that take more than the budget beside what is kept through them."""
        kept: set[int] = set()
        for cut in cuts:
            kept = {v for v in kept if costs.last_reader[v] >= cut.first}
            if cut.parts > 1:
                need = costs.need(cut.first, cut.end, cut.parts, cut.kept, kept)
                if need + sum(costs.sizes[v] for v in kept) > self.budget:
                    yield cut
            kept |= cut.kept

    def _group(self, costs: GroupCosts, members: list[Layer], cut: Cut) -> GroupPlan:
        if cut.parts == 0:
            return self._alone(members[0])
        unit = self.costs.machine.integer("mma.shape.1")
        # Dense weights of several iterations come in as many parts as it takes to load at the full rate.
        parts = 0 if cut.parts == 1 else self.costs.channels_for_full_rate
        plans = []
        for member in members:
            channels, rows = chunk_channels(member, unit, parts and max(parts, -(-weight_bytes(member) // CHUNK_BYTES))), 0
            if cut.over is not None:
                rows = cut.over.block
                channels = (channels or channels_of(member)) if cut.over.streamed else 0 if reads_all(member) else channels
            plans.append(LayerPlan(member.ops, rows, channels, kept=id(member.result) in cut.kept, in_place=cut.over is not None))
        return GroupPlan(tuple(plans), cut.parts)

    def _alone(self, layer: Layer) -> GroupPlan:
        if layer.op.name not in ("conv_transpose", "max_pool", "avg_pool", "resize", *OVER_LAST_AXIS):
            return GroupPlan((self._layer(layer),))
        return self._rowwise(layer)

    def _rowwise(self, layer: Layer) -> GroupPlan:
        """The fewest iterations that fit; at least four where the layer has that many rows."""
        found = row_layers([layer])
        shape = row_shape(layer.result)
        if found is None or shape is None:
            raise ValueError(f"'{layer.op.name}' does not run by rows")
        needed = 0
        for iterations in (n for n in range(min(4, shape.rows), shape.rows + 1)):
            flow = RowFlow(*found, iterations)
            needed = band_bytes(self.costs, [layer], flow, {id(layer.result)}) + weight_bytes(layer)
            if needed <= self.budget:
                return GroupPlan((LayerPlan(layer.ops),), iterations)
        raise self._too_large(layer, needed)

    def _layer(self, layer: Layer) -> LayerPlan:
        plan = LayerPlan(layer.ops)
        match layer.op.name:
            case "conv" | "linear":
                window = window_of(layer.op)
                tile = self._window(layer, window)
                depth = tile.depth if tile.depth < window.ic else 0
                return replace(plan, rows=tile.rows, channels=tile.channels, depth=depth, order=tile.order, resident=tile.resident)
            case "matmul":
                return replace(plan, rows=self._matmul_rows(layer))
            case "attention":
                part = memory_tile(self.costs, layer, self.budget)
                if part is None:
                    raise self._too_large(layer, 2 * self.budget)
                return replace(plan, rows=part.rows, depth=part.keys % Extents.of(layer).keys, resident=part.resident)
            case _:
                return plan

    def _window(self, layer: Layer, window: Window) -> Tile:
        traffic, dtype, machine = WindowTraffic.of(layer), layer.op.inputs[0].dtype, self.costs.machine
        parts = depths(window.ic, machine.integer("mma.shape.2")) if splits_depth(window, dtype) else [window.ic]
        candidates = enumerate_tiles(window.oh, window.oc, machine.integer("mma.shape.1"), parts, tile_orders(window))
        byte_cycles = BYTE_WEIGHT / (machine["dram.bytes_per_cycle"] * machine["dram.eff"])
        tile = search(candidates, lambda c: window_tiles(self.costs, window, traffic, dtype, c), self.budget, byte_cycles)
        if tile is None:
            raise self._too_large(layer, int(window_tiles(self.costs, window, traffic, dtype, candidates).sram_bytes.min()))
        return tile

    def _too_large(self, layer: Layer, needed: int) -> GadlError:
        return GadlError.of("GADL-P001", layer.op.loc, layer=layer.name, memory="SRAM", needed=needed, capacity=self.budget)

    def _rows(self, layer: Layer, rows: int, bytes_of: list[int]) -> int:
        """The largest row count whose tile fits twice; at least four tiles where the layer has that many rows."""
        fitting = [r for r, size in zip(even_splits(rows), bytes_of) if 2 * size + 16384 <= self.budget]
        if not fitting:
            raise self._too_large(layer, 2 * min(bytes_of) + 16384)
        return min(fitting[0], max(fitting[-1], -(-rows // 4)))

    def _matmul_rows(self, layer: Layer) -> int:
        window = matmul_window(layer)
        element, out = layer.op.inputs[0].dtype.size_bytes, layer.result.dtype.size_bytes
        sizes = [(r + window.oc) * window.ic * element + r * window.oc * out for r in even_splits(window.oh)]
        return self._rows(layer, window.oh, sizes)
