# SPDX-License-Identifier: Apache-2.0
"""Layer groups: whatever the grouping, the iterations and the weight chunks, the bytes are the interpreter's."""

from __future__ import annotations

import random as random_module
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import GadlError
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.plan.recompute import recompute
from gadl.passes.quant.quantize import Precision
from gadl.targets.base import segments_of
from gadl.targets.npu.attention import Extents
from gadl.targets.npu.backend import NpuBackend
from gadl.targets.npu.bounds import segment_bounds, streaming
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.expand.bands import row_shape
from gadl.targets.npu.in_place import Kind, reads_all, ways_in_place
from gadl.targets.npu.layers import Layer, layers_of
from gadl.targets.npu.machine import PARAMETERS, load_machine
from gadl.targets.npu.planner import Planner
from gadl.targets.npu.rowwise import row_reads
from gadl.targets.npu.space import NpuSpace

from ..graphs import KINDS, grow, network
from .programs import EDGE, float_graph, placed, random, run_segments

LARGE = load_machine("large")


def random_plan(data: st.DataObject, layers: list[Layer]) -> Plan:
    """Cuts, iterations, chunks and what is kept at random; layers that do not run by rows stand alone."""
    costs = Costs(EDGE)
    alone = Planner(costs, EDGE.sram_bytes // 2).plan(layers).groups
    groups: list[GroupPlan] = []
    run: list[Layer] = []

    def close() -> None:
        if run:
            rows = max(shape.rows for layer in run if (shape := row_shape(layer.result)) is not None)
            chosen = tuple(chosen_layer(layer) for layer in run)
            groups.append(GroupPlan(chosen, data.draw(st.integers(1, rows) | st.just(1))))
            run.clear()

    def chosen_layer(layer: Layer) -> LayerPlan:
        plan = LayerPlan(layer.ops, channels=data.draw(st.sampled_from((0, 0, 5, 16))), kept=data.draw(st.booleans()))
        if layer.op.name == "attention":
            one = Extents.of(layer)
            return replace(plan, channels=0, rows=min(data.draw(st.sampled_from((0, 0, 3, 16))), one.rows), depth=min(data.draw(st.sampled_from((0, 0, 5, 9))), one.keys))
        ways = ways_in_place(costs, layer)
        if not ways or data.draw(st.booleans()):
            return plan
        way = data.draw(st.sampled_from(ways))
        each = (plan.channels or 8) if way.streamed else 0 if reads_all(layer) else plan.channels
        return replace(plan, rows=way.block, channels=each, in_place=True)

    for layer, single in zip(layers, alone, strict=True):
        if row_reads(layer) is None:
            close()
            groups.append(single)
            continue
        if data.draw(st.integers(0, 4)) == 0:
            close()
        run.append(layer)
    close()
    return Plan(tuple(groups))


def check(data: st.DataObject, kinds: list[str], height: int, precision: Precision) -> None:
    graph = network(kinds, height)
    feeds = [{"x": np.random.default_rng(i).standard_normal(graph.inputs[0].shape).astype(np.float32)} for i in range(2)]
    made = placed(graph, feeds, precision)
    segments = segments_of(made.ops, made.outputs)
    assume(len(segments) == 1)  # a concat of one tensor leaves nothing to do
    (segment,) = segments
    plan = random_plan(data, layers_of(segment))
    assert Plan.from_json(plan.to_json()) == plan
    run_segments(made, feeds[0], plan=plan)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.integers(5, 24))
def test_any_grouping_gives_the_same_bytes(data: st.DataObject, kinds: list[str], height: int) -> None:
    check(data, kinds, height, Precision.INT8)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), st.integers(5, 16))
def test_any_grouping_with_wide_activations(data: st.DataObject, kinds: list[str], height: int) -> None:
    check(data, kinds, height, Precision.INT16)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.integers(5, 24), st.integers(0, 1 << 30))
def test_any_plan_that_the_tuner_reaches_gives_the_same_bytes(data: st.DataObject, kinds: list[str], height: int, seed: int) -> None:
    """Random moves from the default plan, from a starting point of the tuner, or from a random plan."""
    graph, rng, machine = network(kinds, height), random_module.Random(seed), data.draw(st.sampled_from((EDGE, LARGE)))
    feeds = [{"x": np.random.default_rng(i).standard_normal(graph.inputs[0].shape).astype(np.float32)} for i in range(2)]
    made = placed(graph, feeds, machine=machine)
    assume(segments_of(made.ops, made.outputs))
    (segment,) = segments_of(made.ops, made.outputs)
    space = NpuSpace(machine, segment)
    plan = data.draw(st.sampled_from((space.initial(), *space.candidates(rng), random_plan(data, layers_of(segment)))))
    assert space.legal(plan)
    for _ in range(data.draw(st.integers(1, 12))):
        plan = space.mutate(plan, rng)
        assert space.legal(plan) and space.estimate(plan).cycles > 0
    assert Plan.from_json(plan.to_json()) == plan
    try:
        reports = run_segments(made, feeds[0], machine, plan)
    except GadlError as error:
        assert error.diagnostics[0].code == "GADL-P001"
        return
    assert reports[0][1]["simulated_cycles"] == pytest.approx(reports[0][1]["cycles"])


def test_a_group_touches_memory_only_at_its_ends() -> None:
    """Three convolutions in one group: input, weights and output move once; the relayout behind them moves the output twice more."""
    graph = network(["conv3", "depthwise", "pointwise"], 24)
    feeds = [{"x": np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)}]
    made = placed(graph, feeds)
    (segment,) = segments_of(made.ops, made.outputs)
    *members, relayout = layers_of(segment)
    assert relayout.op.name == "relayout"
    plan = Plan((GroupPlan(tuple(LayerPlan(layer.ops) for layer in members), 6), GroupPlan((LayerPlan(relayout.ops),))))
    ((_, report),) = run_segments(made, feeds[0], plan=plan)
    moved = report["dram_read_bytes"] + report["dram_write_bytes"]
    weights = sum(v.type.size_bytes for layer in members for v in layer.op.inputs if v.is_constant)
    assert weights < moved - segment.inputs[0].type.size_bytes - 3 * segment.outputs[0].type.size_bytes <= weights + 64 * 9 + 3 * 64


def test_layer_by_layer_gives_the_same_bytes_and_moves_more() -> None:
    graph = network(["conv3", "depthwise", "swish", "pool", "skip", "excite", "up", "concat"], 16)
    feeds = [{"x": np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)}]
    made = placed(graph, feeds)
    (segment,) = segments_of(made.ops, made.outputs)
    alone = Plan.from_json(NpuBackend(EDGE).compile(segment, groups=False).plan)
    assert all(len(group.layers) == 1 and not group.layers[0].kept for group in alone.groups)
    moved = []
    for plan in (None, alone):
        ((_, report),) = run_segments(made, feeds[0], plan=plan)
        moved.append(report["dram_read_bytes"] + report["dram_write_bytes"])
    assert moved[0] < moved[1] / 2


@pytest.mark.parametrize("kind", list(Kind))
def test_results_go_over_their_operands(kind: Kind) -> None:
    """One layer after the other with all values on chip: the same bytes in less of it."""
    graph, b, x = float_graph(1, 6, 24, 9)
    rng = np.random.default_rng(0)
    plain = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    x = b("conv", x, random(graph, rng, 64, 6, 1, 1), None, **plain)
    for _ in range(2):
        if kind is Kind.ROWS:
            x = b("conv", x, random(graph, rng, 64, 64, 1, 1), None, **plain)
        elif kind is Kind.CHANNELS:
            x = b("conv", x, random(graph, rng, 64, 1, 3, 3), None, groups=64, strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1))
        else:
            x = grow(graph, b, rng, [x], "excite")
    graph.set_outputs([x])
    feeds = [{"x": rng.standard_normal(graph.inputs[0].shape).astype(np.float32)}]
    made = placed(graph, feeds)
    (segment,) = segments_of(made.ops, made.outputs)
    *members, relayout = layers_of(segment)
    costs, over = Costs(EDGE), 0

    def plan(in_place: bool) -> Plan:
        nonlocal over
        groups = []
        for layer in members:
            ways = [way for way in ways_in_place(costs, layer) if way.kind is kind] if in_place else []
            chosen = LayerPlan(layer.ops, kept=layer is not members[-1])
            over += bool(ways)
            groups.append(GroupPlan((replace(chosen, rows=ways[0].block, channels=8 * ways[0].streamed, in_place=True) if ways else chosen,), 1))
        return Plan((*groups, GroupPlan((LayerPlan(relayout.ops),))))

    least: dict[bool, int] = {}
    for in_place in (False, True):
        for kib in range(64, 8, -2):
            machine = replace(EDGE, values=tuple(kib if p.path == "sram.kib" else v for p, v in zip(PARAMETERS, EDGE.values)))
            try:
                NpuBackend(machine).compile(segment, plan(in_place))
            except GadlError:
                break
            least[in_place], tight = kib, machine
    assert over >= 2 and least[True] <= 0.8 * least[False]
    run_segments(made, feeds[0], tight, plan(True))


def test_what_is_computed_twice_is_necessary_once() -> None:
    graph, b, x = float_graph(1, 6, 24, 24)
    rng = np.random.default_rng(0)
    x = b("conv", x, random(graph, rng, 64, 6, 1, 1), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph.set_outputs([grow(graph, b, rng, [x], "excite")])
    feeds = [{"x": rng.standard_normal(graph.inputs[0].shape).astype(np.float32)}]
    made = placed(graph, feeds)

    def bounds() -> dict[str, object]:
        (segment,) = segments_of(made.ops, made.outputs)
        return segment_bounds(EDGE, layers_of(segment), segment)

    before, count = bounds(), len(made.ops)
    assert recompute(made, replace(streaming(EDGE), capacity=16 << 10)) and len(made.ops) == count + 1
    assert bounds() == before
    run_segments(made, feeds[0])
