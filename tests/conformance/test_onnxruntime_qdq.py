# SPDX-License-Identifier: Apache-2.0
"""One-op QDQ models with their own scales, on the simulated device against ONNX Runtime.

ONNX Runtime computes in float and rounds once to nearest even; the device sums integers and rounds half up, or, with rounding
`f32`, the way ONNX Runtime does. So results are equal or, in halves, off by one; `CASES` bounds how many. What moves data, takes
maxima or reads tables is equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.types import Rounding

from .qdq import Build, Qdq, compare

Shape = tuple[int, ...]
MAP = (1, 12, 17, 15)


def weighted(op: str, shape: Shape, weights: Shape, bias: bool = True, axis: int = 0, after: str = "", **attrs: Any) -> Build:
    def build(q: Qdq) -> str:
        operands = [q.input(*shape), q.weights(*weights, axis=axis)]
        made = q.node(op, *operands, *([q.bias()] if bias else []), **attrs)
        return q.node(after, made) if after else made

    return build


def plain(op: str, *shapes: Shape, constants: tuple[Any, ...] = (), outputs: int = 1, **attrs: Any) -> Build:
    def build(q: Qdq) -> str:
        operands = [q.input(*shape) for shape in shapes]
        return q.node(op, *operands, *("" if c is None else q.const(c) for c in constants), outputs=outputs, **attrs)

    return build


@dataclass(frozen=True)
class Case:
    """One op.

    `halves`: the largest share of results off by one that rounding half up makes where scales are powers of two; `off`: that of
    any other difference, beyond one element in 10000. `device`: an op that must run there.
    """

    build: Build
    device: str = ""
    halves: float = 0.0
    off: float = 1e-4
    same_scale: bool = False
    stays_float: bool = False


def conv(weights: Shape = (16, 12, 3, 3), shape: Shape = MAP, **attrs: Any) -> Case:
    return Case(weighted("Conv", shape, weights, **attrs), "conv", 0.01)


def moved(op: str, device: str, *shapes: Shape, **kwargs: Any) -> Case:
    return Case(plain(op, *(shapes or (MAP,)), **kwargs), device, off=0.0, same_scale=True)


def table(op: str, **attrs: Any) -> Case:
    return Case(plain(op, MAP, **attrs), "lut", off=0.0)


def resize(mode: str, coordinate: str, factor: float, halves: float, off: float) -> Case:
    extra: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
    scales = np.array([1, 1, factor, factor], np.float32)
    build = plain("Resize", MAP, constants=(None, scales), mode=mode, coordinate_transformation_mode=coordinate, **extra)
    return Case(build, "resize", halves, off, same_scale=mode == "nearest")


CASES = {
    "conv": conv(pads=[1, 1, 1, 1]),
    "conv_batch": conv(shape=(2, 12, 9, 7), pads=[1, 1, 1, 1]),
    "conv_no_bias": conv(bias=False),
    "conv_stride": conv(strides=[2, 2], pads=[0, 1, 1, 0]),
    "conv_dilated": conv(dilations=[2, 3], pads=[2, 3, 2, 3]),
    "conv_pointwise": conv((32, 12, 1, 1)),
    "conv_1d": conv((16, 12, 5), (1, 12, 60), strides=[2], pads=[2, 2]),
    "conv_depthwise": conv((12, 1, 3, 3), group=12, pads=[1, 1, 1, 1]),
    "conv_relu": conv(after="Relu", pads=[1, 1, 1, 1]),
    "conv_transpose": Case(
        weighted("ConvTranspose", (1, 12, 7, 6), (12, 9, 3, 3), axis=1, strides=[2, 2], pads=[1, 1, 0, 0]), "conv_transpose", 0.01
    ),
    "gemm": Case(weighted("Gemm", (9, 64), (40, 64), transB=1), "linear", 0.01),
    "matmul_weights": Case(weighted("MatMul", (2, 9, 64), (64, 40), bias=False, axis=1), "linear", 0.01),
    "matmul": Case(plain("MatMul", (2, 9, 64), (2, 64, 40)), "matmul", 0.01),
    "add": Case(plain("Add", MAP, MAP), "add", 0.3),
    "add_broadcast": Case(plain("Add", MAP, (1, 12, 1, 1)), "add", 0.3),
    "sub": Case(plain("Sub", MAP, MAP), "sub", 0.3),
    "mul": Case(plain("Mul", MAP, MAP), "mul", 0.04),
    "mul_gate": Case(plain("Mul", MAP, (1, 12, 1, 1)), "mul", 0.05),
    "average_pool": Case(plain("AveragePool", MAP, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]), "avg_pool", 0.03),
    "average_pool_counted": Case(
        plain("AveragePool", MAP, kernel_shape=[2, 3], pads=[1, 1, 0, 1], count_include_pad=1), "avg_pool", 0.05
    ),
    "global_average_pool": Case(plain("GlobalAveragePool", (1, 200, 7, 5)), "reduce_mean", 0.01),
    "reduce_sum": Case(plain("ReduceSum", (1, 200, 7, 5), constants=(np.array([2, 3]),)), "reduce_sum", 0.15),
    "concat": Case(plain("Concat", MAP, MAP, MAP, axis=1), "concat", 0.08),
    "max": Case(plain("Max", MAP, MAP), "max", 0.08),
    "resize_linear": resize("linear", "half_pixel", 2.0, 0.08, 1e-4),
    # Weights of one third are rounded to eleven bits.
    "resize_linear_third": resize("linear", "asymmetric", 3.0, 0.02, 0.02),
    "resize_nearest": resize("nearest", "asymmetric", 2.0, 0.0, 0.0),
    "max_pool": moved("MaxPool", "max_pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    "relu": table("Relu"),
    "clip": table("Clip", constants=(np.float32(-1), np.float32(2))),
    "leaky_relu": table("LeakyRelu", alpha=0.1),
    "hard_swish": table("HardSwish"),
    "hard_sigmoid": table("HardSigmoid", alpha=1 / 6, beta=0.5),
    "sigmoid": table("Sigmoid"),
    "tanh": table("Tanh"),
    "elu": table("Elu"),
    "gelu": table("Gelu"),
    "softmax": Case(plain("Softmax", (6, 40), axis=1), stays_float=True),
    "pad": moved("Pad", "pad", constants=(np.array([0, 0, 1, 2, 0, 0, 3, 1]),)),
    "transpose": moved("Transpose", "transpose", perm=[0, 2, 3, 1]),
    "reshape": moved("Reshape", "reshape", constants=(np.array([12, -1]),)),
    "flatten": moved("Flatten", "reshape"),
    "slice": moved("Slice", "slice", constants=(np.array([2, 1]), np.array([11, 15]), np.array([1, 2]), np.array([3, 2]))),
    "split": moved("Split", "slice", constants=(np.array([5, 7]),), axis=1, outputs=2),
    "gather": moved("Gather", "", constants=(np.array([3, -1, 0]),), axis=2),
}  # fmt: skip


MODELS = [(activation, symmetric) for activation in (np.int8, np.uint8) for symmetric in (True, False)]


def differences(
    rng: np.random.Generator, case: Case, rounding: Rounding, powers: bool = False, fused: bool = False
) -> tuple[int, int]:
    """Elements off by one, and elements, over int8 and uint8 activations with and without zero points."""
    off = total = 0
    for activation, symmetric in MODELS:
        made = Qdq(rng, activation, symmetric, powers)
        found = compare(made, case.build, rounding, fused=fused, same_scale=case.same_scale)
        assert bool(found.float_ops) == case.stays_float
        assert not case.device or case.device in found.device
        assert found.values > 8, "the case says nothing"
        assert np.abs(found.off).max() <= 1
        off, total = off + int(np.count_nonzero(found.off)), total + found.off.size
    return off, total


def allowed(share: float, total: int) -> int:
    return max(1, int(share * total)) if share else 0


@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.F32], ids=lambda r: r.value)
@pytest.mark.parametrize("name", CASES)
def test_op(rng: np.random.Generator, name: str, rounding: Rounding) -> None:
    """Scales as training finds them: halves do not occur, and the two roundings agree with ONNX Runtime alike."""
    case = CASES[name]
    off, total = differences(rng, case, rounding)
    assert off <= allowed(case.off, total)


@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.F32], ids=lambda r: r.value)
@pytest.mark.parametrize("name", CASES)
def test_op_with_halves(rng: np.random.Generator, name: str, rounding: Rounding) -> None:
    """Scales that are powers of two: rounding `f32` gives ONNX Runtime's results, every one; half up differs in halves."""
    case = CASES[name]
    off, total = differences(rng, case, rounding, powers=True)
    assert off <= (allowed(case.halves, total) if rounding is Rounding.UP else 0)


@pytest.mark.parametrize("name", CASES)
def test_op_on_integer_kernels(rng: np.random.Generator, name: str) -> None:
    """ONNX Runtime with its optimisations replaces the pairs by integer kernels, which scale in float."""
    case = CASES[name]
    off, total = differences(rng, case, Rounding.UP, fused=True)
    assert off <= allowed(0.05 if case.stays_float else case.off if case.same_scale else max(case.off, 1e-3), total)
