# SPDX-License-Identifier: Apache-2.0
"""Several cores: whatever the network and the division of its rows, the bytes are the interpreter's."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gadl
from gadl.compiler.ir.types import DType
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.passes.quant.quantize import Precision
from gadl.runtime.session import Session
from gadl.targets.base import segments_of
from gadl.targets.npu import _sim
from gadl.targets.npu.backend import NpuBackend
from gadl.targets.npu.container import Container, core_code
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.division import Manner, cut_before, divided_plan
from gadl.targets.npu.expand.cores import divisible
from gadl.targets.npu.instruction import Instruction, decode, encode
from gadl.targets.npu.isa import Queue
from gadl.targets.npu.layers import Layer, layers_of
from gadl.targets.npu.machine import load_machine
from gadl.targets.npu.planner import Planner
from gadl.targets.npu.rowwise import is_reduction, partial_type
from tests.networks import resnet50

from ..graphs import KINDS, network
from .programs import float_graph, placed, random, run_segments

LARGE = load_machine("large")


def divided_at_random(data: st.DataObject, layers: list[Layer]) -> Plan:
    """Runs of layers on all cores or on one, chunks and exchanges at random."""
    alone = Planner(Costs(LARGE), LARGE.sram_bytes // 2).plan(layers).groups
    groups: list[GroupPlan] = []
    run: list[LayerPlan] = []

    def close() -> None:
        if run:
            groups.append(GroupPlan(tuple(run), 1, 4))
            run.clear()

    for layer, single in zip(layers, alone, strict=True):
        if not divisible(layer) or data.draw(st.integers(0, 7)) == 0:
            close()
            groups.append(single)
            continue
        if data.draw(st.integers(0, 5)) == 0:
            close()
        run.append(LayerPlan(
            layer.ops, channels=data.draw(st.sampled_from((0, 0, 5, 16))), exchanged=data.draw(st.booleans()),
            owners=data.draw(st.sampled_from((0, 0, 1, 2, 3, 4))), spread=data.draw(st.booleans()),
        ))  # fmt: skip
    close()
    return Plan(tuple(groups))


def check(kinds: list[str], height: int, precision: Precision, data: st.DataObject | None = None) -> None:
    graph = network(kinds, height)
    feeds = [{"x": np.random.default_rng(i).standard_normal(graph.inputs[0].shape).astype(np.float32)} for i in range(2)]
    made = placed(graph, feeds, precision, LARGE)
    segments = segments_of(made.ops, made.outputs)
    assume(len(segments) == 1)
    plan = None if data is None else divided_at_random(data, layers_of(segments[0]))
    assert plan is None or Plan.from_json(plan.to_json()) == plan
    run_segments(made, feeds[0], LARGE, plan)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.integers(5, 24))
def test_cores_give_the_same_bytes(kinds: list[str], height: int) -> None:
    check(kinds, height, Precision.INT8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.integers(5, 24))
def test_any_division_gives_the_same_bytes(data: st.DataObject, kinds: list[str], height: int) -> None:
    check(kinds, height, Precision.INT8, data)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), st.integers(5, 16))
def test_any_division_with_wide_activations(data: st.DataObject, kinds: list[str], height: int) -> None:
    check(kinds, height, Precision.INT16, data)


@pytest.mark.parametrize(("height", "kind"), [(8, DType.I16), (9, DType.I32)])
def test_partial_results_hold_any_sum(height: int, kind: DType) -> None:
    """Every element is as far from the zero point as it can be."""
    graph, b, x = float_graph(1, 6, height, 16)
    x = b("max_pool", x, kernel=(1, 1), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph.set_outputs([b("reduce_mean", x, axes=(2, 3), keepdims=True)])
    shape = graph.inputs[0].shape
    made = placed(graph, [{"x": np.zeros(shape, np.float32)}, {"x": np.full(shape, 4, np.float32)}], machine=LARGE)
    (segment,) = segments_of(made.ops, made.outputs)
    (layer,) = (found for found in layers_of(segment) if is_reduction(found))
    assert partial_type(layer) is kind
    for owners in (0, 2):
        plans = [LayerPlan(m.ops, exchanged=True, owners=owners) for m in layers_of(segment) if divisible(m)]
        assert len(plans) == len(layers_of(segment))
        run_segments(made, {"x": np.full(shape, 4, np.float32)}, LARGE, Plan((GroupPlan(tuple(plans), 1, 4),)))


def test_a_run_is_cut_where_few_bytes_cross() -> None:
    """Back from where room ran out to a narrow value; not beyond a wide one, nor twice at one place."""
    graph, b, x = float_graph(1, 6, 12, 12)
    rng = np.random.default_rng(0)
    for channels in (64, 8, 96, 32, 16, 64, 80):
        weights = random(graph, rng, channels, x.shape[1], 1, 1)
        x = b("conv", x, weights, None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph.set_outputs([x])
    made = placed(graph, [{"x": rng.standard_normal(graph.inputs[0].shape).astype(np.float32)}], machine=LARGE)
    (segment,) = segments_of(made.ops, made.outputs)
    layers = [layer for layer in layers_of(segment) if layer.op.name == "conv"]
    index = [layer.index for layer in layers]
    assert cut_before(layers, index[6], set()) == index[5]  # 16 channels cross, not 64
    assert cut_before(layers, index[4], set()) == index[4]  # what crosses before is wider
    assert cut_before(layers, index[3], set()) == index[2]  # past 96 channels to 8
    assert cut_before(layers, index[3], {index[2]}) == index[3]


def compiled(kinds: list[str], height: int) -> bytes:
    """A network's program for all cores, which exchange all rows that they can."""
    graph = network(kinds, height)
    feeds = [{"x": np.random.default_rng(i).standard_normal(graph.inputs[0].shape).astype(np.float32)} for i in range(2)]
    made = placed(graph, feeds, machine=LARGE)
    (segment,) = segments_of(made.ops, made.outputs)
    layers = layers_of(segment)
    plan = divided_plan(Planner(Costs(LARGE), LARGE.sram_bytes // 2), layers, {id(v) for v in segment.outputs}, Manner(192 << 10, 1.0))
    assert plan is not None
    passing = Plan(tuple(replace(g, layers=tuple(replace(p, exchanged=True) for p in g.layers)) for g in plan.groups))
    return NpuBackend(LARGE).compile(segment, passing).code


def test_every_core_works_and_posts_that_are_missing_are_found() -> None:
    """Without the posts of any one signal or shared load, the program races or does not end."""
    code = compiled(["conv3", "depthwise", "pointwise", "conv3", "excite", "pointwise"], 24)
    report = _sim.simulate(code, {}, functional=False, trace=True)
    assert set(report["trace"]["core"]) == {0, 1, 2, 3}
    cores = [decode(core_code(code, core)) for core in range(4)]
    senders = [(c, i) for c, items in enumerate(cores) for i, item in enumerate(items) if item.fields.get("multicast")]
    assert len(senders) > 8
    for core, index in senders:
        item = cores[core][index]
        changed = [list(items) for items in cores]
        changed[core][index] = Instruction(item.name, item.queue, item.fields, item.waits, (), item.debug)
        with pytest.raises(_sim.SimError, match="deadlock|race"):
            run(code, changed)


def test_missing_waits_between_cores_are_races() -> None:
    """Loads of exchanged rows and signals: no wait is there in vain."""
    code = compiled(["conv3", "conv3", "pointwise", "conv3"], 20)
    cores = [decode(core_code(code, core)) for core in range(4)]
    found = tried = 0
    for core, items in enumerate(cores):
        for index, item in enumerate(items):
            if not item.waits or item.queue is not Queue.LD0:
                continue
            changed = [list(each) for each in cores]
            changed[core][index] = Instruction(item.name, item.queue, item.fields, (), item.posts, item.debug)
            tried += 1
            try:
                run(code, changed)
            except _sim.SimError as error:
                assert "race" in str(error) or "deadlock" in str(error)
                found += 1
    assert tried >= 8 and found == tried


def run(code: bytes, cores: list[list[Instruction]]) -> None:
    """A program with other code."""
    sizes = dict(enumerate(struct.unpack_from("<8Q", code, 128)))
    constants, size = struct.unpack_from("<QQ", code, 72)
    data = code[constants : constants + size]
    made = Container(LARGE, [encode(items) for items in cores], data, {k: v for k, v in sizes.items() if k}, [], [])
    _sim.simulate(made.to_bytes(), {}, functional=False)


def test_a_whole_network_on_four_cores_gives_what_one_gives(tmp_path: Path) -> None:
    """A small ResNet-50, with the race detector on."""
    model = resnet50(size=64, width=16)
    (given,) = model.graph.input
    sample = {given.name: np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)}
    results = []
    for machine in ("mid", "large"):
        path = tmp_path / f"{machine}.gadl"
        gadl.compile(model, target="npu", machine=machine, calibration=[sample]).save(path)
        results.append(Session(path).run(sample, raw=True))
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])
