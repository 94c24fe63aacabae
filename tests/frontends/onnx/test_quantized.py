# SPDX-License-Identifier: Apache-2.0
"""Quantised models: scales, zero points and stored types survive; the numbers are ONNX Runtime's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.types import DType
from gadl.compiler.ir.verify import verify
from gadl.frontends.onnx import import_onnx

from .models import model_of, onnxruntime_run

F32 = np.float32


def node(op: str, inputs: str, output: str, domain: str = "", **attrs: Any) -> Any:
    return helper.make_node(op, ["" if n == "-" else n for n in inputs.split()], output.split(), output, domain=domain, **attrs)


def checked(nodes: list[Any], inputs: dict[str, np.ndarray], constants: dict[str, Any], off: int = 0, opset: int = 17,
            output: str = "y", **options: Any) -> Graph:  # fmt: skip
    """Import, run, and compare with ONNX Runtime; integers may be `off` by that much."""
    held = {n: np.asarray(v) for n, v in constants.items()}
    model = model_of(nodes, inputs, held, (output,), opset)
    graph = import_onnx(model, simplify=False, **options)
    verify(graph)
    expected, found = onnxruntime_run(model, inputs)[output], interpret(graph, inputs)[output]
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if np.issubdtype(found.dtype, np.integer):
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= off
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(found)) > 3, "the case says nothing"
    return graph


def stored(dtype: Any, *shape: int, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, shape).astype(F32)


@pytest.mark.parametrize(("dtype", "zero", "held"), [(np.uint8, 100, DType.I8), (np.int8, -5, DType.I8), (np.int16, 0, DType.I16)])
def test_pair(dtype: Any, zero: int, held: DType) -> None:
    """u8 becomes i8 with the zero point 128 lower, the real numbers stay; a u8 output of the model stays u8."""
    constants = {"s": F32(0.03), "z": dtype(zero)}
    graph = checked([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")], {"x": real(4, 9)}, constants,
                    opset=21)  # fmt: skip
    quantised = graph.ops[0].result
    assert [op.name for op in graph.ops] == ["quantize", "dequantize"]
    assert quantised.dtype is held and quantised.quant is not None
    assert quantised.quant.zero_point == zero - (128 if dtype is np.uint8 else 0)
    checked([node("QuantizeLinear", "x s z", "y")], {"x": real(4, 9)}, constants, opset=21)


def test_weights_stay_integers() -> None:
    """Per-channel i8 weights and an i32 bias are constants with scales."""
    scale = np.array([0.01, 0.02, 0.03, 0.04], F32)
    constants = {
        "w": stored(np.int8, 4, 3, 3, 3), "ws": scale, "wz": np.zeros(4, np.int8), "b": np.arange(4, dtype=np.int32) * 100,
        "bs": scale * F32(0.05), "bz": np.zeros(4, np.int32), "s": F32(0.05), "z": np.uint8(120),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0), node("DequantizeLinear", "b bs bz", "bd", axis=0),
        node("Conv", "xd wd bd", "y"),
    ]  # fmt: skip
    graph = checked(nodes, {"x": real(1, 3, 6, 6)}, constants)
    weights, bias = (v for v in graph.constants())
    assert weights.dtype is DType.I8 and weights.quant is not None and weights.quant.axis == 0
    assert weights.quant.scale == tuple(map(float, scale))
    assert bias.dtype is DType.I32 and bias.quant is not None


def test_unsigned_weights_are_shifted() -> None:
    data = stored(np.uint8, 5, 4)
    graph = checked([node("DequantizeLinear", "w s z", "wd"), node("MatMul", "x wd", "y")], {"x": real(3, 5)},
                    {"w": data, "s": F32(0.01), "z": np.uint8(7)})  # fmt: skip
    (held,) = graph.constants()
    assert held.data is not None and held.quant is not None and held.quant.zero_point == 7 - 128
    np.testing.assert_array_equal(held.data.astype(int), data.astype(int) - 128)


def test_weights_that_the_type_cannot_hold_become_real() -> None:
    """Zero points that differ per channel."""
    constants = {"w": stored(np.uint8, 4, 5), "s": np.full(4, 0.01, F32), "z": np.array([0, 10, 128, 255], np.uint8)}
    graph = checked([node("DequantizeLinear", "w s z", "wd", axis=0), node("Add", "x wd", "y")], {"x": real(4, 5)}, constants)
    assert [op.name for op in graph.ops] == ["add"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integer_inputs(dtype: Any) -> None:
    """A model fed with bytes keeps its input type; the pair behind it has the model's scale."""
    constants = {"s": F32(0.02), "z": dtype(3)}
    graph = checked([node("DequantizeLinear", "x s z", "d"), node("Relu", "d", "y")], {"x": stored(dtype, 4, 4)}, constants)
    assert graph.inputs[0].dtype is DType.of(dtype)
    (quantised,) = [op.result for op in graph.ops if op.name == "quantize"]
    assert quantised.quant is not None and quantised.quant.scale == (float(F32(0.02)),)


def seven_bits(*shape: int) -> np.ndarray:
    """i8 that ONNX Runtime multiplies with u8 correctly: without VNNI its pairwise sums saturate at 16 bits."""
    return stored(np.int8, *shape) >> 1


QCONV = {"xs": F32(0.05), "xz": np.uint8(120), "w": stored(np.uint8, 4, 3, 3, 3), "ws": F32(0.01), "wz": np.uint8(125),
         "b": np.arange(4, dtype=np.int32) * 50, "ys": F32(0.2), "yz": np.uint8(130)}  # fmt: skip


def test_qlinear_network() -> None:
    """QuantizeLinear, QLinearConv, MaxPool and Reshape on bytes, QLinearMatMul, bytes out."""
    constants = {
        **QCONV, "shape": np.array([1, -1]), "m": stored(np.uint8, 64, 5, seed=1), "ms": F32(0.01), "mz": np.uint8(128),
        "os": F32(0.9), "oz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("QLinearConv", "q xs xz w ws wz ys yz b", "c", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "p shape", "r"),
        node("QLinearMatMul", "r ys yz m ms mz os oz", "y"),
    ]
    graph = checked(nodes, {"x": real(1, 3, 8, 8)}, constants, off=1)
    assert graph.outputs[0].dtype is DType.U8
    for op in graph.ops:
        if op.name == "quantize":
            assert all(user.name in ("dequantize", "cast") for user in op.result.users)


def test_bytes_read_as_numbers() -> None:
    """An op that computes with the stored bytes sees them unsigned."""
    constants = {"s": F32(0.03), "z": np.uint8(100)}
    checked([node("QuantizeLinear", "x s z", "q"), node("Cast", "q", "y", to=1)], {"x": real(4, 9)}, constants)


MICROSOFT = [
    ("QLinearAdd", "q s z r rs rz ys yz", {}),
    ("QLinearMul", "q s z r rs rz ys yz", {}),
    ("QLinearSigmoid", "q s z os oz", {}),
    ("QLinearLeakyRelu", "q s z ys yz", {"alpha": 0.2}),
    ("QLinearGlobalAveragePool", "q s z ys yz", {"channels_last": 0}),
    ("QLinearAveragePool", "q s z ys yz", {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}),
    ("QLinearConcat", "ys yz q s z r rs rz", {"axis": 1}),
]


@pytest.mark.parametrize(("op", "operands", "attrs"), MICROSOFT, ids=[m[0] for m in MICROSOFT])
def test_onnxruntime_ops(op: str, operands: str, attrs: dict[str, Any]) -> None:
    constants = {
        "s": F32(0.03), "z": np.uint8(100), "rs": F32(0.02), "rz": np.uint8(90), "r": stored(np.uint8, 1, 4, 5, 5),
        "ys": F32(0.011), "yz": np.uint8(128), "os": F32(1 / 256), "oz": np.uint8(0),
    }  # fmt: skip
    nodes = [node("QuantizeLinear", "x s z", "q"), node(op, operands, "y", "com.microsoft", **attrs)]
    checked(nodes, {"x": real(1, 4, 5, 5)}, constants, off=1)


def test_qgemm() -> None:
    constants = {
        "s": F32(0.03), "z": np.uint8(100), "w": seven_bits(4, 6), "ws": np.array([1, 2, 3, 4], F32) / 100,
        "wz": np.zeros(4, np.int8), "b": np.arange(4, dtype=np.int32) * 100, "ys": F32(0.2), "yz": np.uint8(128),
    }  # fmt: skip
    nodes = [node("QuantizeLinear", "x s z", "q"), node("QGemm", "q s z w ws wz b ys yz", "y", "com.microsoft", transB=1)]
    checked(nodes, {"x": real(3, 6)}, constants, off=1)


def test_dynamic_quantisation() -> None:
    """What ONNX Runtime's dynamic quantisation writes around a product."""
    constants = {"w": seven_bits(6, 5), "wz": np.int8(3), "ws": F32(0.01)}
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w z wz", "i"), node("Cast", "i", "f", to=1),
        node("Mul", "s ws", "scale"), node("Mul", "f scale", "y"),
    ]  # fmt: skip
    checked(nodes, {"x": real(4, 6)}, constants)


@pytest.mark.parametrize("zero", [np.uint8(9), np.array([1, 2, 3, 4], np.uint8)])
def test_integer_products(zero: np.ndarray) -> None:
    constants = {"w": stored(np.uint8, 6, 4), "az": np.uint8(7), "wz": zero}
    checked([node("MatMulInteger", "x w az wz", "y")], {"x": stored(np.uint8, 5, 6)}, constants)
    conv = {"w": stored(np.uint8, 4, 3, 3, 3), "az": np.uint8(7), "wz": np.uint8(9)}
    checked([node("ConvInteger", "x w az wz", "y", pads=[1, 1, 1, 1])], {"x": stored(np.uint8, 1, 3, 5, 5)}, conv)


def test_scales_must_be_positive() -> None:
    """Every offending node is named."""
    bad = {"s": F32(0), "t": F32(-1), "z": np.int8(0)}
    nodes = [node("QuantizeLinear", "x s z", "q1"), node("QuantizeLinear", "x t z", "q2"), node("Add", "x x", "y")]
    with pytest.raises(GadlError) as caught:
        import_onnx(model_of(nodes, {"x": real(2, 2)}, bad, ("q1", "q2", "y")), simplify=False)
    assert Counter(d.code for d in caught.value.diagnostics) == {"GADL-F002": 2}
    assert "q1" in caught.value.diagnostics[0].where and "q2" in caught.value.diagnostics[1].where
