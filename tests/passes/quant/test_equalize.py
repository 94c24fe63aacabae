# SPDX-License-Identifier: Apache-2.0
"""Range equalisation: the model stays what it was, and channels come to one range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret, interpret_values
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.equalize import MOST_FACTOR, equalize
from gadl.passes.quant.observers import ByChannel, ChannelRange, MinMax

PLAIN = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
RELU = (0.0, math.inf)


class Net:
    """A float graph of layers whose channels have ranges from 1 to some hundreds."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.build = Builder(self.graph)
        self.x = self.graph.add_input("x", TensorType(DType.F32, (1, 4, 6, 6)))
        self.feeds = [{"x": self.rng.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)} for _ in range(3)]

    def conv(self, x: Value, out: int, groups: int = 1, name: str = "conv", **attrs: Any) -> Value:
        spread = np.exp2(self.rng.uniform(0, 6, (out, 1, 1, 1)))
        shape = (out, x.shape[1] // groups, 1, 1)
        if name == "conv_transpose":
            shape, spread = (x.shape[1], out // groups, 1, 1), np.exp2(self.rng.uniform(0, 6, (1, out // groups, 1, 1)))
            attrs["output_padding"] = (0, 0)
        weights = self.graph.constant((self.rng.normal(0, 1, shape) * spread).astype(np.float32))
        bias = self.graph.constant(self.rng.normal(0, 1, out).astype(np.float32))
        return self.build(name, x, weights, bias, groups=groups, **PLAIN, **attrs)

    def finish(self, *outputs: Value, part: float = 0.5) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
        """The equalised graph, its ranges, and the ranges before; the results of both graphs are compared."""
        self.graph.set_outputs(outputs)
        before = calibrate(self.graph, self.feeds, lambda: ByChannel(MinMax()))
        made = self.graph.clone()
        ranges = equalize(made, before, part)
        verify(made)
        for feeds in self.feeds:
            old, new = interpret(self.graph, feeds), interpret(made, feeds)
            for name in old:
                np.testing.assert_allclose(new[name], old[name], rtol=1e-4, atol=1e-5 * np.abs(old[name]).max())
            for name, array in interpret_values(made, feeds).items():
                assert ranges[name].low <= array.min() * (1 - 1e-5) or array.min() >= 0
                assert ranges[name].high >= array.max() * (1 - 1e-5)
        return made, ranges, before


def reaches(graph: Graph, feeds: list[Any], name: str) -> np.ndarray:
    return np.max([np.abs(interpret_values(graph, f)[name]).max((0, 2, 3)) for f in feeds], 0)


@pytest.mark.parametrize(
    ("name", "groups"), [("conv", 1), ("conv", 2), ("conv", 8), ("conv_transpose", 1), ("conv_transpose", 2), ("conv_transpose", 8)]
)
def test_channels_between_two_layers_come_to_one_range(name: str, groups: int) -> None:
    net = Net()
    first = net.conv(net.x, 8, clamp=RELU)
    middle = net.conv(first, 8, groups, name, clamp=RELU)
    made, _, before = net.finish(net.conv(middle, 3), part=1.0)
    for value in (first, middle):
        assert isinstance(before[value.name], ChannelRange)
        old, new = reaches(net.graph, net.feeds, value.name), reaches(made, net.feeds, f"{value.name}.equalized")
        assert old.max() > 4 * old.min()
        np.testing.assert_allclose(new, np.minimum(old.max(), MOST_FACTOR * old), rtol=1e-4)


def test_half_of_the_way_is_the_square_root() -> None:
    net = Net()
    first = net.conv(net.x, 8, clamp=RELU)
    made, _, _ = net.finish(net.conv(first, 3), part=0.5)
    old, new = reaches(net.graph, net.feeds, first.name), reaches(made, net.feeds, f"{first.name}.equalized")
    np.testing.assert_allclose(new, np.sqrt(old * old.max()), rtol=1e-4)


def test_factors_pass_joins_sums_pools_and_means() -> None:
    net = Net()
    a, b = net.conv(net.x, 8, clamp=RELU), net.conv(net.x, 8)
    total = net.build("add", a, b, clamp=RELU)
    window: dict[str, Any] = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    pooled = net.build("max_pool", total, **window)
    joined = net.build("concat", pooled, net.build("max_pool", a, **window), axis=1)
    mean = net.build("reduce_mean", net.conv(joined, 8), axes=(2, 3), keepdims=False)
    weights = net.graph.constant(net.rng.normal(0, 1, (5, 8)).astype(np.float32))
    made, _, _ = net.finish(net.build("linear", mean, weights))
    assert sum(op.result.name.endswith(".equalized") for op in made.ops) == 8
    # One factor for a channel of both operands, the sum and all that is made of it.
    old = reaches(net.graph, net.feeds, joined.name)
    factors = reaches(made, net.feeds, f"{joined.name}.equalized") / old
    np.testing.assert_allclose(factors[:8], factors[8:], rtol=1e-4)
    assert factors.max() > 1.5


@pytest.mark.parametrize("reader", ["sigmoid", "mul", "output", "transpose", "residual"])
def test_what_other_ops_read_is_left_alone(reader: str) -> None:
    net = Net()
    first = net.conv(net.x, 4, clamp=RELU)
    outputs = [net.conv(first, 4)]
    match reader:
        case "sigmoid":
            outputs.append(net.build("sigmoid", first))
        case "mul":
            outputs.append(net.build("mul", first, net.x))
        case "output":
            outputs.append(first)
        case "transpose":
            outputs.append(net.build("transpose", first, perm=(0, 2, 1, 3)))
        case "residual":
            last = net.conv(first, 4)
            assert last.producer is not None
            last.producer.set_operand(3, first)
            outputs.append(last)
    made, _, _ = net.finish(*outputs)
    assert not [op for op in made.ops if op.result.name.endswith(".equalized")]


def test_an_upper_bound_limits_the_factor() -> None:
    """Behind relu6 a channel that reaches the bound keeps its range; others grow, and no farther than it."""
    net = Net()
    first = net.conv(net.x, 8, clamp=(0.0, 6.0))
    made, ranges, _ = net.finish(net.conv(first, 3), part=1.0)
    old = reaches(net.graph, net.feeds, first.name)
    assert old.min() < 5.9 and old.max() == 6
    np.testing.assert_allclose(reaches(made, net.feeds, f"{first.name}.equalized"), 6, rtol=1e-4)
    assert ranges[f"{first.name}.equalized"].high == pytest.approx(6)


def test_a_channel_without_values_keeps_its_weights() -> None:
    net = Net()
    first = net.conv(net.x, 4, clamp=RELU)
    assert first.producer is not None
    weights, bias = (v.data for v in first.producer.inputs[1:])
    assert weights is not None and bias is not None
    weights[1], bias[1] = 0, 0
    made, _, _ = net.finish(net.conv(first, 3), part=1.0)
    assert not made.ops[0].inputs[1].data[1].any()  # type: ignore[index]
    np.testing.assert_array_equal(made.ops[1].inputs[1].data[:, 1], net.graph.ops[1].inputs[1].data[:, 1])  # type: ignore[index]
