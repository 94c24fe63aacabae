# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks: whatever the grouping, the iterations, the cores and the sizes, the bytes are the interpreter's."""

from __future__ import annotations

import math
import random as random_module
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.opdef import Builder
from gadl.passes.plan.plan import LayerPlan, Plan
from gadl.targets.base import segments_of
from gadl.targets.npu.attention import memory_tile, needed_bytes
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.expand.reorder import boxes
from gadl.targets.npu.layers import Layer, layers_of
from gadl.targets.npu.machine import load_machine
from gadl.targets.npu.planner import Planner
from gadl.targets.npu.space import NpuSpace

from .programs import EDGE, float_graph, placed, random, run_segments
from .test_cores import divided_at_random
from .test_groups import random_plan

LARGE = load_machine("large")
KINDS = ("attention", "causal", "together", "feed_forward", "gated", "rms_norm", "layer_norm", "softmax", "shared_keys")


def grow(graph: Graph, b: Builder, rng: np.random.Generator, x: Value, kind: str, heads: int) -> Value:
    """One more part of a transformer on `x`: [1, S, D]."""
    _, length, width = x.shape
    vectors = [graph.constant(rng.normal(1, 0.3, width).astype(np.float32)) for _ in range(2)]

    def linear(value: Value, size: int) -> Value:
        return b("linear", value, random(graph, rng, size, value.shape[-1]), random(graph, rng, size))

    def split(value: Value, perm: tuple[int, ...]) -> Value:
        return b("transpose", b("reshape", value, shape=(1, length, heads, value.shape[-1] // heads)), perm=perm)

    match kind:
        case "attention" | "causal":
            normal = b("layer_norm", x, *vectors, axis=-1)
            q, k, v = (split(linear(normal, width), perm) for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)))
            scores = b("matmul", q, k)
            if kind == "causal":
                seen = np.tril(np.ones((length, length), np.bool_))
                scores = b("where", graph.constant(seen), scores, graph.constant(np.full((), -1e30, np.float32)))
            mixed = b("matmul", b("softmax", scores, axis=-1), v)
            joined = b("reshape", b("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, length, width))
            return b("add", x, linear(joined, width))
        case "together":
            whole = b("reshape", linear(x, 3 * width), shape=(1, length, 3, heads, width // heads))
            whole = b("transpose", whole, perm=(2, 0, 3, 1, 4))
            sizes = (1, 1, heads, length, width // heads)
            parts = [b("slice", whole, starts=(i, 0, 0, 0, 0), sizes=sizes, steps=(1,) * 5) for i in range(3)]
            q, k, v = (b("reshape", part, shape=sizes[1:]) for part in parts)
            mixed = b("matmul", b("softmax", b("matmul", q, b("transpose", k, perm=(0, 1, 3, 2))), axis=-1), v)
            return linear(b("reshape", b("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, length, width)), width)
        case "shared_keys":
            k = b("transpose", linear(x, width // heads), perm=(0, 2, 1))
            q = split(linear(x, width), (0, 2, 1, 3))
            scores = b("matmul", q, b("reshape", k, shape=(1, 1, width // heads, length)))
            mixed = b("matmul", b("softmax", scores, axis=-1), b("reshape", linear(x, 8), shape=(1, 1, length, 8)))
            return linear(b("reshape", b("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, length, 8 * heads)), width)
        case "feed_forward":
            return b("add", x, linear(b("gelu", linear(b("layer_norm", x, *vectors, axis=-1), 2 * width)), width))
        case "gated":
            normal = b("rms_norm", x, vectors[0], axis=-1)
            return b("add", x, linear(b("mul", b("silu", linear(normal, 40)), linear(normal, 40)), width))
        case "softmax":
            return linear(b("softmax", x, axis=-1), width)
        case _:
            return b(kind, x, *vectors[: 1 + (kind == "layer_norm")], axis=-1)


def network(kinds: list[str], length: int, heads: int) -> Graph:
    graph, b, x = float_graph(1, length, 8 * heads)
    rng = np.random.default_rng(0)
    x = b("linear", x, random(graph, rng, 8 * heads, 8 * heads))
    for kind in kinds:
        x = grow(graph, b, rng, x, kind, heads)
    graph.set_outputs([x])
    return graph


def made_of(kinds: list[str], length: int, heads: int, keys: int = 0) -> tuple[Graph, dict[str, np.ndarray]]:
    """A placed network and its feeds; attention over `keys` keys at least, or in every other length over any."""
    graph = network(kinds, length, heads)
    feeds = [{"x": np.random.default_rng(i).standard_normal(graph.inputs[0].shape).astype(np.float32)} for i in range(2)]
    return placed(graph, feeds, attention_keys=keys or (1 if length % 2 else 0)), feeds[0]


PARTS = st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), PARTS, st.integers(2, 26), st.sampled_from((1, 2, 3)))
def test_any_grouping_gives_the_same_bytes(data: st.DataObject, kinds: list[str], length: int, heads: int) -> None:
    made, feeds = made_of(kinds, length, heads)
    (segment,) = segments_of(made.ops, made.outputs)
    run_segments(made, feeds, plan=random_plan(data, layers_of(segment)))


def tiled(layers: list[Layer], tile: LayerPlan, alone: bool) -> Plan:
    """A plan of lone layers; attention goes by a tile, from memory to memory or between bands."""
    plan = Planner(Costs(EDGE), EDGE.sram_bytes // 2).plan(layers)
    found = [layer.op.name == "attention" for layer in layers]
    changed = (
        replace(group, iterations=0 if alone else 3, layers=(replace(tile, ops=group.layers[0].ops),)) if here else group
        for group, here in zip(plan.groups, found, strict=True)
    )
    assert any(found)
    return Plan(tuple(changed))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from(("attention", "causal", "shared_keys")), st.integers(2, 19), st.sampled_from((1, 2)), st.sampled_from((1, 3, 4, 7, 16)),
    st.sampled_from((0, 1, 5, 8, 13)), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_tile_of_keys_gives_the_same_bytes(
    kind: str, length: int, heads: int, rows: int, keys: int, resident: bool, alone: bool
) -> None:
    made, feeds = made_of([kind], length, heads, 1)
    (segment,) = segments_of(made.ops, made.outputs)
    tile = LayerPlan((), rows=min(rows, length), depth=min(keys, length), resident=resident)
    run_segments(made, feeds, plan=tiled(layers_of(segment), tile, alone))


@pytest.mark.parametrize("kind", ["attention", "causal"])
def test_a_tile_that_fits_is_found_where_a_head_does_not(kind: str) -> None:
    """Keys and values of the one head take more than the memory that there is by themselves."""
    made, feeds = made_of([kind], 200, 3)
    layers = layers_of(segments_of(made.ops, made.outputs)[0])
    (layer,) = [layer for layer in layers if layer.op.name == "attention"]
    layer.op.inputs[0].type = layer.op.inputs[0].type.with_(shape=(1, 1, 6000, 64))
    for value in layer.op.inputs[1:3]:
        value.type = value.type.with_(shape=(1, 1, 6000, 64))
    budget, costs = 2 * 6000 * 64 // 3, Costs(EDGE)
    tile = memory_tile(costs, layer, budget)
    assert tile is not None and not tile.resident and tile.keys < 6000 and needed_bytes(layer, tile) <= budget
    whole = memory_tile(costs, layer, 8 * budget)
    assert whole is not None and whole.resident and memory_tile(costs, layer, 4096) is None


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data(), PARTS, st.integers(2, 26), st.sampled_from((1, 2, 3)))
def test_any_division_among_cores_gives_the_same_bytes(data: st.DataObject, kinds: list[str], length: int, heads: int) -> None:
    made, feeds = made_of(kinds, length, heads)
    (segment,) = segments_of(made.ops, made.outputs)
    run_segments(made, feeds, LARGE, divided_at_random(data, layers_of(segment)))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(PARTS, st.integers(2, 26), st.integers(0, 1 << 30))
def test_any_plan_that_the_tuner_reaches_gives_the_same_bytes(kinds: list[str], length: int, seed: int) -> None:
    made, feeds = made_of(kinds, length, 2)
    (segment,) = segments_of(made.ops, made.outputs)
    space, rng = NpuSpace(EDGE, segment), random_module.Random(seed)
    plan = space.initial()
    for _ in range(6):
        plan = space.mutate(plan, rng)
        assert space.legal(plan) and space.estimate(plan).cycles > 0
    try:
        run_segments(made, feeds, plan=plan)
    except GadlError as error:
        assert error.diagnostics[0].code == "GADL-P001"


def test_scores_stay_on_chip() -> None:
    """A block moves its input, weights and output, and nothing between: its scores alone are twice as much."""
    made, feeds = made_of(["attention", "feed_forward"], 160, 4)
    ((segment, report),) = run_segments(made, feeds)
    moved = report["dram_read_bytes"] + report["dram_write_bytes"]
    assert moved < 1.2 * report["dram_bound_bytes"] + 8192
    attention = next(op for op in segment.ops if op.name == "attention")
    assert math.prod(attention.inputs[1].shape[:-1]) * attention.inputs[0].shape[-2] > 2 * moved


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 1, 3, 2)])
def test_boxes_cover_a_range_once(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    numbers = np.arange(size).reshape(shape)
    for first in range(size + 1):
        for end in range(first, size + 1):
            found = [numbers[tuple(slice(i, i + n) for i, n in zip(index, count))].reshape(-1) for index, count in boxes(shape, first, end)]
            np.testing.assert_array_equal(np.concatenate([*found, np.zeros(0, int)]), np.arange(first, end))
