# SPDX-License-Identifier: Apache-2.0
"""QDQ models keep their own scales: integer graphs against ONNX Runtime running the same file node by node."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.passes import PassManager
from gadl.compiler.ir.types import Rounding
from gadl.compiler.ir.verify import verify
from gadl.frontends.onnx import import_onnx
from gadl.passes.pipeline import FLOAT_PIPELINE
from gadl.passes.quant.quantize import Quantized, has_own_scales, quantize_annotated
from gadl.targets.npu.quant_rules import QUANT_RULES

#: Scales without a common divisor: ties are rare, so that a difference of one cannot hide behind them.
INPUT_QUANT = ((0.030731, -5), (0.071393, 10), (0.052711, 2))
#: Scales of ratio 3 : 7, which make ties common.
TIED_QUANT = ((0.03, -5), (0.07, 10))


@dataclass
class Qdq:
    """Builds a model whose tensors all pass through quantise/dequantise pairs."""

    seed: int = 0
    activation: Any = np.int8
    quant: tuple[tuple[float, int], ...] = INPUT_QUANT
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def const(self, data: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def node(self, op: str, *operands: str, **attrs: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, operands, [name], name=name, **attrs))
        return name

    def pair(self, source: str, scale: float, zero: int) -> str:
        if self.activation is np.uint8:
            zero += 128
        parameters = self.const(np.float32(scale)), self.const(self.activation(zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", source, *parameters), *parameters)

    def input(self, *shape: int) -> str:
        name = f"x{len(self.inputs)}"
        self.shapes[name] = shape
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return self.pair(name, *self.quant[(len(self.inputs) - 1) % len(self.quant)])

    def weights(self, *shape: int, axis: int = 0, bias: bool = False) -> list[str]:
        count = shape[axis]
        scales = self.rng.uniform(0.002, 0.02, count).astype(np.float32)
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        zeros = self.const(np.zeros(count, np.int8))
        made = [self.node("DequantizeLinear", self.const(data), self.const(scales), zeros, axis=axis)]
        if bias:
            held = self.const(self.rng.integers(-5000, 5000, count).astype(np.int32))
            scaled = self.const((np.float32(self.quant[0][0]) * scales).astype(np.float32))
            made.append(self.node("DequantizeLinear", held, scaled, self.const(np.zeros(count, np.int32)), axis=0))
        return made

    def finish(self, last: str, step: float) -> tuple[Any, dict[str, np.ndarray], np.ndarray, float]:
        """The model, inputs, ONNX Runtime's output with every node executed as written, the output's step."""
        outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "qdq", self.inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {name: self.rng.normal(0, 2, shape).astype(np.float32) for name, shape in self.shapes.items()}
        return model, feeds, session.run(None, feeds)[0], step


def converted(model: Any, rounding: Rounding = Rounding.F32) -> Quantized:
    graph: Graph = import_onnx(model)
    assert has_own_scales(graph)
    PassManager().run(graph, FLOAT_PIPELINE)
    made = quantize_annotated(graph, replace(QUANT_RULES, rounding=rounding))
    verify(made.graph)
    return made


def steps_off(made: Quantized, feeds: dict[str, np.ndarray], reference: np.ndarray, step: float) -> np.ndarray:
    (name,) = made.graph.output_names
    return np.abs(np.rint((interpret(made.graph, feeds)[name] - reference) / step)).astype(int)


@dataclass(frozen=True)
class OpCase:
    """One op: input shapes, weights shape, result scale and zero point, and how many elements are off by one.

    `off_f32`: with ONNX Runtime's rounding, `off_up`: with the target's, as measured.
    """

    op: str
    shapes: tuple[tuple[int, ...], ...]
    scale: float
    weights: tuple[int, ...] = ()
    bias: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)
    zero: int = 3
    activation: str = ""
    off_f32: int = 0
    off_up: int = 0


MAP = (1, 8, 9, 9)
CASES = {
    "conv": OpCase("Conv", (MAP,), 0.4, (16, 8, 3, 3), True, {"pads": [1] * 4}),
    "conv_without_bias": OpCase("Conv", (MAP,), 0.4, (16, 8, 3, 3)),
    "conv_relu": OpCase("Conv", (MAP,), 0.2, (16, 8, 3, 3), True, {"strides": [2, 2]}, -128, "Relu"),
    "conv_depthwise": OpCase("Conv", (MAP,), 0.1, (8, 1, 3, 3), False, {"group": 8}),
    "add": OpCase("Add", (MAP, MAP), 0.083117),
    "sub": OpCase("Sub", (MAP, MAP), 0.083117),
    "mul": OpCase("Mul", (MAP, MAP), 0.29713),
    "matmul": OpCase("MatMul", ((2, 5, 16), (2, 16, 7)), 0.5),
    "gemm": OpCase("Gemm", ((4, 32),), 0.4, (10, 32), True, {"transB": 1}),
    "average_pool": OpCase("AveragePool", (MAP,), 0.021371, attrs={"kernel_shape": [3, 3], "pads": [1] * 4}),
    "global_average_pool": OpCase("GlobalAveragePool", (MAP,), 0.010173),
    "concat": OpCase("Concat", (MAP, MAP, MAP), 0.070717, attrs={"axis": 1}),
    "max_pool": OpCase("MaxPool", (MAP,), 0.030731, attrs={"kernel_shape": [2, 2]}, zero=-5),
    "max": OpCase("Max", (MAP, MAP), 0.070717),
    "transpose": OpCase("Transpose", ((3, 9),), 0.030731, zero=-5),
    "sigmoid": OpCase("Sigmoid", (MAP,), 1 / 256, zero=-128),
    "hard_swish": OpCase("HardSwish", (MAP,), 0.03),
    "leaky_relu": OpCase("LeakyRelu", (MAP,), 0.03),
}


@pytest.mark.parametrize("activation", [np.int8, np.uint8])
@pytest.mark.parametrize("rounding", [Rounding.F32, Rounding.UP])
@pytest.mark.parametrize("name", list(CASES))
def test_op_equals_onnx_runtime(name: str, rounding: Rounding, activation: Any) -> None:
    case = CASES[name]
    build = Qdq(activation=activation)
    operands = [build.input(*shape) for shape in case.shapes]
    if case.weights:
        operands += build.weights(*case.weights, bias=case.bias)
    last = build.node(case.op, *operands, **case.attrs)
    if case.activation:
        last = build.node(case.activation, last)
    model, feeds, reference, step = build.finish(build.pair(last, case.scale, case.zero), case.scale)
    made = converted(model, rounding)
    assert made.report["float_ops"] == [] and made.report["scales"] == "model"
    off = steps_off(made, feeds, reference, step)
    assert off.max() <= 1
    assert np.count_nonzero(off) <= (case.off_f32 if rounding is Rounding.F32 else case.off_up)


@pytest.mark.parametrize("rounding", [Rounding.F32, Rounding.UP])
def test_differences_are_ties_and_nothing_else(rounding: Rounding) -> None:
    build = Qdq(quant=TIED_QUANT)
    last = build.pair(build.node("Add", build.input(*MAP), build.input(*MAP)), 0.08, 3)
    model, feeds, reference, step = build.finish(last, 0.08)
    off = steps_off(converted(model, rounding), feeds, reference, step)
    a, b = (
        np.clip(np.rint(feeds[name] / np.float32(scale)) + zero, -128, 127).astype(int) - zero
        for name, (scale, zero) in zip(feeds, TIED_QUANT)
    )
    tied = (3 * a + 7 * b) % 8 == 4
    assert 0 < np.count_nonzero(off) <= np.count_nonzero(tied)
    assert not np.any(off[~tied])
    assert off.max() == 1


def test_scales_are_the_models_own() -> None:
    build = Qdq()
    last = build.node("Relu", build.input(1, 4))
    made = converted(build.finish(build.pair(last, 0.25, -7), 0.25)[0])
    found = {(t["scale"], t["zero_point"]) for t in made.report["tensors"].values()}
    assert found == {(float(np.float32(INPUT_QUANT[0][0])), -5), (0.25, -7)}


def test_op_without_integer_form_sees_quantised_operands() -> None:
    build = Qdq()
    last = build.node("Softmax", build.input(3, 9), axis=0)
    model, feeds, reference, step = build.finish(build.pair(last, 1 / 256, -128), 1 / 256)
    made = converted(model)
    assert [op.name for op in made.graph.ops] == ["quantize", "dequantize", "softmax", "quantize", "dequantize"]
    assert steps_off(made, feeds, reference, step).max() == 0


def test_op_without_a_scale_for_its_result_stays_float() -> None:
    build = Qdq()
    model, feeds, reference, _ = build.finish(build.node("Conv", build.input(*MAP), *build.weights(4, 8, 1, 1)), 1)
    made = converted(model)
    assert made.report["float_op_counts"] == {"conv": 1}
    assert "scale" in made.report["float_ops"][0]["reason"]
    (name,) = made.graph.output_names
    np.testing.assert_allclose(interpret(made.graph, feeds)[name], reference, rtol=1e-4, atol=1e-4)


def test_readers_of_the_unquantised_tensor_keep_it() -> None:
    build = Qdq()
    product = build.node("Conv", build.input(*MAP), *build.weights(4, 8, 1, 1))
    rounded = build.pair(product, 0.5, 3)
    last = build.node("Sub", product, build.node("Sigmoid", rounded))
    model, feeds, reference, _ = build.finish(last, 1)
    made = converted(model)
    (name,) = made.graph.output_names
    np.testing.assert_allclose(interpret(made.graph, feeds)[name], reference, rtol=1e-4, atol=1e-4)


def test_one_tensor_with_two_scales() -> None:
    build = Qdq()
    product = build.node("Conv", build.input(*MAP), *build.weights(4, 8, 1, 1))
    coarse, fine = build.pair(product, 0.5, 3), build.pair(product, 0.1, -2)
    last = build.pair(build.node("Mul", coarse, fine), 2.0, 0)
    model, feeds, reference, step = build.finish(last, 2.0)
    assert steps_off(converted(model), feeds, reference, step).max() == 0


def test_quantised_link_inside_a_chain_of_functions_is_kept() -> None:
    build = Qdq()
    coarse = build.pair(build.node("Tanh", build.input(*MAP)), 0.25, 0)
    model, feeds, reference, step = build.finish(build.pair(build.node("Sigmoid", coarse), 1 / 256, -128), 1 / 256)
    made = converted(model)
    assert [op.name for op in made.graph.ops] == ["quantize", "lut", "lut", "dequantize"]
    assert steps_off(made, feeds, reference, step).max() == 0


def test_scale_passes_through_moves_without_pairs() -> None:
    build = Qdq()
    product = build.node("Conv", build.input(*MAP), *build.weights(4, 8, 1, 1))
    last = build.pair(build.node("Transpose", product, perm=[0, 2, 3, 1]), 0.5, 3)
    model, feeds, reference, step = build.finish(last, 0.5)
    made = converted(model)
    assert made.report["float_ops"] == []
    assert steps_off(made, feeds, reference, step).max() == 0


def test_weights_of_a_product_in_either_order() -> None:
    build = Qdq()
    product = build.node("MatMul", build.input(5, 16), *build.weights(16, 7, axis=1))
    model, feeds, reference, step = build.finish(build.pair(product, 0.5, 3), 0.5)
    made = converted(model)
    assert [op.name for op in made.graph.ops] == ["quantize", "linear", "dequantize"]
    assert steps_off(made, feeds, reference, step).max() == 0
