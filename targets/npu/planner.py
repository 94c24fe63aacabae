# SPDX-License-Identifier: Apache-2.0
"""The first plan of a segment: layer by layer, each with its best tile by the analytic cost."""

from __future__ import annotations

from dataclasses import replace

from gadl.compiler.diag import GadlError
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.tiling import Tile, enumerate_tiles, even_splits, search

from .costs import Costs, WindowTraffic
from .expand.bands import row_shape
from .expand.matmul import matmul_window
from .layers import Layer, Window, window_of
from .rowwise import band_bytes, row_layers, weight_bytes


class Planner:
    """Plans layers within `budget` bytes of SRAM."""

    def __init__(self, costs: Costs, budget: int) -> None:
        self.costs, self.budget = costs, budget

    def plan(self, layers: list[Layer]) -> Plan:
        """One group per layer; `GADL-P001` when a layer's smallest tile does not fit."""
        return Plan(tuple(self._alone(layer) for layer in layers))

    def _alone(self, layer: Layer) -> GroupPlan:
        if layer.op.name not in ("conv_transpose", "max_pool", "avg_pool", "resize"):
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
            flow = RowFlow(found[0], found[1], {id(layer.result)}, iterations)
            needed = band_bytes([layer], flow, {id(layer.result)}) + weight_bytes(layer)
            if needed <= self.budget:
                return GroupPlan((LayerPlan(layer.ops),), iterations)
        raise self._too_large(layer, needed)

    def _layer(self, layer: Layer) -> LayerPlan:
        plan = LayerPlan(layer.ops)
        match layer.op.name:
            case "conv" | "linear":
                return self._from_tile(plan, self._window(layer, window_of(layer.op)))
            case "matmul":
                return replace(plan, rows=self._matmul_rows(layer))
            case _:
                return plan

    @staticmethod
    def _from_tile(plan: LayerPlan, tile: Tile) -> LayerPlan:
        return replace(plan, rows=tile.rows, channels=tile.channels, order=tile.order, weights_resident=tile.resident)

    def _window(self, layer: Layer, window: Window) -> Tile:
        op = layer.op
        residual = op.operand(3)
        traffic = WindowTraffic(
            op.inputs[0].dtype.size_bytes,
            op.inputs[1].dtype.size_bytes,
            layer.result.dtype.size_bytes,
            0 if residual is None else residual.dtype.size_bytes,
        )
        unit = self.costs.machine.integer("mma.shape.1")
        candidates = enumerate_tiles(window.oh, window.oc, unit, True)
        dtype = op.inputs[0].dtype
        tile = search(candidates, lambda c: self.costs.window_tiles(window, traffic, dtype, c), self.budget)
        if tile is None:
            costs = self.costs.window_tiles(window, traffic, dtype, candidates)
            raise self._too_large(layer, int(costs.sram_bytes.min()))
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
