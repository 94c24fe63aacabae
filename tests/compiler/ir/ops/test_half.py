# SPDX-License-Identifier: Apache-2.0
"""Half-precision forms, bit for bit against scalar loops in the canonical order (`docs/numerics.md` section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from integer_reference import taps

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import Array, DType

HALVES = [DType.F16, DType.BF16]


def evaluate(op: str, operands: list[Array | None], **attrs: Any) -> Array:
    graph = Graph()
    values = [None if a is None else graph.constant(a) for a in operands]
    graph.set_outputs([Builder(graph).create(op, values, attrs).result], ["y"])
    return interpret(graph, {})["y"]


def noise(dtype: DType, *shape: int) -> Array:
    """Values of very different sizes, so that the order of a sum shows."""
    rng = np.random.default_rng(list(repr((dtype, shape)).encode()))
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape)).astype(dtype.numpy)


def fused(total: np.float32, a: Any, b: Any) -> np.float32:
    """`total + a * b` rounded once to f32: the product of two halves is exact in f32, and so is the sum in f64."""
    return np.float32(np.float64(total) + np.float64(a) * np.float64(b))


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.value)
@pytest.mark.parametrize("groups", [1, 3])
def test_conv(dtype: DType, groups: int) -> None:
    x, w, b, r = noise(dtype, 1, 6, 5, 4), noise(dtype, 3, 6 // groups, 3, 2), noise(DType.F32, 3), noise(dtype, 1, 3, 3, 3)
    strides, pads, dilations = (2, 1), (1, 0, 1, 0), (1, 1)
    found = evaluate("conv", [x, w, b, r], strides=strides, pads=pads, dilations=dilations, groups=groups)
    wanted = np.empty(found.shape, dtype.numpy)
    for n, o, *at in np.ndindex(found.shape):
        total = np.float32(0)
        for tap, where in taps(x, at, (3, 2), strides, pads, dilations):
            for c in range(6 // groups):
                if where is not None:
                    total = fused(total, x[(n, o // (3 // groups) * (6 // groups) + c, *where)], w[(o, c, *tap)])
        total = np.float32(total + b[o])
        wanted[(n, o, *at)] = np.float32(total + np.float32(r[(n, o, *at)])).astype(dtype.numpy)
    assert found.dtype == dtype.numpy
    np.testing.assert_array_equal(found.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.value)
def test_products(dtype: DType) -> None:
    x, w, batch = noise(dtype, 3, 17), noise(dtype, 5, 17), noise(dtype, 2, 17, 4)
    linear, matmul = evaluate("linear", [x, w]), evaluate("matmul", [x, batch])

    def dot(a: Array, b: Array) -> Any:
        total = np.float32(0)
        for u, v in zip(a, b):
            total = fused(total, u, v)
        return total.astype(dtype.numpy)

    for i, j in np.ndindex(3, 5):
        assert linear[i, j] == dot(x[i], w[j])
    for n, i, j in np.ndindex(2, 3, 4):
        assert matmul[n, i, j] == dot(x[i], batch[n, :, j])


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.value)
def test_order_shows_where_large_terms_cancel(dtype: DType) -> None:
    """Terms 2^26, -2^26, 1 give 1 in ascending order and 0 in any other that matters."""
    terms = np.array([2.0**13, -(2.0**13), 2.0**-13], np.float64)
    x, w = terms.astype(dtype.numpy), np.full(3, 2.0**13, dtype.numpy)
    rest = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    assert evaluate("conv", [x.reshape(1, 3, 1, 1), w.reshape(1, 3, 1, 1)], **rest).item() == 1, "channels"
    assert evaluate("conv", [x.reshape(1, 1, 3, 1), w.reshape(1, 1, 3, 1)], **rest).item() == 1, "kernel rows"
    assert evaluate("conv", [x.reshape(1, 1, 1, 3), w.reshape(1, 1, 1, 3)], **rest).item() == 1, "kernel columns"
    assert evaluate("linear", [x[None], w[None]]).item() == 1
    assert evaluate("matmul", [x[None], w[:, None]]).item() == 1
    # Two channels of two taps: tap by tap, each over the channels. Channel by channel, the last term would be lost.
    x = np.array([2.0**13, 1, -(2.0**13), 2.0**-13]).astype(dtype.numpy).reshape(1, 2, 1, 2)
    w = np.array([2.0**13, 0, 2.0**13, 2.0**13]).astype(dtype.numpy).reshape(1, 2, 1, 2)
    assert evaluate("conv", [x, w], **rest).item() == 1, "taps before channels"


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.value)
def test_other_ops_round_once(dtype: DType) -> None:
    a, b = noise(dtype, 64), noise(dtype, 64)
    wide = a.astype(np.float32), b.astype(np.float32)
    np.testing.assert_array_equal(evaluate("add", [a, b]), (wide[0] + wide[1]).astype(dtype.numpy))
    np.testing.assert_array_equal(evaluate("mul", [a, b]), (wide[0] * wide[1]).astype(dtype.numpy))
    np.testing.assert_array_equal(evaluate("tanh", [a]), np.tanh(wide[0]).astype(dtype.numpy))
    total = evaluate("reduce_sum", [a], axes=(0,), keepdims=False)
    assert total == np.float32(a.astype(np.float64).sum()).astype(dtype.numpy)


def test_sums_are_rounded_once() -> None:
    """Single precision would lose every 1."""
    x = np.array([2.0**24, *[1.0] * 9], np.float32)
    assert evaluate("reduce_sum", [x], axes=(0,)).item() == np.float32(2.0**24 + 9)
    assert evaluate("reduce_mean", [x], axes=(0,)).item() == np.float32((2.0**24 + 9) / 10)


def test_sums_do_not_overflow_on_the_way() -> None:
    """The mean of large halves, whose sum no half can hold."""
    x = np.full((1, 1, 4, 4), 60000, np.float16)
    assert evaluate("reduce_mean", [x], axes=(2, 3)).item() == 60000
    assert evaluate("avg_pool", [x], kernel=(4, 4), strides=(1, 1), pads=(0, 0, 0, 0)).item() == 60000
    assert evaluate("batch_norm", [x, *(np.array([v], np.float16) for v in (1, 0, 60000, 1))]).reshape(-1)[0] == 0
