# SPDX-License-Identifier: Apache-2.0
"""Estimates of plans before they are expanded."""

from __future__ import annotations

import numpy as np
import pytest

from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.targets.base import Segment, segments_of
from gadl.targets.npu.backend import NpuBackend
from gadl.targets.npu.compression import packed_part
from gadl.targets.npu.layers import layers_of
from gadl.targets.npu.machine import load_machine
from gadl.targets.npu.profile import profile
from gadl.targets.npu.rowwise import weight_bytes
from gadl.targets.npu.space import NpuSpace
from gadl.targets.npu.timeline import Timeline

from .programs import EDGE, float_graph, placed, random

RATE, LATENCY = 8 * 0.8, 16 + 120


def two_convolutions() -> Segment:
    """64 to 64 channels twice, on 16 x 16 pixels."""
    rng = np.random.default_rng(0)
    graph, b, x = float_graph(1, 64, 16, 16)
    window = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    y = b("conv", x, random(graph, rng, 64, 64, 1, 1), None, **window)
    graph.outputs = (b("conv", y, random(graph, rng, 64, 64, 1, 1), None, **window),)
    made = placed(graph, [{"x": rng.standard_normal((1, 64, 16, 16)).astype(np.float32)}])
    (segment,) = segments_of(made.ops, made.outputs)
    return segment


def test_groups_take_what_the_rule_says() -> None:
    """By hand: the first waits for its operand and weights; those of the second come meanwhile, and its operand is there."""
    segment = two_convolutions()
    layers, space = layers_of(segment), NpuSpace(EDGE, segment)
    first, second = (GroupPlan((LayerPlan(m.ops, kept=m is layers[0]),), 1) for m in layers[:2])
    rest = GroupPlan((LayerPlan(layers[2].ops),))  # the result in the order of its axes
    image, weights = 64 * 16 * 16, weight_bytes(layers[0])
    assert len(layers) == 3 and packed_part(EDGE, layers) == 1.0 and weight_bytes(layers[1]) == weights
    timeline = Timeline(EDGE, space.costs, layers, space.returned)
    kept, last, end = timeline.groups(Plan((first, second, rest)))
    # 256 pixels of 4 at a time, 4 blocks of channels each way; then what the last drain takes.
    work = kept - image / RATE - weights / RATE - 2 * LATENCY
    assert 256 // 4 * 4 * 4 < work < 1.4 * 1024
    assert (kept * RATE - image - weights) > weights, "memory has time for the second layer's"
    assert last == pytest.approx(max(work + LATENCY, image / RATE + 3 * LATENCY / 2))
    # Through memory the first one stores as well, and the second waits for its operand and what weights are missing.
    away, later, _ = timeline.groups(Plan((GroupPlan((LayerPlan(layers[0].ops),), 1), second, rest)))
    assert away == pytest.approx(max(kept + LATENCY, (2 * image + weights) / RATE + 4 * LATENCY / 2))
    missing = weights - (away * RATE - 2 * image - weights)
    assert 0 < missing < weights
    assert later == pytest.approx(max(work + 3 * LATENCY + (image + missing) / RATE, (2 * image + missing) / RATE + 4 * LATENCY / 2))
    assert space.estimate(Plan((first, second, rest))).cycles == pytest.approx(kept + last + end)


def test_the_report_has_the_estimates_of_the_plan() -> None:
    segment = two_convolutions()
    program = NpuBackend(EDGE).compile(segment)
    plan, space = Plan.from_json(program.plan), NpuSpace(EDGE, segment)
    expected = Timeline(EDGE, space.costs, space.layers, space.returned).groups(plan)
    assert profile(program.code).estimated == tuple(round(cycles) for cycles in expected)
    large = NpuBackend(load_machine("large")).compile(segment)
    assert max(g.cores for g in Plan.from_json(large.plan).groups) == 4 and profile(large.code).estimated == ()
