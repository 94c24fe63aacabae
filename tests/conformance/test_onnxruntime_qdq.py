# SPDX-License-Identifier: Apache-2.0
"""One-op QDQ models with their own scales, on the simulated device against ONNX Runtime.

ONNX Runtime computes in float and rounds once to nearest even; the device sums integers and rounds half up, or, with rounding
`f32`, the way ONNX Runtime does. So results are equal or, in halves and near them, off by one; `CASES` bounds how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.types import Rounding

from .qdq import Qdq, compare

MAP = (1, 12, 17, 15)
EMPTY = ""


def weighted(op: str, shape: tuple[int, ...], weights: tuple[int, ...], bias: bool = True, axis: int = 0, after: str = "", **attrs: Any) -> Callable[[Qdq], str]:
    def build(q: Qdq) -> str:
        operands = [q.input(*shape), q.weights(*weights, axis=axis)]
        made = q.node(op, *operands, *([q.bias()] if bias else []), **attrs)
        return q.node(after, made) if after else made

    return build


def plain(op: str, *shapes: tuple[int, ...], constants: tuple[Any, ...] = (), outputs: int = 1, **attrs: Any) -> Callable[[Qdq], str]:
    def build(q: Qdq) -> str:
        operands = [q.input(*shape) for shape in shapes]
        return q.node(op, *operands, *("" if c is None else q.const(c) for c in constants), outputs=outputs, **attrs)

    return build


@dataclass(frozen=True)
class Case:
    """`up`, `f32`: the largest share of elements that may be off by one, in each rounding. `device`: an op that must run there."""

    build: Callable[[Qdq], str]
    device: str = ""
    up: float = 0.0
    f32: float = 0.0
    same_scale: bool = False
    stays_float: bool = False


def conv(weights: tuple[int, ...] = (16, 12, 3, 3), shape: tuple[int, ...] = MAP, **attrs: Any) -> Case:
    return Case(weighted("Conv", shape, weights, **attrs), "conv", 1e-3, 1e-3)


def moved(op: str, device: str, *shapes: tuple[int, ...], **kwargs: Any) -> Case:
    return Case(plain(op, *(shapes or (MAP,)), **kwargs), device, same_scale=True)


def table(op: str, **attrs: Any) -> Case:
    return Case(plain(op, MAP, **attrs), "lut")


def resize(mode: str, coordinate: str, factor: float, same: bool) -> Case:
    build = plain("Resize", MAP, constants=(None, np.array([1, 1, factor, factor], np.float32)), mode=mode,
                  coordinate_transformation_mode=coordinate, **({"nearest_mode": "floor"} if mode == "nearest" else {}))  # fmt: skip
    return Case(build, "resize", 0.0 if same else 1.0, 0.0 if same else 1.0, same)


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
        weighted("ConvTranspose", (1, 12, 7, 6), (12, 9, 3, 3), axis=1, strides=[2, 2], pads=[1, 1, 0, 0]), "conv_transpose", 1e-3, 1e-3
    ),
    "gemm": Case(weighted("Gemm", (9, 64), (40, 64), transB=1), "linear", 1e-3, 1e-3),
    "matmul_weights": Case(weighted("MatMul", (2, 9, 64), (64, 40), bias=False, axis=1), "linear", 1e-3, 1e-3),
    "matmul": Case(plain("MatMul", (2, 9, 64), (2, 64, 40)), "matmul", 1e-3, 1e-3),
    "add": Case(plain("Add", MAP, MAP), "add", 1e-3, 1e-3),
    "add_broadcast": Case(plain("Add", MAP, (1, 12, 1, 1)), "add", 1e-3, 1e-3),
    "sub": Case(plain("Sub", MAP, MAP), "sub", 1e-3, 1e-3),
    "mul": Case(plain("Mul", MAP, MAP), "mul", 1e-3, 1e-3),
    "mul_gate": Case(plain("Mul", MAP, (1, 12, 1, 1)), "mul", 1e-3, 1e-3),
    "average_pool": Case(plain("AveragePool", MAP, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]), "avg_pool", 1e-3, 1e-3),
    "average_pool_counted": Case(
        plain("AveragePool", MAP, kernel_shape=[2, 3], pads=[1, 1, 0, 1], count_include_pad=1), "avg_pool", 1e-3, 1e-3
    ),
    "global_average_pool": Case(plain("GlobalAveragePool", (1, 200, 7, 5)), "reduce_mean", 1e-3, 1e-3),
    "reduce_sum": Case(plain("ReduceSum", (1, 200, 7, 5), constants=(np.array([2, 3]),)), "reduce_sum", 1e-3, 1e-3),
    "concat": Case(plain("Concat", MAP, MAP, MAP, axis=1), "concat", 1e-3, 1e-3),
    "max": Case(plain("Max", MAP, MAP), "max", 1e-3, 1e-3),
    "resize_linear": resize("linear", "half_pixel", 2.0, False),
    "resize_linear_third": resize("linear", "asymmetric", 3.0, False),
    "resize_nearest": resize("nearest", "asymmetric", 2.0, True),
    "max_pool": moved("MaxPool", "max_pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    "relu": Case(plain("Relu", MAP), ""),
    "clip": Case(plain("Clip", MAP, constants=(np.float32(-1), np.float32(2))), ""),
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


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("activation", [np.int8, np.uint8])
@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.F32], ids=lambda r: r.value)
@pytest.mark.parametrize("name", CASES)
def test_op(rng: np.random.Generator, name: str, rounding: Rounding, activation: Any, symmetric: bool) -> None:
    case = CASES[name]
    found = compare(case.build, rng, activation, symmetric, rounding, False, case.same_scale)
    assert bool(found.float_ops) == case.stays_float
    assert not case.device or case.device in found.device
    assert found.values > 10, "the case says nothing"
    assert np.abs(found.off).max() <= 1
    assert np.count_nonzero(found.off) <= (case.f32 if rounding is Rounding.F32 else case.up) * found.off.size
