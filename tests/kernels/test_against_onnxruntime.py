# SPDX-License-Identifier: Apache-2.0
"""One-node ONNX models: the imported graph on the host kernels against ONNX Runtime."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
from kernel_harness import assert_near, run_graph

from gadl.compiler.ir.opdef import Trait, all_ops
from gadl.compiler.ir.types import Array
from gadl.frontends.onnx import import_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

#: Tolerances of `docs/numerics.md` section 6.
PRODUCT = (1e-4, 1e-4)
ELEMENTWISE = (1e-5, 1e-6)
EQUAL = (0.0, 0.0)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name, so that cases differ and repeat."""
    return np.random.default_rng(list(request.node.name.encode()))


def check(op_type: str, feeds: list[Array], constants: dict[int, Array] | None = None, tolerance: tuple[float, float] = ELEMENTWISE, **attrs: Any) -> None:
    """Compare one node. feeds: model inputs in operand order; constants: operands by their position."""
    constants = constants or {}
    rest = iter(range(len(feeds)))
    names = [f"c{i}" if i in constants else f"x{next(rest)}" for i in range(len(feeds) + len(constants))]
    kind = onnx.helper.np_dtype_to_tensor_dtype
    inputs = [onnx.helper.make_tensor_value_info(f"x{i}", kind(a.dtype), a.shape) for i, a in enumerate(feeds)]
    node = onnx.helper.make_node(op_type, ["" if n[0] == "c" and constants[int(n[1:])].size == 0 else n for n in names], ["y"], **attrs)
    weights = [onnx.numpy_helper.from_array(a, f"c{i}") for i, a in constants.items() if a.size]
    graph = onnx.helper.make_graph([node], "one", inputs, [onnx.helper.make_empty_tensor_value_info("y")], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    named = {f"x{i}": a for i, a in enumerate(feeds)}
    (wanted,) = session.run(None, named)
    output = graph.output[0]
    output.CopyFrom(onnx.helper.make_tensor_value_info("y", kind(wanted.dtype), wanted.shape))
    (found,) = run_graph(import_onnx(model, simplify=False), named).values()
    rtol, atol = tolerance
    scale = max(1.0, float(np.abs(wanted).max())) if tolerance == PRODUCT and wanted.size else 1.0
    if tolerance == EQUAL:
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(found, wanted)
    else:
        assert_near(found, wanted, rtol, atol * scale)


def real(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("attrs", [
    dict(strides=[1, 1], pads=[1, 1, 1, 1]), dict(strides=[2, 3], pads=[0, 1, 2, 1]), dict(dilations=[2, 1], group=3),
    dict(auto_pad="SAME_UPPER", strides=[2, 2]), dict(group=6, pads=[1, 1, 1, 1], strides=[2, 2]),
], ids=str)  # fmt: skip
def test_conv(rng: np.random.Generator, attrs: dict[str, Any]) -> None:
    group = attrs.get("group", 1)
    check("Conv", [real(rng, 2, 6, 13, 11)], {1: real(rng, 12, 6 // group, 3, 3), 2: real(rng, 12)}, PRODUCT, **attrs)


@pytest.mark.parametrize("attrs", [
    dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]), dict(strides=[3, 1], group=2), dict(dilations=[2, 2], pads=[2, 0, 1, 2]),
], ids=str)  # fmt: skip
def test_conv_transpose(rng: np.random.Generator, attrs: dict[str, Any]) -> None:
    check("ConvTranspose", [real(rng, 1, 6, 5, 7)], {1: real(rng, 6, 4, 3, 3), 2: real(rng, 4 * attrs.get("group", 1))}, PRODUCT, **attrs)


def test_products(rng: np.random.Generator) -> None:
    check("Gemm", [real(rng, 5, 33)], {1: real(rng, 19, 33), 2: real(rng, 19)}, PRODUCT, transB=1)
    check("MatMul", [real(rng, 2, 1, 9, 17), real(rng, 3, 17, 21)], None, PRODUCT)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic(rng: np.random.Generator, op_type: str) -> None:
    check(op_type, [real(rng, 2, 3, 1, 5), real(rng, 4, 1)])


@pytest.mark.parametrize("op_type", ["Equal", "Less", "GreaterOrEqual"])
def test_comparisons(rng: np.random.Generator, op_type: str) -> None:
    check(op_type, [np.round(real(rng, 30, 4)), np.round(real(rng, 4))], None, EQUAL)


FUNCTIONS = [op_type for d in all_ops() if Trait.UNARY in d.traits for op_type in d.onnx if op_type not in ("Not", "Clip")]


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_functions(rng: np.random.Generator, op_type: str) -> None:
    x = 3 * real(rng, 3, 50)
    x[0, :4] = 0.5, 1.5, -0.5, 2.5
    if op_type in ("Log", "Sqrt", "Reciprocal"):
        x = np.abs(x) + np.float32(0.01)
    # ONNX Runtime approximates some with polynomials.
    exact = op_type in ("Relu", "Neg", "Abs", "Floor", "Ceil", "Round", "Sign")
    check(op_type, [x], None, EQUAL if exact else (1e-5, 3e-6))


@pytest.mark.parametrize("attrs", [
    dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), dict(kernel_shape=[2, 3], strides=[1, 2]),
    dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
], ids=str)  # fmt: skip
def test_pooling(rng: np.random.Generator, attrs: dict[str, Any]) -> None:
    x = real(rng, 2, 3, 10, 9)
    check("MaxPool", [x], None, EQUAL, **attrs)
    for include in (0, 1):
        check("AveragePool", [x], None, ELEMENTWISE, **attrs, count_include_pad=include)
    check("GlobalAveragePool", [x])


@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"])
def test_reductions(rng: np.random.Generator, op_type: str) -> None:
    for axes, keepdims in ([1], 1), ([-1, 0], 0), ([2, 3], 1):
        check(op_type, [real(rng, 2, 3, 4, 5)], {1: np.array(axes)}, (1e-5, 1e-5), keepdims=keepdims)
    check("ArgMax", [np.round(real(rng, 3, 40))], None, EQUAL, axis=1, keepdims=0)


def test_normalisation(rng: np.random.Generator) -> None:
    x = real(rng, 2, 6, 5, 4)
    channel = {i: rng.uniform(0.5, 1.5, 6).astype(np.float32) for i in range(1, 5)}
    check("BatchNormalization", [x], channel)
    check("InstanceNormalization", [x], {1: channel[1], 2: channel[2]}, (1e-5, 5e-6))
    check("LayerNormalization", [x], {1: real(rng, 5, 4), 2: real(rng, 5, 4)}, (1e-5, 5e-6), axis=2)
    for axis in (1, -1):
        check("Softmax", [4 * x], axis=axis)
        check("LogSoftmax", [4 * x], None, (1e-5, 5e-6), axis=axis)


def test_movement(rng: np.random.Generator) -> None:
    x = real(rng, 2, 3, 4, 5)
    check("Transpose", [x], None, EQUAL, perm=[0, 3, 1, 2])
    check("Concat", [x, real(rng, 2, 1, 4, 5)], None, EQUAL, axis=1)
    check("Slice", [x], {1: np.array([0, -1]), 2: np.array([3, -9]), 3: np.array([2, 3]), 4: np.array([2, -2])}, EQUAL)
    check("Gather", [x], {1: np.array([[0, -1], [2, 1]])}, EQUAL, axis=2)
    check("Expand", [x[:, :1]], {1: np.array([2, 6, 1, 5])}, EQUAL)
    check("Tile", [x], {1: np.array([1, 2, 1, 3])}, EQUAL)
    for mode in ("constant", "reflect", "edge"):
        check("Pad", [x], {1: np.array([0, 1, 2, 0, 1, 0, 1, 3])}, EQUAL, mode=mode)


@pytest.mark.parametrize("coordinate", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(rng: np.random.Generator, mode: str, coordinate: str) -> None:
    for height, width in ((10, 21), (7, 4)):
        absent = np.zeros(0, np.float32)
        constants = {1: absent, 2: absent, 3: np.array([1, 2, height, width])}
        tolerance = EQUAL if mode == "nearest" else (1e-4, 1e-5)
        check("Resize", [real(rng, 1, 2, 5, 7)], constants, tolerance, mode=mode, coordinate_transformation_mode=coordinate)


@pytest.mark.suite
@pytest.mark.parametrize("name", ["mobilenet_v2", "fashion_cnn"])
def test_models(rng: np.random.Generator, name: str) -> None:
    folder = os.environ.get("GADL_SUITE")
    if not folder:
        pytest.skip("GADL_SUITE is not set")
    sys.path.insert(0, folder)
    import suite

    path = str(suite.load(name).static_onnx)
    graph = import_onnx(path)
    feeds = {v.name: rng.standard_normal(v.shape).astype(v.dtype.numpy) for v in graph.inputs}
    wanted = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    for a, b in zip(run_graph(graph, feeds).values(), wanted, strict=True):
        assert_near(a, b, 1e-3, 1e-4 * float(np.abs(b).max()))
