# SPDX-License-Identifier: Apache-2.0
"""Every host kernel against the declaration of its op."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_harness import assert_near, assert_same, both, kernels, quantised, run_graph

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder, Trait, all_ops
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, Layout, QuantParams, Rounding, TensorType

F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
REAL = [F32, F16, BF16]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name, so that cases differ and repeat."""
    return np.random.default_rng(list(request.node.name.encode()))


def real(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = F32) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType = DType.I8) -> Array:
    low, high = dtype.range
    return rng.integers(low, high, shape, dtype.numpy, endpoint=True)


# ---- elementwise -----------------------------------------------------------------------------------------------------

BROADCASTS = [((2, 3, 5), (2, 3, 5)), ((2, 3, 5), (5,)), ((3, 1, 5), (1, 4, 1)), ((), (7,)), ((2, 3), ()), ((), ()), ((0, 3), (3,))]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "min", "max"])
@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
def test_binary(rng: np.random.Generator, name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    assert_near(*both(name, [real(rng, s) for s in shapes]))
    assert_same(*both(name, [np.asarray(rng.integers(-9, 9, s)) for s in shapes]))


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_binary_clamp(rng: np.random.Generator, name: str, dtype: Any) -> None:
    found, wanted = both(name, [real(rng, (4, 9), dtype), real(rng, (9,), dtype)], clamp=(-0.5, 1.0))
    assert_same(found, wanted)


def test_power_and_remainder(rng: np.random.Generator) -> None:
    assert_near(*both("pow", [np.abs(real(rng, (3, 7))), real(rng, (7,))]))
    assert_same(*both("mod", [rng.integers(-20, 20, (50,)), np.resize([-7, -3, 2, 5], 50)]))
    assert_near(*both("mod", [real(rng, (50,)), np.resize(np.float32([-0.7, 0.3]), 50)]))


@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparisons(rng: np.random.Generator, name: str) -> None:
    assert_same(*both(name, [rng.integers(0, 3, (4, 6)), rng.integers(0, 3, (6,))]))
    assert_same(*both(name, [np.float32([[0, 1, np.nan]]), np.float32([[0], [np.nan]])]))


def test_logic(rng: np.random.Generator) -> None:
    a, b = (rng.integers(0, 2, s).astype(bool) for s in ((3, 5), (5,)))
    for name in ("logical_and", "logical_or"):
        assert_same(*both(name, [a, b]))
    assert_same(*both("logical_not", [a]))
    for dtype in (np.float32, np.int8, np.int64, np.float16):
        assert_same(*both("where", [a, np.ones((5,), dtype), np.zeros((2, 1, 5), dtype)]))


#: Every function of one tensor, with other attributes than the defaults where it has some.
UNARY: dict[str, dict[str, Any]] = {d.name: {} for d in all_ops() if Trait.UNARY in d.traits and d.name not in ("logical_not", "lut")} | {
    "leaky_relu": {"alpha": 0.2}, "elu": {"alpha": 0.7}, "hard_sigmoid": {"alpha": 0.3}, "clamp": {"lo": -0.3, "hi": 0.4},
}  # fmt: skip
POSITIVE = ("log", "sqrt", "rsqrt", "reciprocal")


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary(rng: np.random.Generator, name: str, dtype: Any) -> None:
    x = np.concatenate([4 * real(rng, (62,)), [0.5, -2.5]]).reshape(4, 16)
    x = (np.abs(x) + 0.01 if name in POSITIVE else x).astype(dtype)
    assert_near(*both(name, [x], **UNARY[name]))


def test_special_values() -> None:
    x = np.float32([-np.inf, -100, -0.0, 0, 100, np.inf, np.nan])
    for name in ("relu", "sigmoid", "tanh", "exp", "gelu", "abs"):
        assert_near(*both(name, [x]))
    assert_near(*both("gelu", [x[1:5]], approximate="tanh"))
    assert_near(*both("prelu", [x[1:5], np.float32([0.25])]))


def test_integer_unary(rng: np.random.Generator) -> None:
    for dtype in (DType.I8, DType.I16, DType.I32):
        x = whole(rng, (100,), dtype)
        assert_same(*both("relu", [(x, quantised(dtype, x.shape, -5 if dtype is DType.I8 else 0))]))
        assert_same(*both("clamp", [x], lo=-17.0, hi=99.0))
        assert_same(*both("neg", [x]))
        assert_same(*both("sign", [x]))


@pytest.mark.parametrize("pair", list(itertools.permutations([np.float32, np.float16, np.int8, np.int32, np.int64, np.bool_, np.uint8], 2)), ids=str)
def test_cast(rng: np.random.Generator, pair: tuple[Any, Any]) -> None:
    x = (100 * rng.random((3, 7))).astype(pair[0])
    assert_same(*both("cast", [x], dtype=DType.of(pair[1])))


@pytest.mark.parametrize("rounding", [r for r in Rounding])
@pytest.mark.parametrize("name", ["add", "sub"])
def test_quantised_sum(rng: np.random.Generator, name: str, rounding: Rounding) -> None:
    # gemmlowp's rounding takes ratios below 1 only.
    up = 1 if rounding is Rounding.TFL2 else 2**12
    requant = tuple(make_requant(r, rounding) for r in (0.7 * up, 0.3 * up, 0.9 / up))
    a, b = whole(rng, (6, 40)), whole(rng, (40,))
    kinds = [(a, quantised(DType.I8, a.shape, -3)), (b, quantised(DType.I8, b.shape, 17))]
    assert_same(*both(name, kinds, quantised(DType.I8, a.shape, 5), requant=requant, clamp=(-100.0, 90.0)))


@pytest.mark.parametrize("rounding", [r for r in Rounding])
def test_quantised_product_and_requantize(rng: np.random.Generator, rounding: Rounding) -> None:
    a, b = whole(rng, (6, 40)), whole(rng, (6, 1))
    kinds = [(a, quantised(DType.I8, a.shape, -3)), (b, quantised(DType.I8, b.shape, 17))]
    assert_same(*both("mul", kinds, quantised(DType.I8, a.shape, 5), requant=make_requant(0.01, rounding)))
    for to in (DType.I8, DType.I16, DType.I32):
        assert_same(*both("requantize", kinds[:1], quantised(to, a.shape, 1), requant=make_requant(0.43, rounding)))


# ---- products --------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    # x, w, attributes
    "square": ((2, 5, 9, 11), (7, 5, 3, 3), dict(strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1)),
    "pointwise": ((1, 17, 5, 7), (19, 17, 1, 1), dict(strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), groups=1)),
    "strided": ((1, 6, 13, 10), (8, 6, 3, 5), dict(strides=(2, 3), pads=(0, 1, 2, 3), dilations=(1, 1), groups=1)),
    "dilated": ((1, 4, 12, 12), (6, 2, 3, 3), dict(strides=(1, 2), pads=(2, 0, 2, 1), dilations=(2, 3), groups=2)),
    "depthwise": ((2, 6, 9, 8), (6, 1, 3, 3), dict(strides=(2, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=6)),
    "multiplier": ((1, 3, 7, 7), (6, 1, 3, 3), dict(strides=(1, 1), pads=(1, 1, 1, 1), dilations=(2, 1), groups=3)),
    "line": ((2, 5, 20), (4, 5, 4), dict(strides=(3,), pads=(2, 1), dilations=(2,), groups=1)),
    "deep": ((1, 70, 4, 4), (3, 70, 3, 3), dict(strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1)),
    "wide": ((1, 3, 24, 33), (13, 3, 3, 3), dict(strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1)),
}


def result_shape(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any]) -> tuple[int, ...]:
    rank = len(x) - 2
    sizes = [
        (x[2 + i] + attrs["pads"][i] + attrs["pads"][rank + i] - (w[2 + i] - 1) * attrs["dilations"][i] - 1) // attrs["strides"][i] + 1
        for i in range(rank)
    ]
    return (x[0], w[0], *sizes)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_conv(rng: np.random.Generator, case: str, dtype: Any) -> None:
    xs, ws, attrs = CONVOLUTIONS[case]
    x, w, b = real(rng, xs, dtype), real(rng, ws, dtype), real(rng, ws[:1])
    residual = real(rng, result_shape(xs, ws, attrs), dtype)
    for operands, more in (([x, w], {}), ([x, w, b], {"clamp": (0.0, 6.0)}), ([x, w, None, residual], {}), ([x, w, b, residual], {})):
        found, wanted = both("conv", operands, **attrs, **more)
        if dtype == F32:
            assert_near(found, wanted, 1e-4, 1e-4)
        else:
            assert_same(found, wanted)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [DType.I8, DType.I16])
@pytest.mark.parametrize("per_channel", [True, False])
def test_quantised_conv(rng: np.random.Generator, case: str, dtype: DType, per_channel: bool) -> None:
    xs, ws, attrs = CONVOLUTIONS[case]
    out = result_shape(xs, ws, attrs)
    narrow = dtype is DType.I8
    x, w, residual = whole(rng, xs, dtype), whole(rng, ws), whole(rng, out, dtype)
    b = rng.integers(-5000, 5000, ws[0]).astype(np.int32 if narrow else np.int64)
    ratios = rng.uniform(0.5, 1.5, ws[0] if per_channel else 1) / (40 * np.prod(ws[1:]))
    bits = 31 if narrow else 15
    requant, again = make_requant(ratios, bits=bits), make_requant(0.37, Rounding.AWAY, bits)
    kinds: list[Any] = [(x, quantised(dtype, xs, -9 if narrow else 0)), (w, quantised(DType.I8, ws)), b]
    result = quantised(dtype, out, 4 if narrow else 0)
    assert_same(*both("conv", kinds, result, requant=requant, **attrs))
    kinds.append((residual, quantised(dtype, out, 11 if narrow else 0)))
    assert_same(*both("conv", kinds, result, requant=requant, residual_requant=again, clamp=(-100.0, 100.0), **attrs))


@pytest.mark.parametrize("rounding", [r for r in Rounding])
def test_conv_roundings(rng: np.random.Generator, rounding: Rounding) -> None:
    xs, ws, attrs = CONVOLUTIONS["square"]
    x, w, b = whole(rng, xs), whole(rng, ws), rng.integers(-5000, 5000, ws[0]).astype(np.int32)
    requant = make_requant(rng.uniform(0.0001, 0.002, ws[0]), rounding)
    assert_same(*both("conv", [(x, quantised(DType.I8, xs, 3)), w, b], quantised(DType.I8, result_shape(xs, ws, attrs), -2), requant=requant, **attrs))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("window", [(2, 0, 0), (2, 1, 1), (3, 1, 2), (1, 2, 0)], ids=str)
def test_conv_transpose(rng: np.random.Generator, groups: int, window: tuple[int, int, int]) -> None:
    stride, pad, extra = window
    extra = min(extra, stride - 1)
    attrs: dict[str, Any] = dict(strides=(stride, 1), pads=(pad, 0, pad, 1), dilations=(1, 2), groups=groups, output_padding=(extra, 0))
    xs, ws = (2, 4, 5, 6), (4, 3, 5, 3)
    x, w, b = real(rng, xs), real(rng, ws), real(rng, (3 * groups,))
    found, wanted = both("conv_transpose", [x, w, b], **attrs, clamp=(-2.0, 3.0))
    assert_near(found, wanted, 1e-4, 1e-5)
    q, v, c = whole(rng, xs), whole(rng, ws), rng.integers(-999, 999, 3 * groups).astype(np.int32)
    requant = make_requant(rng.uniform(0.001, 0.002, 3 * groups))
    assert_same(*both("conv_transpose", [(q, quantised(DType.I8, xs, 7)), v, c], quantised(DType.I8, wanted.shape, 2), requant=requant, **attrs))


def test_half_conv_transpose(rng: np.random.Generator) -> None:
    attrs: dict[str, Any] = dict(strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1, output_padding=(1, 1))
    for dtype in (F16, BF16):
        found, wanted = both("conv_transpose", [real(rng, (1, 9, 5, 4), dtype), real(rng, (9, 5, 3, 3), dtype)], **attrs)
        assert_same(found, wanted)


@pytest.mark.parametrize("shape", [(1, 33), (5, 64), (2, 3, 17), (20, 1)], ids=str)
def test_linear(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    n = 23
    for dtype in REAL:
        x, w, b, residual = (real(rng, s, dtype) for s in (shape, (n, shape[-1]), (n,), (*shape[:-1], n)))
        found, wanted = both("linear", [x, w, b, residual], clamp=(-1.0, 9.0))
        if dtype == F32:
            assert_near(found, wanted, 1e-4, 1e-4)
        else:
            assert_same(found, wanted)
    for kind in (DType.I8, DType.I16):
        x, w, b = whole(rng, shape, kind), whole(rng, (n, shape[-1])), rng.integers(-999, 999, n).astype(np.int32 if kind is DType.I8 else np.int64)
        requant = make_requant(rng.uniform(0.001, 0.002, n), bits=31 if kind is DType.I8 else 15)
        zero = 6 if kind is DType.I8 else 0
        assert_same(*both("linear", [(x, quantised(kind, shape, zero)), w, b], quantised(kind, (*shape[:-1], n), zero), requant=requant))


@pytest.mark.parametrize("shapes", [((5, 7), (7, 3)), ((2, 4, 9), (2, 9, 18)), ((3, 1, 6, 8), (2, 8, 17)), ((1, 40), (5, 40, 1)), ((2, 3, 4, 5), (1, 1, 5, 6))], ids=str)
def test_matmul(rng: np.random.Generator, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    for dtype in REAL:
        found, wanted = both("matmul", [real(rng, s, dtype) for s in shapes])
        if dtype == F32:
            assert_near(found, wanted, 1e-4, 1e-4)
        else:
            assert_same(found, wanted)
    for kind in (DType.I8, DType.I16):
        zeros = (5, -7, 3) if kind is DType.I8 else (0, 0, 0)
        kinds = [(whole(rng, s, kind), quantised(kind, s, z)) for s, z in zip(shapes, zeros)]
        requant = make_requant(0.001 if kind is DType.I8 else 1e-5, bits=31 if kind is DType.I8 else 15)
        assert_same(*both("matmul", kinds, quantised(kind, found.shape, zeros[2]), requant=requant))


# ---- what a kernel refuses -------------------------------------------------------------------------------------------


def test_every_op_has_a_kernel() -> None:
    for op in all_ops():
        with pytest.raises(kernels.KernelError) as caught:
            kernels.run_kernel(op.name, {}, [], [])
        assert "no kernel" not in str(caught.value), op.name


def test_unknown_op() -> None:
    with pytest.raises(kernels.KernelError, match="no kernel"):
        kernels.run_kernel("frobnicate", {}, [], [])


def tensor(dtype: int, shape: list[int]) -> tuple[Any, ...]:
    return (dtype, 0, shape, [], 0, -1)


@pytest.mark.parametrize(
    ("op", "attrs", "shapes", "result"),
    [
        ("transpose", {"perm": (3, [0, 5])}, [[2, 3]], [2, 3]),
        ("transpose", {"perm": (3, [1, 1])}, [[2, 3]], [3, 3]),
        ("reduce_sum", {"axes": (3, [7]), "keepdims": (0, 1)}, [[2, 3]], [2, 1]),
        ("slice", {"starts": (3, [1]), "sizes": (3, [4]), "steps": (3, [2])}, [[6]], [4]),
        ("slice", {"starts": (3, [1]), "sizes": (3, [4]), "steps": (3, [1 << 62])}, [[6]], [4]),
        ("pad", {"pads": (3, [-4, 4])}, [[6]], [6]),
        ("pad", {"pads": (3, [6, 0]), "mode": (2, "reflect")}, [[6]], [12]),
        ("expand", {}, [[4]], [3, 5]),
        ("tile", {"repeats": (3, [1 << 40])}, [[4]], [8]),
        ("concat", {"axis": (0, 9)}, [[4], [4]], [8]),
        ("reshape", {}, [[4]], [5]),
        ("add", {}, [[4], [3]], [4]),
        ("matmul", {}, [[4, 3], [4, 3]], [4, 3]),
        ("softmax", {"axis": (0, 3)}, [[4]], [4]),
        ("layer_norm", {"axis": (0, -1)}, [[4, 4], [3]], [4, 4]),
        ("resize", {"sizes": (3, [4]), "scales": (4, [0.0]), "mode": (2, "linear")}, [[2]], [4]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(op: str, attrs: dict[str, Any], shapes: list[list[int]], result: list[int]) -> None:
    inputs = [(tensor(0, s), np.zeros(s, np.float32).tobytes()) for s in shapes]
    with pytest.raises(kernels.KernelError):
        kernels.run_kernel(op, attrs, inputs, [tensor(0, result)])


@pytest.mark.parametrize("op", ["gather", "gather_elements"])
def test_indices_out_of_range(op: str) -> None:
    x = (tensor(0, [4]), np.zeros(4, np.float32).tobytes())
    for index in (4, -5, 1 << 40):
        with pytest.raises(kernels.KernelError, match="index"):
            kernels.run_kernel(op, {"axis": (0, 0)}, [x, (tensor(8, [1]), np.int64([index]).tobytes())], [tensor(0, [1])])


def test_shift_out_of_range() -> None:
    x = (tensor(4, [4]), bytes(4))
    for shift in (0, 63, -1):
        with pytest.raises(kernels.KernelError, match="shift"):
            kernels.run_kernel("requantize", {"requant": (6, [(0, [1 << 30], [shift])])}, [x], [tensor(4, [4])])


def test_layouts(rng: np.random.Generator) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.I8, (2, 5, 3, 4), QuantParams((0.1,), 3)))
    build = Builder(graph)
    last = build("relayout", x, layout=Layout.CHANNELS_LAST)
    kept = build("relu", last, type=last.type)
    graph.set_outputs([build("relayout", kept, layout=Layout.ROW_MAJOR)], ["y"])
    data = whole(rng, (2, 5, 3, 4))
    assert_same(run_graph(graph, {"x": data})["y"], np.maximum(data, 3))
    summed = build("add", last, last, type=last.type)
    graph.set_outputs([summed], ["y"])
    with pytest.raises(kernels.KernelError, match="relayout"):
        run_graph(graph, {"x": data})


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (1, 5, 1, 1)], ids=str)
def test_a_layout_that_moves_nothing_needs_no_relayout(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.I8, shape, QuantParams((0.1,), 3), Layout.CHANNELS_LAST))
    graph.set_outputs([Builder(graph)("dequantize", x)], ["y"])
    data = whole(rng, shape)
    assert_same(run_graph(graph, {"x": data})["y"], interpret(graph, {"x": data})["y"])
