# SPDX-License-Identifier: Apache-2.0
"""Gate V3: the NVDLA primer's ResNet-50 table, compiled and simulated.

What is compared: ResNet-50 v1 (3.86 G MACs) in int8 at batch 1, compiled layer by layer for the preset of each row, the
program run on the event engine; frames per second at 1 GHz from its cycles. Row stripes are the outer loop: a stripe of the
image stays and all kernels stream past it. We assume this of NVDLA's estimate; with the loop order left to the planner the
smallest row is 20 % faster than published (docs/conformance-simulator.md).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gadl.frontends.onnx import import_onnx
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.plan.tiling import Candidates, TileCost, enumerate_tiles, search
from gadl.targets.base import Segment, segments_of
from gadl.targets.npu import _sim
from gadl.targets.npu.backend import NpuBackend
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.layers import Layer, layers_of, window_of
from gadl.targets.npu.machine import Machine, load_machine
from gadl.targets.npu.planner import Planner
from gadl.targets.npu.tiles import WindowTraffic, window_tiles

from ...networks import resnet50
from .programs import placed

#: MACs per cycle and published frames per second.
TABLE = [(2048, 269), (1024, 153), (512, 93), (256, 46), (128, 20), (64, 7.3), (32, 3.6)]


def quantised_segment(stride_in_3x3: bool = False) -> Segment:
    """ResNet-50, quantised and placed: one segment, all of it on the device."""
    graph = import_onnx(resnet50(stride_in_3x3), {}, simplify=True, warn=lambda item: None)
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    # The primer's machine reads what a strided convolution skips.
    made = placed(graph, [{"x": image}], without=["subsample_first"])
    (found,) = segments_of(made.ops, made.outputs)
    assert len(found.ops) == len([op for op in made.ops if op.name not in ("quantize", "dequantize", "relayout")])
    return found


@pytest.fixture(scope="module")
def segment() -> Segment:
    return quantised_segment()


def stripes_outside(costs: Costs, budget: int, layer: Layer, plan: LayerPlan) -> LayerPlan:
    """The best tile with row stripes outside, all input channels at once, and every block of a tile twice in the buffer."""
    window, traffic = window_of(layer.op), WindowTraffic.of(layer)
    every = enumerate_tiles(window.oh, window.oc, costs.machine.integer("mma.shape.1"), [window.ic], ((0, 1), (0, 0)))
    in_rows = np.minimum((every.rows - 1) * window.stride_h + window.kh, window.ih)
    blocks = 2 * (in_rows * window.iw * window.ic + every.rows * window.ow * every.channels * (1 + traffic.residual))
    chunks = np.where(every.resident, -(-window.oc // every.channels), 2)
    held = blocks + chunks * every.channels * (window.kh * window.kw * window.ic + 9)

    def cost(candidates: Candidates) -> TileCost:
        found = window_tiles(costs, window, traffic, layer.op.inputs[0].dtype, candidates)
        return replace(found, sram_bytes=np.maximum(found.sram_bytes, np.where((every.rows < window.oh) | (every.channels < window.oc), held, 0)))

    tile = search(every, cost, budget)
    assert tile is not None
    return replace(plan, rows=tile.rows, channels=tile.channels, order=tile.order, resident=tile.resident, depth=0)


def layer_by_layer(machine: Machine, segment: Segment) -> Plan:
    """Each layer from memory to memory, row stripes outside."""
    costs, budget = Costs(machine), int(0.9 * machine.sram_bytes)
    layers = layers_of(segment)
    groups = Planner(costs, budget).plan(layers).groups
    assert all(len(group.layers) == 1 for group in groups)
    return Plan(
        tuple(
            group if layer.op.name not in ("conv", "linear") else GroupPlan((stripes_outside(costs, budget, layer, group.layers[0]),))
            for layer, group in zip(layers, groups, strict=True)
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(("macs", "published"), TABLE)
def test_frames_per_second_of_the_primer(segment: Segment, macs: int, published: float) -> None:
    machine = load_machine(f"nvdla-{macs}")
    assert np.prod([machine.integer(f"mma.shape.{i}") for i in range(3)]) == macs
    program = NpuBackend(machine).compile(segment, layer_by_layer(machine, segment))
    report = _sim.simulate(program.code, {}, functional=False)
    assert report["macs"] == program.report["macs"] == pytest.approx(3.86e9, rel=1e-3)
    assert report["cycles"] >= program.report["lb0_cycles"]
    assert machine.clock_hz / report["cycles"] == pytest.approx(published, rel=0.15)
