# SPDX-License-Identifier: Apache-2.0
"""The first plan of a segment: layer by layer, each with its best tile by the analytic cost."""

from __future__ import annotations

from dataclasses import replace

from gadl.compiler.diag import GadlError
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.plan.tiling import Tile, enumerate_tiles, even_splits, search

from .costs import Costs, WindowTraffic
from .expand.matmul import matmul_window
from .expand.transposed import phase_windows
from .layers import Layer, Window, window_of


class Planner:
    """Plans layers within `budget` bytes of SRAM."""

    def __init__(self, costs: Costs, budget: int) -> None:
        self.costs, self.budget = costs, budget

    def plan(self, layers: list[Layer]) -> Plan:
        """One group per layer; `GADL-P001` when a layer's smallest tile does not fit."""
        return Plan(tuple(GroupPlan((self._layer(layer),)) for layer in layers))

    def _layer(self, layer: Layer) -> LayerPlan:
        plan = LayerPlan(layer.ops)
        match layer.op.name:
            case "conv" | "linear":
                return self._from_tile(plan, self._window(layer, window_of(layer.op)))
            case "conv_transpose":
                windows = [w for _, _, w in phase_windows(layer)]
                largest = max(windows, key=lambda w: (w.oh * w.ow, w.kh * w.kw))
                return self._from_tile(plan, self._window(layer, largest))
            case "matmul":
                return replace(plan, rows=self._matmul_rows(layer))
            case "max_pool" | "avg_pool":
                window = window_of(layer.op)
                return replace(plan, rows=self._pool_rows(layer, window))
            case "resize":
                return replace(plan, rows=self._resize_rows(layer))
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

    def _pool_rows(self, layer: Layer, window: Window) -> int:
        element = layer.result.dtype.size_bytes
        sizes = []
        for rows in even_splits(window.oh):
            reach = min((rows - 1) * window.stride_h + (window.kh - 1) * window.dilation_h + 1, window.ih)
            sizes.append((reach * window.iw + rows * window.ow) * window.ic * element)
        return self._rows(layer, window.oh, sizes)

    def _resize_rows(self, layer: Layer) -> int:
        x, y = layer.op.inputs[0], layer.result
        element, scale = x.dtype.size_bytes, x.shape[2] / y.shape[2]
        sizes = [
            int(((r * scale + 3) * x.shape[3] + r * y.shape[3]) * x.shape[1] * element) for r in even_splits(y.shape[2])
        ]
        return self._rows(layer, y.shape[2], sizes)

    def _matmul_rows(self, layer: Layer) -> int:
        window = matmul_window(layer)
        element, out = layer.op.inputs[0].dtype.size_bytes, layer.result.dtype.size_bytes
        sizes = [(r + window.oc) * window.ic * element + r * window.oc * out for r in even_splits(window.oh)]
        return self._rows(layer, window.oh, sizes)
