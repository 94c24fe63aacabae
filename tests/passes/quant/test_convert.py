# SPDX-License-Identifier: Apache-2.0
"""Conversion to integers, against loops over Python integers that follow `docs/numerics.md`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.interpret import interpret_values
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, Requant, Rounding, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.observers import Range
from gadl.passes.quant.quantize import Precision, Quantized, quantize_graph, rules_for
from gadl.targets.npu.quant_rules import QUANT_RULES

PRECISIONS = (Precision.INT8, Precision.INT16)
WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def rescaled(value: int, requant: Requant, channel: int = 0) -> int:
    """R(value), half up."""
    index = channel if len(requant.multiplier) > 1 else 0
    multiplier, shift = int(requant.multiplier[index]), int(requant.shift[index])
    assert 1 <= shift <= 62
    return (value * multiplier + (1 << (shift - 1))) >> shift


def zero(value: Value) -> int:
    assert value.quant is not None
    return value.quant.zero_point


def cut(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


class Case:
    """A float graph under construction, its quantised form and both sets of values."""

    rules = QUANT_RULES

    def __init__(self, *shapes: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.build = Builder(self.graph)
        self.inputs = [self.graph.add_input(f"x{i}", TensorType(DType.F32, s)) for i, s in enumerate(shapes)]
        self.feeds = {v.name: self.rng.normal(0.3, 1, v.shape).astype(np.float32) for v in self.inputs}

    def const(self, *shape: int, scale: float = 1.0) -> Value:
        return self.graph.constant(self.rng.normal(0, scale, shape).astype(np.float32))

    def quantise(self, *outputs: Value, precision: Precision = Precision.INT8) -> Quantized:
        self.graph.set_outputs(outputs)
        ranges = calibrate(self.graph, [self.feeds])
        made = quantize_graph(self.graph, ranges, rules_for(self.rules, precision))
        verify(made.graph)
        self.real = interpret_values(self.graph, self.feeds)
        self.values = interpret_values(made.graph, self.feeds)
        self.made = made
        return made

    def op(self, name: str) -> Op:
        (found,) = [op for op in self.made.graph.ops if op.name == name]
        return found

    def array(self, value: Value | None) -> np.ndarray:
        assert value is not None
        return value.data if value.data is not None else self.values[value.name]

    def close(self, name: str, steps: float) -> None:
        """The dequantised output is within `steps` steps of the float result."""
        (value,) = self.made.graph.outputs
        assert value.producer is not None
        quant = value.producer.inputs[0].quant
        assert quant is not None
        assert np.abs(self.values[value.name] - self.real[name]).max() <= steps * quant.scale[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_conv_with_bias_clamp_and_residual(precision: Precision) -> None:
    case = Case((1, 4, 5, 6), (1, 6, 5, 6))
    w, b = case.const(6, 2, 3, 3), case.const(6)
    y = case.build("conv", case.inputs[0], w, b, case.inputs[1], groups=2, clamp=(0.0, 3.0), **WINDOW)
    case.quantise(y, precision=precision)
    op = case.op("conv")
    x, weights, bias, residual = (case.array(op.operand(i)).astype(object) for i in range(4))
    zx, zr, zy = zero(op.inputs[0]), zero(op.inputs[3]), zero(op.result)
    low, high = op.attrs["clamp"]
    found = case.values[op.result.name]
    for c, i, j in itertools.product(range(6), range(5), range(6)):
        total = int(bias[c])
        for k, u, v in itertools.product(range(2), range(3), range(3)):
            row, column = i + u - 1, j + v - 1
            if 0 <= row < 5 and 0 <= column < 6:
                total += (int(x[0, c // 3 * 2 + k, row, column]) - zx) * int(weights[c, k, u, v])
        side = rescaled(int(residual[0, c, i, j]) - zr, op.attrs["residual_requant"])
        assert found[0, c, i, j] == cut(zy + rescaled(total, op.attrs["requant"], c) + side, low, high)
    quant = op.result.quant
    assert quant is not None
    assert (low - zy) * quant.scale[0] == 0
    assert (high - zy) * quant.scale[0] == pytest.approx(3.0, abs=quant.scale[0])
    # Weights have 8 bits in both precisions and make most of the difference.
    case.close(y.name, 8 if precision is Precision.INT8 else 8 * 256)


def test_weights_scales_and_bias_follow_the_contract() -> None:
    case = Case((1, 3, 4, 4))
    w, b = case.const(5, 3, 1, 1, scale=0.1), case.const(5)
    y = case.build("conv", case.inputs[0], w, b, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    case.quantise(y)
    op = case.op("conv")
    assert w.data is not None and b.data is not None
    held, quant_x, quant_y = op.inputs[1], op.inputs[0].quant, op.result.quant
    assert held.quant is not None and quant_x is not None and quant_y is not None
    for c in range(5):
        scale = float(np.float32(np.abs(w.data[c]).max() / 127))
        assert held.quant.scale[c] == pytest.approx(scale, rel=1e-7)
        assert np.abs(case.array(held)[c]).max() == 127
        assert int(case.array(op.inputs[2])[c]) == round(float(b.data[c]) / (quant_x.scale[0] * held.quant.scale[c]))
        ratio = int(op.attrs["requant"].multiplier[c]) / 2.0 ** int(op.attrs["requant"].shift[c])
        assert ratio == pytest.approx(quant_x.scale[0] * held.quant.scale[c] / quant_y.scale[0], rel=2.0**-30)
    assert held.quant.axis == 0 and held.quant.zero_point == 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["add", "sub"])
def test_sums(name: str, precision: Precision) -> None:
    case = Case((2, 7), (2, 7))
    case.feeds["x1"] *= 9
    case.quantise(case.build(name, *case.inputs, result="y", clamp=(-5.0, 5.0)), precision=precision)
    op = case.op(name)
    a, b = (case.array(v) for v in op.inputs)
    first, second, last = op.attrs["requant"]
    sign = 1 if name == "add" else -1
    for index in np.ndindex(2, 7):
        left = rescaled(int(a[index]) - zero(op.inputs[0]), first)
        right = rescaled(int(b[index]) - zero(op.inputs[1]), second)
        assert max(abs(left), abs(right), abs(left + sign * right)) < 1 << 31
        wanted = cut(zero(op.result) + rescaled(left + sign * right, last), *op.attrs["clamp"])
        assert case.values[op.result.name][index] == wanted
    case.close("y", 2.5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_inner_sums_fit_32_bits_at_the_ends(precision: Precision) -> None:
    case = Case((1, 2), (1, 2))
    case.feeds = {"x0": np.array([[-1, 1]], np.float32), "x1": np.array([[-1, 1]], np.float32)}
    case.quantise(case.build("add", *case.inputs, result="y"), precision=precision)
    op = case.op("add")
    low, high = op.inputs[0].dtype.range
    largest = max(abs(low - zero(op.inputs[0])), abs(high - zero(op.inputs[0])), high - low)
    assert 2 * rescaled(largest, op.attrs["requant"][0]) < 1 << 31


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mul(precision: Precision) -> None:
    case = Case((2, 7), (1, 7))
    case.quantise(case.build("mul", *case.inputs, result="y"), precision=precision)
    op = case.op("mul")
    a, b = (case.array(v) for v in op.inputs)
    for i, j in np.ndindex(2, 7):
        product = (int(a[i, j]) - zero(op.inputs[0])) * (int(b[0, j]) - zero(op.inputs[1]))
        wanted = cut(zero(op.result) + rescaled(product, op.attrs["requant"]), *op.result.dtype.range)
        assert case.values[op.result.name][i, j] == wanted


@pytest.mark.parametrize("precision", PRECISIONS)
def test_matmul(precision: Precision) -> None:
    case = Case((3, 4), (4, 5))
    case.quantise(case.build("matmul", *case.inputs, result="y"), precision=precision)
    op = case.op("matmul")
    a, b = (case.array(v) for v in op.inputs)
    for i, j in np.ndindex(3, 5):
        total = sum((int(a[i, k]) - zero(op.inputs[0])) * (int(b[k, j]) - zero(op.inputs[1])) for k in range(4))
        wanted = cut(zero(op.result) + rescaled(total, op.attrs["requant"]), *op.result.dtype.range)
        assert case.values[op.result.name][i, j] == wanted


@pytest.mark.parametrize("count_include_pad", [False, True])
def test_avg_pool_counts(count_include_pad: bool) -> None:
    case = Case((1, 2, 5, 5))
    y = case.build("avg_pool", case.inputs[0], kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1),
                   count_include_pad=count_include_pad, result="y")  # fmt: skip
    case.quantise(y)
    op = case.op("avg_pool")
    assert len(op.attrs["requant"].multiplier) == (1 if count_include_pad else 9)
    x = case.array(op.inputs[0])
    for c, i, j in np.ndindex(2, 3, 3):
        taps = [(2 * i + u - 1, 2 * j + v - 1) for u in range(3) for v in range(3)]
        inside = [(r, s) for r, s in taps if 0 <= r < 5 and 0 <= s < 5]
        total = sum(int(x[0, c, r, s]) - zero(op.inputs[0]) for r, s in inside)
        wanted = zero(op.result) + rescaled(total, op.attrs["requant"], len(inside) - 1)
        assert case.values[op.result.name][0, c, i, j] == cut(wanted, -128, 127)
    case.close("y", 1.5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mean_and_bilinear_resize_stay_close(precision: Precision) -> None:
    case = Case((1, 2, 6, 6))
    case.quantise(case.build("reduce_mean", case.inputs[0], axes=(2, 3), result="y"), precision=precision)
    case.close("y", 1.5)
    case = Case((1, 2, 6, 6))
    y = case.build("resize", case.inputs[0], sizes=(1, 2, 12, 9), scales=(1.0, 1.0, 2.0, 1.5), mode="linear", result="y")
    case.quantise(y, precision=precision)
    case.close("y", 40 if precision is Precision.INT16 else 1.5)


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_swish": lambda x: x * min(max(x / 6 + 0.5, 0), 1),
    "leaky_relu": lambda x: x if x >= 0 else 0.01 * x,
    "tanh": np.tanh,
    "abs": abs,
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_function_of_one_tensor_is_a_table_with_one_rounding(name: str) -> None:
    case = Case((4, 9))
    case.quantise(case.build(name, case.inputs[0], result="y"))
    op = case.op("lut")
    source, result = op.inputs[0].quant, op.result.quant
    assert source is not None and result is not None
    for code in range(-128, 128):
        real = FUNCTIONS[name](source.scale[0] * (code - source.zero_point))
        exact = real / result.scale[0] + result.zero_point
        assert abs(op.attrs["table"][code + 128] - cut(round(exact), -128, 127)) <= (abs(exact % 1 - 0.5) < 1e-3)


def test_sixteen_bit_table_interpolates() -> None:
    case = Case((16, 64))
    case.quantise(case.build("sigmoid", case.inputs[0], result="y"), precision=Precision.INT16)
    assert case.op("lut").attrs["table"].shape == (513,)
    case.close("y", 4)


def test_chain_of_functions_is_one_table() -> None:
    case = Case((4, 9))
    half = case.graph.constant(np.float32([0.5]))
    y = case.build("mul", case.build("sigmoid", case.build("neg", case.inputs[0])), half, result="y")
    case.quantise(y)
    assert [op.name for op in case.made.graph.ops] == ["quantize", "lut", "dequantize"]
    case.close("y", 2)


def test_chain_breaks_where_a_link_is_read_elsewhere() -> None:
    case = Case((4, 9))
    s = case.build("sigmoid", case.inputs[0])
    case.quantise(case.build("add", case.build("neg", s), s, result="y"))
    assert sorted(op.name for op in case.made.graph.ops) == ["add", "dequantize", "lut", "lut", "quantize"]


def test_moves_share_and_concat_rescales_only_what_differs() -> None:
    case = Case((1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4))
    case.feeds["x2"] /= 50
    pooled = case.build("max_pool", case.inputs[0], kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1))
    shrunk = case.build("slice", case.inputs[1], starts=(0, 0, 0, 0), sizes=(1, 2, 2, 2), steps=(1, 1, 2, 2))
    small = case.build("slice", case.inputs[2], starts=(0, 0, 0, 0), sizes=(1, 2, 2, 2), steps=(1, 1, 1, 1))
    case.quantise(case.build("concat", pooled, shrunk, small, axis=1, result="y"))
    op = case.op("concat")
    assert len({v.quant for v in (*op.inputs, op.result)}) == 1
    assert [o.name for o in case.made.graph.ops].count("requantize") == 1
    requantize = case.op("requantize")
    source, target = requantize.inputs[0].quant, requantize.result.quant
    assert source is not None and target is not None and source.scale[0] < target.scale[0] / 10


def test_float_op_sits_between_one_pair_and_is_reported() -> None:
    case = Case((2, 8))
    w = case.const(8, 8)
    logits = case.build("linear", case.inputs[0], w)
    probabilities = case.build("softmax", logits, axis=0)
    y = case.build("linear", probabilities, w, result="y")
    made = case.quantise(y)
    names = [op.name for op in made.graph.ops]
    assert names == ["quantize", "linear", "dequantize", "softmax", "quantize", "linear", "dequantize"]
    assert made.report["float_op_counts"] == {"softmax": 1}
    assert made.report["integer_ops"] == 2
    assert "last axis" in made.report["float_ops"][0]["reason"]
    assert all(w["bits"] == 8 for w in made.report["weights"].values()) and len(made.report["weights"]) == 2


def test_value_is_quantised_once_for_all_readers() -> None:
    case = Case((2, 8))
    normal = case.build("softmax", case.inputs[0], axis=1)
    y = case.build("add", case.build("linear", normal, case.const(8, 8)), case.build("linear", normal, case.const(8, 8)))
    case.quantise(y)
    assert [op.name for op in case.made.graph.ops].count("quantize") == 1


def test_masking_sum_stays_float() -> None:
    case = Case((4, 8), (4, 8))
    case.feeds["x1"] = np.where(case.feeds["x1"] > 0, np.float32(0), np.float32(-10000))
    scores = case.build("linear", case.inputs[0], case.const(8, 8))
    y = case.build("softmax", case.build("add", scores, case.inputs[1]), axis=1, result="y")
    made = case.quantise(y)
    assert set(made.report["float_op_counts"]) == {"add", "softmax"}
    np.testing.assert_allclose(case.values[made.graph.outputs[0].name], case.real["y"], atol=0.1)


def test_tiny_channel_keeps_its_bias() -> None:
    case = Case((1, 2, 3, 3))
    w = np.ones((2, 2, 1, 1), np.float32)
    w[1] = 1e-12
    y = case.build("conv", case.inputs[0], case.graph.constant(w), case.graph.constant(np.float32([0, 5])),
                   strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), result="y")  # fmt: skip
    case.quantise(y)
    case.close("y", 1.5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12])
def test_a_dead_layer_is_no_problem(size: float, precision: Precision) -> None:
    """All results are as good as zero: any scale represents them, and the multiplier must still have an encoding."""
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 8)))
    graph.set_outputs([Builder(graph)("linear", x, graph.constant(np.ones((4, 8), np.float32)), result="y")])
    made = quantize_graph(graph, {"x": Range.of(-1, 1), "y": Range.of(0, size)}, rules_for(QUANT_RULES, precision))
    got = interpret_values(made.graph, {"x": np.zeros((1, 8), np.float32)})
    assert not got[made.graph.outputs[0].name].any()


def test_overflowing_accumulator_is_refused() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 70000)))
    w = graph.constant(np.ones((1, 70000), np.float32))
    graph.set_outputs([Builder(graph)("linear", x, w, result="y")])
    with pytest.raises(GadlError) as caught:
        quantize_graph(graph, {"x": Range.of(-1, 1), "y": Range.of(-100, 100)}, QUANT_RULES)
    assert caught.value.diagnostics[0].code == "GADL-Q002"
    assert quantize_graph(
        graph, {"x": Range.of(-1, 1), "y": Range.of(-100, 100)}, rules_for(QUANT_RULES, Precision.INT16)
    ).report["integer_ops"] == 1


def test_missing_range_is_refused() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 4)))
    graph.set_outputs([Builder(graph)("linear", x, graph.constant(np.ones((1, 4), np.float32)), result="y")])
    with pytest.raises(GadlError) as caught:
        quantize_graph(graph, {"x": Range.of(-1, 1)}, QUANT_RULES)
    assert caught.value.diagnostics[0].code == "GADL-Q003"
    assert caught.value.diagnostics[0].values["names"] == ["y"]


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose(groups: int) -> None:
    case = Case((1, 4, 3, 3))
    y = case.build("conv_transpose", case.inputs[0], case.const(4, 6 // groups, 2, 2), case.const(6), strides=(2, 2),
                   pads=(0, 0, 0, 0), dilations=(1, 1), output_padding=(0, 0), groups=groups, result="y")  # fmt: skip
    case.quantise(y)
    case.close("y", 5)


def test_outputs_stay_real_and_keep_their_names() -> None:
    case = Case((2, 4))
    y = case.build("linear", case.inputs[0], case.const(3, 4), result="logits")
    made = case.quantise(y)
    assert [v.dtype for v in made.graph.inputs] == [DType.F32]
    assert made.graph.output_names == ["logits"]
    assert made.graph.outputs[0].dtype is DType.F32


def test_requant_rounding_is_the_targets() -> None:
    case = Case((2, 4))
    case.graph.set_outputs([case.build("linear", case.inputs[0], case.const(3, 4))])
    ranges = calibrate(case.graph, [case.feeds])
    for rounding in (Rounding.UP, Rounding.TFL2, Rounding.F32):
        rules = type(QUANT_RULES)(QUANT_RULES.activations, QUANT_RULES.weights, QUANT_RULES.integer_ops, rounding)
        (op,) = [o for o in quantize_graph(case.graph, ranges, rules).graph.ops if o.name == "linear"]
        assert op.attrs["requant"].rounding is rounding


def test_the_float_graph_is_left_alone() -> None:
    case = Case((2, 4))
    y = case.build("linear", case.inputs[0], case.const(3, 4), result="y")
    case.graph.set_outputs([y])
    before = str(case.graph)
    case.quantise(y)
    assert str(case.graph) == before
