# SPDX-License-Identifier: Apache-2.0
"""Lowered graphs against the interpreter, bit for bit, whatever the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph
from gadl.passes.plan.plan import GroupPlan, LoopOrder, Plan
from gadl.passes.quant.quantize import Precision
from gadl.targets.base import segments_of
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.layers import layers_of
from gadl.targets.npu.machine import load_machine
from gadl.targets.npu.planner import Planner

from .programs import EDGE, float_graph, placed, random, run_segments

WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def conv(**attrs: object) -> Callable[[np.random.Generator], Graph]:
    def build(rng: np.random.Generator) -> Graph:
        graph, b, x = float_graph(1, 8, 13, 11)
        groups = int(attrs.get("groups", 1))  # type: ignore[call-overload]
        y = b("conv", x, random(graph, rng, 24 if groups == 1 else 8, 8 // groups, 3, 3), random(graph, rng, 24 if groups == 1 else 8), **{**WINDOW, **attrs})
        graph.set_outputs([y])
        return graph

    return build


def residual(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 16, 9, 9)
    y = b("conv", x, random(graph, rng, 16, 16, 1, 1), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph.set_outputs([b("relu", b("add", y, x))])
    return graph


def chain(name: str, **attrs: object) -> Callable[[np.random.Generator], Graph]:
    """A convolution, then one op."""

    def build(rng: np.random.Generator) -> Graph:
        graph, b, x = float_graph(1, 8, 12, 12)
        y = b("conv", x, random(graph, rng, 8, 8, 3, 3), None, **WINDOW)
        graph.set_outputs([b(name, y, **attrs)])
        return graph

    return build


def transposed(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 6, 7, 5)
    w = random(graph, rng, 6, 9, 3, 3)
    graph.set_outputs([b("conv_transpose", x, w, random(graph, rng, 9), strides=(2, 2), pads=(1, 1, 0, 0), dilations=(1, 1), output_padding=(0, 1))])
    return graph


def squeeze_excite(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 16, 10, 10)
    pooled = b("reduce_mean", x, axes=(2, 3), keepdims=True)
    gate = b("sigmoid", b("conv", pooled, random(graph, rng, 16, 16, 1, 1), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)))
    graph.set_outputs([b("mul", x, gate)])
    return graph


def concat(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 8, 8, 8)
    parts = [b("conv", x, random(graph, rng, n, 8, 3, 3), None, **WINDOW) for n in (16, 5)]
    graph.set_outputs([b("concat", *parts, x, axis=1)])
    return graph


def attention(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 20, 24)
    q, k = (b("linear", x, random(graph, rng, 24, 24)) for _ in range(2))
    graph.set_outputs([b("matmul", q, b("transpose", k, perm=(0, 2, 1)))])
    return graph


def over_last_axis(name: str, vectors: int = 0) -> Callable[[np.random.Generator], Graph]:
    """A softmax or normalisation between two products."""

    def build(rng: np.random.Generator) -> Graph:
        graph, b, x = float_graph(1, 45, 24)
        given = [graph.constant(rng.normal(1, 0.5, 40).astype(np.float32)) for _ in range(vectors)]
        y = b(name, b("linear", x, random(graph, rng, 40, 24)), *given, axis=-1)
        graph.set_outputs([b("linear", y, random(graph, rng, 16, 40))])
        return graph

    return build


def heads(rng: np.random.Generator) -> Graph:
    """Attention of three heads."""
    graph, b, x = float_graph(1, 21, 24)
    q, k, v = (b("reshape", b("linear", x, random(graph, rng, 24, 24)), shape=(1, 21, 3, 8)) for _ in range(3))
    q, k, v = (b("transpose", y, perm=perm) for y, perm in ((q, (0, 2, 1, 3)), (k, (0, 2, 3, 1)), (v, (0, 2, 1, 3))))
    mixed = b("matmul", b("softmax", b("matmul", q, k), axis=-1), v)
    joined = b("reshape", b("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, 21, 24))
    graph.set_outputs([b("add", b("linear", joined, random(graph, rng, 24, 24)), x)])
    return graph


def flat(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 8, 6, 6)
    y = b("conv", x, random(graph, rng, 8, 8, 3, 3), None, **WINDOW)
    graph.set_outputs([b("linear", b("reshape", y, shape=(1, 288)), random(graph, rng, 40, 288))])
    return graph


def one_dimensional(rng: np.random.Generator) -> Graph:
    graph, b, x = float_graph(1, 12, 40)
    y = b("conv", x, random(graph, rng, 20, 12, 5), None, strides=(2,), pads=(2, 2), dilations=(1,))
    graph.set_outputs([b("leaky_relu", y, alpha=0.1)])
    return graph


SCALES = (1.0, 1.0, 2.0, 2.0)
CASES: dict[str, Callable[[np.random.Generator], Graph]] = {
    "conv": conv(),
    "conv_stride": conv(strides=(2, 2)),
    "conv_dilated": conv(dilations=(2, 2), pads=(2, 2, 2, 2)),
    "conv_asymmetric_pads": conv(pads=(0, 2, 1, 0)),
    "depthwise": conv(groups=8),
    "conv_1d": one_dimensional,
    "conv_transpose": transposed,
    "residual": residual,
    "hard_swish": chain("hard_swish"),
    "max_pool": chain("max_pool", kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1)),
    "avg_pool_counts": chain("avg_pool", kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    "resize_linear": chain("resize", sizes=(1, 8, 24, 24), scales=SCALES, mode="linear"),
    "resize_align": chain("resize", sizes=(1, 8, 24, 24), scales=SCALES, mode="linear", coordinate="align_corners"),
    "resize_nearest": chain("resize", sizes=(1, 8, 24, 24), scales=SCALES, mode="nearest", coordinate="asymmetric", nearest="floor"),
    "pad": chain("pad", pads=(0, 0, 1, 2, 0, 0, 3, 0)),
    "slice": chain("slice", starts=(0, 2, 1, 0), sizes=(1, 4, 5, 12), steps=(1, 1, 2, 1)),
    "transpose": chain("transpose", perm=(0, 2, 3, 1)),
    "squeeze_excite": squeeze_excite,
    "concat": concat,
    "matmul": attention,
    "softmax": over_last_axis("softmax"),
    "layer_norm": over_last_axis("layer_norm", 2),
    "layer_norm_bare": over_last_axis("layer_norm"),
    "rms_norm": over_last_axis("rms_norm", 1),
    "heads": heads,
    "flatten": flat,
}  # fmt: skip


def feeds_of(graph: Graph, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal(graph.inputs[0].shape).astype(np.float32)} for _ in range(2)]


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
@pytest.mark.parametrize("name", CASES)
def test_integer_lowering_is_bit_exact(name: str, precision: Precision) -> None:
    graph = CASES[name](np.random.default_rng(0))
    feeds = feeds_of(graph, 1)
    made = placed(graph, feeds, precision)
    assert [op for op in made.ops if op.placement is not None and op.placement.segment is not None], "nothing runs on the device"
    run_segments(made, feeds[0])


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "layer_norm_bare", "rms_norm", "heads"])
def test_transformer_ops_need_no_host(name: str) -> None:
    graph = CASES[name](np.random.default_rng(0))
    made = placed(graph, feeds_of(graph, 1))
    assert {op.name for op in made.ops if op.placement is None or op.placement.segment is None} <= {"quantize", "dequantize"}
    assert len(segments_of(made.ops, made.outputs)) == 1


@pytest.mark.parametrize("name", ["conv", "conv_stride", "depthwise", "residual", "concat", "conv_1d", "flatten", "matmul"])
def test_half_precision_is_bit_exact(name: str) -> None:
    """Canonical accumulation order: the simulator equals the interpreter in every bit, for any tiling."""
    graph = CASES[name](np.random.default_rng(0))
    feeds = feeds_of(graph, 2)
    made = placed(graph, feeds, Precision.FP16)
    assert run_segments(made, feeds[0])


@pytest.mark.parametrize("machine", ["mid", "large"])
def test_other_machines(machine: str) -> None:
    graph = CASES["conv"](np.random.default_rng(0))
    feeds = feeds_of(graph, 3)
    run_segments(placed(graph, feeds), feeds[0], load_machine(machine))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_results_do_not_depend_on_the_plan(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["conv", "depthwise", "residual", "max_pool", "concat", "resize_linear", "layer_norm", "heads"]))
    graph = CASES[name](np.random.default_rng(0))
    feeds = feeds_of(graph, 4)
    made = placed(graph, feeds)
    (segment,) = segments_of(made.ops, made.outputs)
    layers = layers_of(segment)
    plan = Planner(Costs(EDGE), EDGE.sram_bytes // 2).plan(layers)
    groups = []
    for group in plan.groups:
        layer = group.layers[0]
        changes: dict[str, object] = {}
        if layer.rows:
            changes["rows"] = data.draw(st.integers(1, layer.rows))
        if layer.channels:
            changes["channels"] = data.draw(st.integers(1, layer.channels))
            changes["order"] = data.draw(st.sampled_from(LoopOrder))
            changes["resident"] = data.draw(st.booleans())
        iterations = data.draw(st.integers(1, group.iterations + 3)) if group.iterations else 0
        groups.append(GroupPlan((replace(layer, **changes),), iterations))
    chosen = Plan(tuple(groups))
    assert Plan.from_json(chosen.to_json()) == chosen
    run_segments(made, feeds[0], plan=chosen)


def test_a_layer_that_cannot_fit_is_named(tmp_path: Path) -> None:
    text = (Path(load_machine.__code__.co_filename).parent / "machines" / "edge.toml").read_text().replace("kib = 512", "kib = 1")
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    graph = CASES["conv"](np.random.default_rng(0))
    feeds = feeds_of(graph, 5)
    with pytest.raises(GadlError, match="GADL-P001"):
        run_segments(placed(graph, feeds), feeds[0], load_machine(path))
