# SPDX-License-Identifier: Apache-2.0
"""Tiles of lone layers: any tile gives the interpreter's bytes, races excluded; what is chosen is among the fastest."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.passes.plan.tiling import depths, enumerate_tiles
from gadl.passes.quant.quantize import Precision
from gadl.targets.base import Segment, segments_of
from gadl.targets.npu import _sim
from gadl.targets.npu.backend import NpuBackend
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.layers import Layer, layers_of, window_of
from gadl.targets.npu.machine import Machine, load_machine
from gadl.targets.npu.planner import Planner
from gadl.targets.npu.space import NpuSpace
from gadl.targets.npu.tiles import WindowTraffic, splits_depth, tile_orders, window_tiles

from .programs import EDGE, float_graph, placed, random, run_segments

Build = Callable[[np.random.Generator], Graph]


def convolution(shape: tuple[int, ...], oc: int, kernel: tuple[int, int], **attrs: object) -> Build:
    def build(rng: np.random.Generator) -> Graph:
        graph, b, x = float_graph(*shape)
        window = {"strides": (1, 1), "pads": (kernel[0] // 2, kernel[1] // 2) * 2, "dilations": (1, 1)}
        graph.set_outputs([b("conv", x, random(graph, rng, oc, shape[1], *kernel), random(graph, rng, oc), **{**window, **attrs})])
        return graph

    return build


def dense(rows: int, ic: int, oc: int) -> Build:
    def build(rng: np.random.Generator) -> Graph:
        graph, b, x = float_graph(rows, ic)
        graph.set_outputs([b("linear", x, random(graph, rng, oc, ic), random(graph, rng, oc))])
        return graph

    return build


def residual(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 37, 9, 7)
    y = b("conv", x, random(graph, rng, 37, 37, 1, 1), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph.set_outputs([b("relu", b("add", y, x))])
    return graph


#: A layer, and rows, output channels and input channels of its tiles.
CASES: dict[str, tuple[Build, int, int, int]] = {
    "odd": (convolution((1, 37, 11, 9), 21, (3, 3)), 4, 16, 16),
    "strided": (convolution((1, 35, 13, 10), 19, (3, 3), strides=(2, 2), pads=(0, 1, 1, 0)), 2, 7, 9),
    "skipping": (convolution((1, 40, 13, 13), 24, (1, 1), strides=(3, 3)), 2, 24, 13),
    "dilated": (convolution((1, 33, 12, 10), 18, (3, 3), dilations=(2, 2), pads=(2, 2, 2, 2)), 5, 18, 11),
    "padding_only": (convolution((1, 20, 3, 3), 9, (3, 3), pads=(4, 4, 4, 4)), 1, 9, 7),
    "tall": (convolution((1, 50, 16, 1), 30, (5, 1)), 3, 16, 32),
    "images": (convolution((3, 40, 6, 5), 17, (1, 1)), 2, 16, 16),
    "dense": (dense(5, 75, 33), 2, 16, 32),
    "residual": (residual, 2, 16, 16),
}


def quantised(case: str, precision: Precision, machine: Machine = EDGE) -> tuple[Graph, dict[str, np.ndarray]]:
    """A layer as the target takes it, and something to run it on."""
    graph = CASES[case][0](np.random.default_rng(0))
    feeds = [{"x": np.random.default_rng(i).standard_normal(graph.inputs[0].shape).astype(np.float32)} for i in range(2)]
    return placed(graph, feeds, precision, machine), feeds[0]


def alone(graph: Graph) -> tuple[Segment, Layer]:
    """The product of a graph as a segment of its own."""
    (op,) = (op for op in graph.ops if op.name in ("conv", "linear"))
    (segment,) = segments_of([op], [op.result])
    (layer,) = layers_of(segment)
    return segment, layer


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16, Precision.FP16])
@pytest.mark.parametrize("case", CASES)
def test_parts_of_input_channels_change_no_byte(case: str, precision: Precision) -> None:
    made, feed = quantised(case, precision)
    (segment,) = segments_of(made.ops, made.outputs)
    _, rows, channels, depth = CASES[case]
    layers = {layer.ops: layer for layer in layers_of(segment)}
    base = Planner(Costs(EDGE), EDGE.sram_bytes // 2).plan(list(layers.values()))
    for order, resident in itertools.product(LoopOrder, (True, False)):
        groups = []
        for group in base.groups:
            (plan,) = group.layers
            op = layers[plan.ops].op
            if op.name in ("conv", "linear"):
                window = window_of(op)
                deep = depth if splits_depth(window, op.inputs[0].dtype) else 0
                plan = replace(plan, rows=rows, channels=channels, depth=deep, order=order, resident=resident)
            groups.append(replace(group, layers=(plan,)))
        chosen = Plan(tuple(groups))
        assert NpuSpace(EDGE, segment).legal(chosen)
        assert Plan.from_json(chosen.to_json()) == chosen
        ((_, report),) = run_segments(made, feed, plan=chosen)
        assert report["macs"] == window.macs


def test_sums_of_floats_keep_their_order() -> None:
    segment, layer = alone(quantised("odd", Precision.FP16)[0])
    space = NpuSpace(EDGE, segment)
    whole, split = (Plan((GroupPlan((LayerPlan(layer.ops, rows=4, channels=16, depth=depth),)),)) for depth in (0, 16))
    assert space.legal(whole)
    assert not space.legal(split)


def test_a_plan_of_an_older_log_is_read() -> None:
    text = '{"groups":[{"iterations":0,"layers":[{"channels":16,"kept":false,"ops":[0],"order":"rows","rows":4,"weights_resident":false}]}]}'
    assert Plan.from_json(text) == Plan((GroupPlan((LayerPlan((0,), rows=4, channels=16, resident=False),)),))


def with_sram(tmp_path: Path, kib: int) -> Machine:
    text = (Path(load_machine.__code__.co_filename).parent / "machines" / "edge.toml").read_text().replace("kib = 512", f"kib = {kib}")
    (tmp_path / "small.toml").write_text(text)
    return load_machine(tmp_path / "small.toml")


@pytest.mark.parametrize("build", [dense(1, 640, 128), convolution((1, 512, 6, 14), 40, (3, 3))], ids=["dense", "conv"])
def test_a_layer_whose_input_channels_do_not_fit_at_once(build: Build, tmp_path: Path) -> None:
    machine = with_sram(tmp_path, 14)
    graph = build(np.random.default_rng(0))
    feed = {"x": np.random.default_rng(1).standard_normal(graph.inputs[0].shape).astype(np.float32)}
    made = placed(graph, [feed], machine=machine)
    _, layer = alone(made)
    # Neither the weights of one block of channels nor the rows of one line fit twice.
    window, unit = window_of(layer.op), machine.integer("mma.shape.1")
    assert machine.sram_bytes < 2 * min(unit * window.kh * window.kw * window.ic, window.kh * window.iw * window.ic) or window.oh == 1
    plan = Planner(Costs(machine), int(0.9 * machine.sram_bytes)).plan([layer]).groups[0].layers[0]
    assert 0 < plan.depth < window.ic
    (found,) = run_segments(made, feed, machine)
    assert found[1]["sram_peak_bytes"] <= machine.sram_bytes


@pytest.mark.parametrize("machine", ["edge", "mid"])
@pytest.mark.parametrize(
    "build",
    [convolution((1, 256, 14, 14), 256, (1, 1)), convolution((1, 64, 28, 28), 96, (3, 3)), convolution((2, 96, 28, 28), 64, (1, 1)), dense(60, 120, 360)],
    ids=["pointwise", "conv", "images", "dense"],
)
def test_the_chosen_tile_is_among_the_fastest(build: Build, machine: str) -> None:
    """Beside a sample of all tiles that fit, simulated: how near the choice is, and how well cycles and bytes are known."""
    found = load_machine(machine)
    graph = build(np.random.default_rng(0))
    feed = {"x": np.random.default_rng(1).standard_normal(graph.inputs[0].shape).astype(np.float32)}
    segment, layer = alone(placed(graph, [feed], machine=found))
    window, backend, budget = window_of(layer.op), NpuBackend(found), int(0.9 * found.sram_bytes)
    every = enumerate_tiles(
        window.oh, window.oc, found.integer("mma.shape.1"), depths(window.ic, found.integer("mma.shape.2")), tile_orders(window)
    )
    cost = window_tiles(Costs(found), window, WindowTraffic.of(layer), layer.op.inputs[0].dtype, every)

    def run(plan: LayerPlan) -> tuple[float, float]:
        ran = _sim.simulate(backend.compile(segment, Plan((GroupPlan((plan,)),))).code, {}, functional=False)
        return ran["cycles"], ran["dram_burst_bytes"]

    sample = np.random.default_rng(2).choice(np.flatnonzero(cost.sram_bytes <= budget), 12, replace=False)
    ran = np.array([
        run(LayerPlan(
            layer.ops, int(every.rows[i]), int(every.channels[i]), LoopOrder.CHANNELS if every.channels_outside[i] else LoopOrder.ROWS,
            bool(every.resident[i]), int(every.depth[i]) % window.ic,
        ))
        for i in sample
    ])  # fmt: skip
    cycles, _ = run(Planner(Costs(found), budget).plan([layer]).groups[0].layers[0])
    assert cycles <= 1.15 * ran[:, 0].min()
    assert np.median(np.abs(cost.cycles[sample] / ran[:, 0] - 1)) < 0.1
    np.testing.assert_allclose(cost.dram_bytes[sample], ran[:, 1], rtol=0.2)
