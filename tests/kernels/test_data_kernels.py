# SPDX-License-Identifier: Apache-2.0
"""Kernels that pool, reduce, normalise, move, resample and convert, against the declarations of their ops."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_harness import assert_near, assert_same, both, quantised

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, QuantParams, Rounding, TensorType
from gadl.passes.quant.attention import powers_of
from gadl.passes.quant.norms import norm_numbers, softmax_numbers

REAL = [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
ANY = [np.float32, np.float16, np.int8, np.int16, np.int32, np.int64, np.bool_]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name, so that cases differ and repeat."""
    return np.random.default_rng(list(request.node.name.encode()))


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    return np.asarray(40 * rng.standard_normal(shape)).astype(dtype)


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType = DType.I8) -> Array:
    low, high = dtype.range
    return rng.integers(low, high, shape, dtype.numpy, endpoint=True)


# ---- pooling ---------------------------------------------------------------------------------------------------------

POOLS = {
    "plain": ((2, 3, 8, 9), dict(kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), ceil_mode=False)),
    "padded": ((1, 3, 7, 9), dict(kernel=(3, 3), strides=(2, 1), pads=(1, 1, 1, 1), ceil_mode=False)),
    "ceil": ((1, 2, 8, 7), dict(kernel=(3, 2), strides=(2, 3), pads=(1, 0, 0, 1), ceil_mode=True)),
    "line": ((2, 3, 17), dict(kernel=(4,), strides=(3,), pads=(2, 1), ceil_mode=True)),
}  # fmt: skip


@pytest.mark.parametrize("case", POOLS)
def test_max_pool(rng: np.random.Generator, case: str) -> None:
    shape, attrs = POOLS[case]
    for dilation in (1, 2):
        for dtype in [*REAL, np.int8, np.int16, np.int32]:
            x = values(rng, shape, dtype)
            assert_same(*both("max_pool", [x], **attrs, dilations=(dilation,) * (len(shape) - 2)))
    x = values(rng, shape)
    x.flat[::7] = np.nan
    assert_same(*both("max_pool", [x], **attrs, dilations=(1,) * (len(shape) - 2)))


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("case", POOLS)
def test_avg_pool(rng: np.random.Generator, case: str, include: bool) -> None:
    shape, attrs = POOLS[case]
    for dtype in REAL:
        found, wanted = both("avg_pool", [values(rng, shape, dtype)], **attrs, count_include_pad=include)
        assert_near(found, wanted)
    x = whole(rng, shape)
    counts = np.arange(1, np.prod(attrs["kernel"]) + 1)
    for ratios in (0.3, 1.1 / counts):
        kinds = [(x, quantised(DType.I8, shape, -7))]
        assert_same(*both("avg_pool", kinds, quantised(DType.I8, found.shape, 3), **attrs, count_include_pad=include, requant=make_requant(ratios)))


# ---- reductions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("axes", [(0,), (-1,), (1, 2), (2, 0), (0, 1, 2, 3), ()], ids=str)
@pytest.mark.parametrize("name", ["reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "reduce_l2"])
def test_reductions(rng: np.random.Generator, name: str, axes: tuple[int, ...], keepdims: bool) -> None:
    shape = (2, 3, 4, 5)
    for dtype in REAL:
        x = rng.uniform(0.5, 1.5, shape).astype(dtype)
        assert_near(*both(name, [x], axes=axes, keepdims=keepdims))
    if name in ("reduce_sum", "reduce_max", "reduce_min"):
        for kind in (np.int32, np.int64):
            assert_same(*both(name, [values(rng, shape, kind)], axes=axes, keepdims=keepdims))
    if name in ("reduce_sum", "reduce_mean"):
        x = whole(rng, shape)
        found = both(name, [x], axes=axes, keepdims=keepdims)[1]
        kinds = [(x, quantised(DType.I8, shape, 20))]
        requant = make_requant(0.11, Rounding.EVEN)
        assert_same(*both(name, kinds, quantised(DType.I8, found.shape, -1), axes=axes, keepdims=keepdims, requant=requant))


def test_argmax_and_cumsum(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.int8, np.int64):
        x = (values(rng, (3, 4, 5), dtype) // 20).astype(dtype)
        for axis in (0, 1, -1):
            for keepdims in (True, False):
                assert_same(*both("argmax", [x], axis=axis, keepdims=keepdims))
            assert_same(*both("cumsum", [x], axis=axis))
    x = values(rng, (6, 7))
    x[2, 3] = x[4, 5] = np.nan
    assert_same(*both("argmax", [x], axis=1, keepdims=False))


# ---- normalisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_normalisation(rng: np.random.Generator, dtype: Any) -> None:
    x = (2 + rng.standard_normal((2, 6, 5, 7))).astype(dtype)
    channel = [rng.uniform(0.5, 1.5, 6).astype(np.float32) for _ in range(4)]
    assert_near(*both("batch_norm", [x, *channel], epsilon=1e-3))
    assert_near(*both("instance_norm", [x, *channel[:2]]))
    for groups in (1, 2, 6):
        assert_near(*both("group_norm", [x, *channel[:2]], groups=groups))
    assert_near(*both("group_norm", [x], groups=3))
    for axis in (1, 2, -1):
        scale, bias = (rng.uniform(0.5, 1.5, x.shape[axis:]).astype(np.float32) for _ in range(2))
        assert_near(*both("layer_norm", [x, scale, bias], axis=axis, epsilon=1e-4))
        assert_near(*both("layer_norm", [x, None, bias], axis=axis))
        assert_near(*both("rms_norm", [x, scale], axis=axis))


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(rng: np.random.Generator, axis: int, dtype: Any) -> None:
    x = values(rng, (3, 4, 5), dtype)
    assert_near(*both("softmax", [x], axis=axis))
    assert_near(*both("log_softmax", [x], axis=axis))


@pytest.mark.parametrize("size", [1, 5, 64, 300])
def test_integer_softmax(rng: np.random.Generator, size: int) -> None:
    x = whole(rng, (3, size, 4)) // rng.integers(1, 40, (3, 1, 4)).astype(np.int8)
    numbers = softmax_numbers(0.06, 1 / 255, make_requant)
    for axis in (1, 2):
        assert_same(*both("softmax", [(x, quantised(DType.I8, x.shape, 4))], quantised(DType.I8, x.shape, -128), axis=axis, **numbers))


@pytest.mark.parametrize(("heads", "keys", "masked"), [((), 1, False), ((2, 3), 70, False), ((2, 3), 33, True), ((4,), 300, True)])
@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.AWAY, Rounding.EVEN])
def test_integer_attention(rng: np.random.Generator, heads: tuple[int, ...], keys: int, masked: bool, rounding: Rounding) -> None:
    shapes = ((*heads, 5, 16), (*heads[1:], keys, 16), (*heads, keys, 9), (5, keys))[: 3 + masked]
    zeros = (3, -128, 9, 7)
    operands = [(whole(rng, shape), quantised(DType.I8, shape, zero)) for shape, zero in zip(shapes, zeros)]
    requants = [make_requant(ratio, rounding) for ratio in (2e-3, 0.4, 1.7)]
    attrs = {"table": powers_of(0.05), "zero": -5, "requant": tuple(requants if masked else requants[::2])}
    assert_same(*both("attention", operands, quantised(DType.I8, (*heads, 5, 9), -20), **attrs))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("size", [1, 5, 64, 300])
def test_integer_norms(rng: np.random.Generator, name: str, size: int) -> None:
    x = whole(rng, (9, size)) // rng.integers(1, 60, (9, 1)).astype(np.int8)
    x[0] = 17
    source = Graph()
    value = source.add_input("x", TensorType(DType.F32, x.shape))
    vectors = [rng.normal(1, 1, size).astype(np.float32) for _ in range(2 if name == "layer_norm" else 1)]
    for count in range(len(vectors) + 1):
        op = Builder(source).create(name, [value, *(source.constant(v) for v in vectors[:count])])
        attrs, constants = norm_numbers(op, 0.05, 0.03, make_requant)
        operands = [(x, quantised(DType.I8, x.shape, -9)), *constants]
        assert_same(*both(name, operands, quantised(DType.I8, x.shape, 3), **{**op.attrs, **attrs}))


# ---- movement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ANY)
def test_movement(rng: np.random.Generator, dtype: Any) -> None:
    x = values(rng, (2, 3, 4, 5), dtype)
    assert_same(*both("reshape", [x], shape=(6, 20)))
    for perm in ((0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3), (0, 1, 3, 2)):
        assert_same(*both("transpose", [x], perm=perm))
    for axis in (0, 2, -1):
        assert_same(*both("concat", [x, x[:, :, :, :], x], axis=axis))
    assert_same(*both("concat", [x, x[:, :1], x[:, :0]], axis=1))
    assert_same(*both("slice", [x], starts=(1, 2, 0, 4), sizes=(1, 3, 2, 2), steps=(1, -1, 3, -3)))
    assert_same(*both("slice", [x], starts=(0, 3, 0, 0), sizes=(2, 0, 4, 5), steps=(1, 1, 1, 1)))
    assert_same(*both("expand", [x[:, :1]], shape=(3, 2, 6, 4, 5)))
    assert_same(*both("tile", [x], repeats=(2, 1, 3, 2)))
    assert_same(*both("tile", [x], repeats=(1, 0, 1, 1)))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(rng: np.random.Generator, mode: str) -> None:
    for dtype in (np.float32, np.float16, np.int8, np.int64):
        x = values(rng, (2, 3, 4), dtype)
        assert_same(*both("pad", [x], pads=(1, 0, 3, 0, 2, 1), mode=mode, value=3.0))
    kinds = [(x.astype(np.int8), quantised(DType.I8, x.shape, -11))]
    assert_same(*both("pad", kinds, pads=(0, 1, 1, 0, 1, 2), mode=mode))


def test_gather(rng: np.random.Generator) -> None:
    for dtype, kind in ((np.float32, np.int64), (np.int8, np.int32), (np.float16, np.int64)):
        x = values(rng, (3, 4, 5), dtype)
        for axis in (0, 1, -1):
            index = rng.integers(-x.shape[axis], x.shape[axis], (2, 3)).astype(kind)
            assert_same(*both("gather", [x, index], axis=axis))
            assert_same(*both("gather", [x, np.asarray(index[0, 0])], axis=axis))
            shape = [2, 3, 4]
            shape[axis] = 6
            index = rng.integers(-x.shape[axis], x.shape[axis], shape).astype(kind)
            assert_same(*both("gather_elements", [x, index], axis=axis))


# ---- resize ----------------------------------------------------------------------------------------------------------

COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
SIZES = [(2, 3, 10, 14), (2, 3, 3, 4), (2, 3, 5, 21), (2, 3, 1, 1)]


def resize_attrs(sizes: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    return dict(sizes=sizes, scales=tuple(a / b for a, b in zip(sizes, shape)))


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_resize(rng: np.random.Generator, sizes: tuple[int, ...], coordinate: str) -> None:
    shape = (2, 3, 5, 7)
    attrs = resize_attrs(sizes, shape)
    for rule in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        for dtype in (np.float32, np.int8):
            assert_same(*both("resize", [values(rng, shape, dtype)], **attrs, coordinate=coordinate, nearest=rule))
    for mode in ("linear", "cubic"):
        for dtype in REAL:
            x = rng.standard_normal(shape).astype(dtype)
            assert_near(*both("resize", [x], **attrs, coordinate=coordinate, mode=mode))
    x = whole(rng, shape)
    requant = make_requant(1.3 / 2**22)
    assert_same(*both("resize", [(x, quantised(DType.I8, shape, 5))], quantised(DType.I8, sizes, -6), **attrs, coordinate=coordinate, mode="linear", requant=requant))


# ---- conversions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("to", [DType.I8, DType.I16, DType.U8, DType.I32])
def test_quantize(rng: np.random.Generator, to: DType, dtype: Any) -> None:
    x = np.concatenate([values(rng, (60,)), [0.5, 1.5, 2.5, -0.5, np.nan, np.inf, -np.inf, 1e9]]).astype(dtype).reshape(4, 17)
    for quant in (QuantParams((1.0,), 0), QuantParams((0.37,), 3), QuantParams((0.5, 0.25, 1.0, 2.0), 0, 0), QuantParams(tuple(np.linspace(0.1, 2, 17)), 0, 1)):
        found, wanted = both("quantize", [x], TensorType(to, x.shape, quant))
        assert_same(found, wanted)
        again = both("dequantize", [(found, TensorType(to, x.shape, quant))])
        assert_same(*again)


def test_lut(rng: np.random.Generator) -> None:
    for dtype in (np.int8, np.int16):
        assert_same(*both("lut", [np.arange(-128, 128, dtype=np.int8)], table=values(rng, (256,), dtype)))
    x = np.concatenate([np.arange(-32768, 32768, 37), [32767]]).astype(np.int16)
    assert_same(*both("lut", [x], table=whole(rng, (513,), DType.I16)))
