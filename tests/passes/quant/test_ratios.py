# SPDX-License-Identifier: Apache-2.0
"""Rules whose requantisations only shrink: every ratio is below one, every clamp one that a drain applies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.passes import PassManager
from gadl.compiler.ir.types import DType, QuantParams, Requant, Rounding, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.pipeline import float_pipeline
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.quantize import quantize_annotated, quantize_graph
from gadl.passes.quant.specs import QuantRules
from gadl.targets.cv18xx.quant_rules import QUANT_RULES

SHAPE = (1, 4, 6, 6)
PLAIN = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}


def channels(first: int, last: int) -> dict[str, Any]:
    """Attributes of the slice of some channels."""
    return {"starts": (0, first, 0, 0), "sizes": (1, last - first, 6, 6), "steps": (1, 1, 1, 1)}


class Net:
    """A float graph, its samples and its quantised form."""

    def __init__(self, seed: int = 0, inputs: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.build = Builder(self.graph)
        self.inputs = [self.graph.add_input(f"x{i}", TensorType(DType.F32, SHAPE)) for i in range(inputs)]
        self.feeds = [{v.name: self.rng.normal(0, 1, SHAPE).astype(np.float32) for v in self.inputs} for _ in range(2)]

    def conv(self, x: Value, size: float = 1.0, **attrs: Any) -> Value:
        weights = self.graph.constant(self.rng.normal(0, size, (4, 4, 1, 1)).astype(np.float32))
        return self.build("conv", x, weights, groups=1, **PLAIN, **attrs)

    def quantise(self, *outputs: Value, rules: QuantRules = QUANT_RULES) -> Graph:
        self.graph.set_outputs(outputs)
        made = quantize_graph(self.graph, calibrate(self.graph, self.feeds), rules).graph
        verify(made)
        check(made)
        return made


def requants(op: Op) -> list[Requant]:
    found = op.attrs.get("requant", ())
    return list(found) if isinstance(found, tuple) else [found]


def check(graph: Graph) -> None:
    """What the CV18xx takes."""
    for op in graph.ops:
        plain = op.name in ("add", "sub", "resize")
        for requant in requants(op):
            if op.name in ("avg_pool", "reduce_mean") and requant.rounding is Rounding.UP:
                # A factor of eight bits.
                assert all(int(m) >> 23 << 23 == m for m in requant.multiplier) and requant.shift.min() >= 23
                continue
            assert requant.rounding is (Rounding.UP if plain else Rounding.TFL2)
            if not plain:
                assert requant.multiplier.min() >= 1 << 30
                assert 31 <= requant.shift.min() and requant.shift.max() <= 62
        clamp = op.attrs.get("clamp")
        if clamp is not None and op.result.quant is not None:
            assert clamp == (op.result.quant.zero_point, 127)
        assert op.operand(3) is None or op.name != "conv"


def quant(value: Value) -> QuantParams:
    assert value.quant is not None
    return value.quant


def only(graph: Graph, name: str) -> Op:
    (op,) = [op for op in graph.ops if op.name == name]
    return op


def step_errors(net: Net, made: Graph) -> float:
    """The largest difference from float, in steps of the output."""
    worst = 0.0
    for feeds in net.feeds:
        old, new = interpret(net.graph, feeds), interpret(made, feeds)
        for name, value in zip(made.output_names, made.outputs):
            assert value.producer is not None
            worst = max(worst, float(np.abs(old[name] - new[name]).max()) / quant(value.producer.inputs[0]).scale[0])
    return worst


LAYERS = st.lists(
    st.sampled_from(["conv", "clamped", "add", "sub", "mul", "matmul", "reduce_sum", "mean", "pool", "average", "concat", "resize", "lut"]),
    min_size=1, max_size=7,
)  # fmt: skip


@given(layers=LAYERS, size=st.sampled_from([1e-4, 0.03, 1.0, 40.0]), seed=st.integers(0, 999), offset=st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_chain_of_layers_has_an_encoding(layers: list[str], size: float, seed: int, offset: bool) -> None:
    net = Net(seed)
    values = [net.inputs[0]]
    for name in layers:
        x, y = values[-1], values[int(net.rng.integers(len(values)))]
        window = {"kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}
        match name:
            case "conv":
                made = net.conv(x, size)
            case "clamped":
                made = net.conv(x, size, clamp=[(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (0.1, 0.7)][seed % 4])
            case "reduce_sum":
                made = net.build("expand", net.build("reduce_sum", x, axes=(3,), keepdims=True), shape=SHAPE)
            case "mean":
                made = net.build("expand", net.build("reduce_mean", x, axes=(2, 3), keepdims=True), shape=SHAPE)
            case "pool":
                made = net.build("max_pool", x, dilations=(1, 1), **window)
            case "average":
                made = net.build("avg_pool", x, count_include_pad=seed % 2 == 0, **window)
            case "concat":
                made = net.build("slice", net.build("concat", x, y, axis=1), **channels(2, 6))
            case "resize":
                made = net.build("resize", x, sizes=SHAPE, scales=(1.0,) * 4, mode="linear", coordinate="half_pixel")
            case "lut":
                made = net.build("hard_swish", x)
            case _:
                made = net.build(name, x, y)
        values.append(made)
    rules = replace(QUANT_RULES, offset_operands=frozenset({"conv", "reduce_mean", "avg_pool"}) if offset else frozenset())
    graph = net.quantise(values[-1], rules=rules)
    # A sum whose result shares its operand's scale, by way of a concatenation, would have a ratio of one: it stays float.
    real = [op for op in graph.ops if op.result.dtype.is_float and op.name != "dequantize"]
    assert all(op.name == "reduce_sum" and "concat" in layers for op in real)
    if not offset:
        assert all(v.quant is None or v.quant.zero_point == 0 for v in graph.values())
    interpret(graph, net.feeds[0])


def test_a_result_with_a_small_range_gets_a_larger_scale() -> None:
    """Weights of 40 that cancel: the scale of the range would need a ratio above one."""
    net = Net()
    weights = np.zeros((4, 4, 1, 1), np.float32)
    weights[:, 0], weights[:, 1] = 40, -40
    same = net.build("concat", *[net.build("slice", net.inputs[0], **channels(0, 1))] * 4, axis=1)
    y = net.build("conv", same, net.graph.constant(weights), groups=1, **PLAIN)
    made = net.quantise(y)
    op = only(made, "conv")
    least = quant(op.inputs[0]).scale[0] * quant(op.inputs[1]).scale[0]
    assert least < quant(op.result).scale[0] < least * 1.001
    assert step_errors(net, made) < 0.01


def test_relu6_is_the_range_of_the_type() -> None:
    net = Net()
    made = net.quantise(net.conv(net.inputs[0], 2.0, clamp=(0.0, 6.0)))
    op = only(made, "conv")
    assert op.attrs["clamp"] == (0, 127)
    assert quant(op.result).scale[0] == pytest.approx(6 / 127)
    assert not [o for o in made.ops if o.name == "clamp"]
    assert step_errors(net, made) < 4


def test_a_clamp_inside_a_shared_range_is_an_op_of_its_own() -> None:
    net = Net()
    a, b = net.conv(net.inputs[0], 2.0, clamp=(0.0, 3.0)), net.conv(net.inputs[0], 0.7)
    made = net.quantise(net.build("concat", a, b, axis=1), rules=replace(QUANT_RULES, equalize=0.0))
    clamp = only(made, "clamp")
    assert clamp.inputs[0].producer is not None and clamp.inputs[0].producer.attrs["clamp"] == (0, 127)
    assert (clamp.attrs["lo"], clamp.attrs["hi"]) == (0, round(3 / quant(clamp.result).scale[0]))
    assert clamp.attrs["hi"] < 127
    assert step_errors(net, made) < 4


def test_interpolation_only_shifts() -> None:
    net = Net()
    y = net.build("resize", net.inputs[0], sizes=(1, 4, 12, 12), scales=(1.0, 1.0, 2.0, 2.0), mode="linear", coordinate="half_pixel")
    op = only(net.quantise(y), "resize")
    assert quant(op.inputs[0]) == quant(op.result)
    assert op.attrs["requant"] == Requant(np.array([1 << 30], np.int32), np.array([52], np.int8), Rounding.UP)


def test_tables_make_zero_points_where_only_such_ops_read_them() -> None:
    net = Net()
    first, second = (net.build("hard_swish", net.conv(net.inputs[0])) for _ in range(2))
    gated = net.build("mul", second, net.conv(first))
    rules = replace(QUANT_RULES, offset_operands=frozenset({"conv"}))
    made = net.quantise(gated, rules=rules)
    tables = {op.result.name: quant(op.result) for op in made.ops if op.name == "lut"}
    assert tables[first.name].zero_point < -60
    assert tables[second.name].zero_point == 0
    assert step_errors(net, made) < 4
    plain = net.quantise(gated, rules=replace(rules, offset_operands=frozenset()))
    assert all(quant(op.result).zero_point == 0 for op in plain.ops if op.name == "lut")


def annotated(scale_in: float, scale_out: float, zero: int = 0) -> Graph:
    """A QDQ max pool between two scales."""
    graph = Graph()
    build = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, SHAPE))

    def pair(value: Value, params: QuantParams) -> Value:
        return build("dequantize", build("quantize", value, type=TensorType(DType.I8, value.shape, params)))

    pooled = build("max_pool", pair(x, QuantParams((scale_in,), zero)), kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph.set_outputs([pair(pooled, QuantParams((scale_out,)))])
    return graph


@pytest.mark.parametrize(("scale_in", "scale_out", "by"), [(0.02, 0.03, "requantize"), (0.03, 0.02, "lut")])
def test_a_models_own_scales_are_brought_together(scale_in: float, scale_out: float, by: str) -> None:
    made = quantize_annotated(annotated(scale_in, scale_out), QUANT_RULES).graph
    verify(made)
    check(made)
    op = only(made, by)
    codes = np.arange(-128, 128)
    rescaled = np.clip(np.floor(codes * scale_in / scale_out + 0.5), -128, 127)
    feeds = {"x": np.resize(codes * scale_in, SHAPE).astype(np.float32)}
    graph = made.clone()
    graph.set_outputs([next(o.result for o in graph.ops if o.name == by)])
    got = interpret(graph, feeds)[op.result.name].reshape(-1)
    assert np.abs(got - np.resize(rescaled, got.shape)).max() <= 1


def test_a_models_own_zero_points_stay_float() -> None:
    made = quantize_annotated(annotated(0.02, 0.02, zero=3), QUANT_RULES)
    assert "zero point" in made.report["float_ops"][0]["reason"]
    verify(made.graph)


def test_convolutions_take_no_residual() -> None:
    net = Net()
    net.graph.set_outputs([net.build("add", net.inputs[0], net.conv(net.inputs[0]))])
    PassManager().run(net.graph, float_pipeline(QUANT_RULES.residuals))
    assert [op.name for op in net.graph.ops] == ["conv", "add"]
    PassManager().run(net.graph, float_pipeline())
    assert [op.name for op in net.graph.ops] == ["conv"]
