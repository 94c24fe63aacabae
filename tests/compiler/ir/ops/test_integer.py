# SPDX-License-Identifier: Apache-2.0
"""The integer forms against loops over Python integers (`docs/numerics.md` section 3), on small shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from integer_reference import clamped, requantised, taps

from gadl.compiler.ir.graph import Graph, Stage
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder, Trait, all_ops
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, QuantParams, Requant, Rounding, TensorType
from gadl.compiler.ir.verify import verify

ROUNDINGS = [Rounding.UP, Rounding.EVEN, Rounding.TFL2, Rounding.F32]
I8 = (-128, 127)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name."""
    return np.random.default_rng(list(request.node.name.encode()))


class Model:
    """A one-op integer graph: activations are inputs, weights constants."""

    def __init__(self) -> None:
        self.graph = Graph(stage=Stage.QUANTIZED)
        self.feeds: dict[str, Array] = {}

    def activation(self, data: Array, zero_point: int) -> Any:
        name = f"x{len(self.feeds)}"
        self.feeds[name] = data
        return self.graph.add_input(name, TensorType(DType.of(data.dtype), data.shape, QuantParams((0.1,), zero_point)))

    def run(self, op: str, operands: list[Any], zero_point: int, dtype: DType = DType.I8, **attrs: Any) -> Array:
        """The result, whose zero point and type are given."""
        builder = Builder(self.graph)
        # Inference first, so that the type given agrees in shape.
        probe = builder.create(op, operands, attrs)
        shape = probe.result.shape
        self.graph.erase(probe)
        result = builder(op, *operands, type=TensorType(dtype, shape, QuantParams((0.2,), zero_point)), **attrs)
        self.graph.set_outputs([result], ["y"])
        verify(self.graph)
        return interpret(self.graph, self.feeds)["y"]


def ints(rng: np.random.Generator, *shape: int, low: int = -128, high: int = 127, dtype: Any = np.int8) -> Array:
    return rng.integers(low, high + 1, shape).astype(dtype)


def each(shape: tuple[int, ...], function: Callable[..., int], dtype: Any = np.int8) -> Array:
    """The array of `function(*index)`."""
    result = np.empty(shape, dtype)
    for index in np.ndindex(shape):
        result[index] = function(*index)
    return result


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=lambda r: r.value)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv(rng: np.random.Generator, groups: int, rounding: Rounding) -> None:
    x, w = ints(rng, 2, 4, 5, 6), ints(rng, 4, 4 // groups, 3, 2, low=-127)
    bias = rng.integers(-4000, 4000, 4).astype(np.int32)
    strides, pads, dilations = (2, 1), (1, 0, 2, 1), (1, 2)
    requant = make_requant(rng.uniform(0.001, 0.02, 4), rounding)
    model = Model()
    zx, zy, limits = 7, -11, (-100, 90)
    operands = [model.activation(x, zx), model.graph.constant(w), model.graph.constant(bias)]
    found = model.run("conv", operands, zy, strides=strides, pads=pads, dilations=dilations, groups=groups, requant=requant, clamp=limits)

    def pixel(n: int, o: int, *at: int) -> int:
        total = int(bias[o])
        first = o // (4 // groups) * (4 // groups)
        for tap, where in taps(x, at, (3, 2), strides, pads, dilations):
            for c in range(4 // groups):
                if where is not None:
                    total += (int(x[(n, first + c, *where)]) - zx) * int(w[(o, c, *tap)])
        return clamped(zy + requantised(total, requant, o), limits)

    np.testing.assert_array_equal(found, each(found.shape, pixel))


def test_conv_with_residual(rng: np.random.Generator) -> None:
    x, w, r = ints(rng, 1, 3, 4), ints(rng, 2, 3, 1, low=-127), ints(rng, 1, 2, 4)
    requant, other = make_requant(0.03), make_requant(0.7)
    model = Model()
    operands = [model.activation(x, 5), model.graph.constant(w), None, model.activation(r, -9)]
    found = model.run("conv", operands, 3, strides=(1,), pads=(0, 0), dilations=(1,), requant=requant, residual_requant=other)

    def pixel(n: int, o: int, i: int) -> int:
        total = sum((int(x[n, c, i]) - 5) * int(w[o, c, 0]) for c in range(3))
        return clamped(3 + requantised(total, requant) + requantised(int(r[n, o, i]) + 9, other), I8)

    np.testing.assert_array_equal(found, each(found.shape, pixel))


def test_conv_sums_stay_exact(rng: np.random.Generator) -> None:
    """Extreme operands and many channels: a sum in single precision would round."""
    x, w = np.full((1, 1500, 1), -128, np.int8), np.full((1, 1500, 1), 127, np.int8)
    w[0, ::2] = 126
    w[0, 0] = 125
    model = Model()
    requant = Requant(np.array([1 << 30], np.int32), np.array([30], np.int8))
    found = model.run("conv", [model.activation(x, 127), model.graph.constant(w)], 0, DType.I32, strides=(1,), pads=(0, 0), dilations=(1,),
                      requant=requant, clamp=(-(2**31), 2**31 - 1))  # fmt: skip
    assert found.item() == sum(-255 * int(v) for v in w.reshape(-1))


def test_conv_of_wide_weights_stays_exact() -> None:
    """Small activations must not select single precision when the weights are wide."""
    x, w = np.full((1, 512, 1), 127, np.int8), np.full((1, 512, 1), 32767, np.int16)
    model = Model()
    requant = Requant(np.array([1 << 30], np.int32), np.array([30], np.int8))
    found = model.run("conv", [model.activation(x, 0), model.graph.constant(w)], 0, DType.I32, strides=(1,), pads=(0, 0), dilations=(1,),
                      requant=requant)  # fmt: skip
    assert found.item() == 512 * 127 * 32767


def test_conv_transpose(rng: np.random.Generator) -> None:
    x, w = ints(rng, 1, 4, 3, 3), ints(rng, 4, 2, 3, 2, low=-127)
    bias = rng.integers(-500, 500, 4).astype(np.int32)
    strides, pads, dilations, extra, groups = (2, 1), (1, 0, 0, 1), (1, 2), (1, 0), 2
    requant = make_requant(rng.uniform(0.002, 0.02, 4))
    model = Model()
    found = model.run(
        "conv_transpose", [model.activation(x, -4), model.graph.constant(w), model.graph.constant(bias)], 6,
        strides=strides, pads=pads, dilations=dilations, output_padding=extra, groups=groups, requant=requant,
    )  # fmt: skip
    total = np.tile(bias.astype(object)[None, :, None, None], (1, 1, *found.shape[2:]))
    for c, o, i, j, a, b in np.ndindex(4, 2, 3, 3, 3, 2):
        row, column = i * strides[0] + a * dilations[0] - pads[0], j * strides[1] + b * dilations[1] - pads[1]
        if 0 <= row < found.shape[2] and 0 <= column < found.shape[3]:
            total[0, c // 2 * 2 + o, row, column] += (int(x[0, c, i, j]) + 4) * int(w[c, o, a, b])
    np.testing.assert_array_equal(found, each(found.shape, lambda *at: clamped(6 + requantised(total[at], requant, at[1]), I8)))


def test_linear(rng: np.random.Generator) -> None:
    x, w, r = ints(rng, 2, 3, 5), ints(rng, 4, 5, low=-127), ints(rng, 2, 3, 4)
    bias = rng.integers(-500, 500, 4).astype(np.int32)
    requant, other = make_requant(rng.uniform(0.002, 0.02, 4)), make_requant(1.3)
    model = Model()
    operands = [model.activation(x, 12), model.graph.constant(w), model.graph.constant(bias), model.activation(r, 1)]
    found = model.run("linear", operands, -2, requant=requant, residual_requant=other)

    def element(n: int, m: int, o: int) -> int:
        total = int(bias[o]) + sum((int(x[n, m, k]) - 12) * int(w[o, k]) for k in range(5))
        return clamped(-2 + requantised(total, requant, o) + requantised(int(r[n, m, o]) - 1, other), I8)

    np.testing.assert_array_equal(found, each(found.shape, element))


def test_linear_of_16_bit_activations(rng: np.random.Generator) -> None:
    """48-bit sums and 15-bit multipliers."""
    x, w = ints(rng, 2, 40, low=-32768, high=32767, dtype=np.int16), ints(rng, 3, 40, low=-127)
    bias = rng.integers(-(2**40), 2**40, 3)
    requant = make_requant(np.array([1e-3, 2e-8, 3e-4]), bits=15)
    model = Model()
    found = model.run("linear", [model.activation(x, 0), model.graph.constant(w), model.graph.constant(bias)], 0, DType.I16, requant=requant)

    def element(n: int, o: int) -> int:
        total = int(bias[o]) + sum(int(x[n, k]) * int(w[o, k]) for k in range(40))
        return clamped(requantised(total, requant, o), (-32768, 32767))

    np.testing.assert_array_equal(found, each(found.shape, element, np.int16))


def test_matmul(rng: np.random.Generator) -> None:
    a, b = ints(rng, 2, 3, 4), ints(rng, 4, 5)
    requant = make_requant(0.004)
    model = Model()
    found = model.run("matmul", [model.activation(a, 3), model.activation(b, -6)], 10, requant=requant, clamp=(10, 127))

    def element(n: int, i: int, j: int) -> int:
        total = sum((int(a[n, i, k]) - 3) * (int(b[k, j]) + 6) for k in range(4))
        return clamped(10 + requantised(total, requant), (10, 127))

    np.testing.assert_array_equal(found, each(found.shape, element))


@pytest.mark.parametrize("op", ["add", "sub"])
def test_add_and_sub(rng: np.random.Generator, op: str) -> None:
    a, b = ints(rng, 2, 3, 4), ints(rng, 3, 1)
    requant = (make_requant(0.8 * 2**20), make_requant(0.3 * 2**20), make_requant(1.1 / 2**20))
    model = Model()
    found = model.run(op, [model.activation(a, 3), model.activation(b, -6)], 10, requant=requant)
    sign = 1 if op == "add" else -1

    def element(n: int, i: int, j: int) -> int:
        total = requantised(int(a[n, i, j]) - 3, requant[0]) + sign * requantised(int(b[i, 0]) + 6, requant[1])
        return clamped(10 + requantised(total, requant[2]), I8)

    np.testing.assert_array_equal(found, each(found.shape, element))


def test_mul(rng: np.random.Generator) -> None:
    a, b = ints(rng, 2, 3), ints(rng, 3)
    requant = make_requant(0.02)
    model = Model()
    found = model.run("mul", [model.activation(a, 3), model.activation(b, -6)], -5, requant=requant)
    wanted = each(found.shape, lambda i, j: clamped(-5 + requantised((int(a[i, j]) - 3) * (int(b[j]) + 6), requant), I8))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("op", "factor"), [("reduce_sum", 0.05), ("reduce_mean", 1 / 15)])
def test_sums(rng: np.random.Generator, op: str, factor: float) -> None:
    x, requant = ints(rng, 2, 3, 4, 5), make_requant(factor)
    model = Model()
    found = model.run(op, [model.activation(x, 9)], -3, axes=(1, -1), keepdims=False, requant=requant)
    wanted = each((2, 4), lambda n, i: clamped(-3 + requantised(sum(int(v) - 9 for v in x[n, :, i].reshape(-1)), requant), I8))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool(rng: np.random.Generator, count_include_pad: bool) -> None:
    x = ints(rng, 1, 2, 5, 5)
    requant = make_requant(1.2 / 6) if count_include_pad else make_requant(1.2 / np.arange(1, 7))
    strides, pads, kernel = (2, 2), (1, 1, 1, 0), (3, 2)
    model = Model()
    found = model.run("avg_pool", [model.activation(x, 9)], -3, kernel=kernel, strides=strides, pads=pads, count_include_pad=count_include_pad,
                      requant=requant)  # fmt: skip

    def pixel(n: int, c: int, *at: int) -> int:
        inside = [where for _, where in taps(x, at, kernel, strides, pads, (1, 1)) if where is not None]
        total = sum(int(x[(n, c, *where)]) - 9 for where in inside)
        return clamped(-3 + requantised(total, requant, len(inside) - 1), I8)

    np.testing.assert_array_equal(found, each(found.shape, pixel))


def test_max_pool_ignores_padding(rng: np.random.Generator) -> None:
    x = ints(rng, 1, 2, 5, high=-100)
    model = Model()
    found = model.run("max_pool", [model.activation(x, 0)], 0, kernel=(3,), strides=(1,), pads=(1, 1), dilations=(1,))
    wanted = each(found.shape, lambda n, c, i: max(int(v) for v in x[n, c, max(0, i - 1) : i + 2]))
    np.testing.assert_array_equal(found, wanted)


def test_ops_on_stored_integers(rng: np.random.Generator) -> None:
    """Where scale and zero point are shared, integers are compared as they are."""
    a, b = ints(rng, 3, 4), ints(rng, 4)
    for op, function in (("min", min), ("max", max)):
        model = Model()
        found = model.run(op, [model.activation(a, 5), model.activation(b, 5)], 5)
        np.testing.assert_array_equal(found, each((3, 4), lambda i, j, f=function: f(int(a[i, j]), int(b[j]))))
    np.testing.assert_array_equal(run_alone("relu", a, -20), each((3, 4), lambda i, j: max(int(a[i, j]), -20)))
    np.testing.assert_array_equal(run_alone("clamp", a, -20, lo=-50, hi=60), each((3, 4), lambda i, j: clamped(int(a[i, j]), (-50, 60))))
    np.testing.assert_array_equal(run_alone("clamp", a, 0, lo=-1e9, hi=1e9), a)
    for op, function in (("reduce_min", min), ("reduce_max", max)):
        found = run_alone(op, a, 7, axes=(1,), keepdims=False)
        np.testing.assert_array_equal(found, each((3,), lambda i, f=function: f(int(v) for v in a[i])))


def run_alone(op: str, x: Array, zero_point: int, **attrs: Any) -> Array:
    """One op of one operand that shares the result's zero point."""
    model = Model()
    return model.run(op, [model.activation(x, zero_point)], zero_point, **attrs)


#: Attributes for each op that moves integers, and the numpy function that says what they mean on an i8[3,4].
MOVES: dict[str, tuple[dict[str, Any], Callable[[Array], Array]]] = {
    "reshape": ({"shape": (2, 6)}, lambda x: x.reshape(2, 6)),
    "transpose": ({"perm": (1, 0)}, lambda x: x.T),
    "concat": ({"axis": 0}, lambda x: x),
    "slice": ({"starts": (2, 0), "sizes": (3, 2), "steps": (-1, 2)}, lambda x: x[::-1, ::2]),
    "expand": ({"shape": (2, 3, 4)}, lambda x: np.stack([x, x])),
    "tile": ({"repeats": (1, 2)}, lambda x: np.concatenate([x, x], 1)),
    "resize": ({"sizes": (6, 4), "scales": (2.0, 1.0), "coordinate": "asymmetric", "nearest": "floor"}, lambda x: np.repeat(x, 2, 0)),
    "pad": ({"pads": (1, 0, 0, 2)}, lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=-17)),
}


@pytest.mark.parametrize("op", MOVES)
def test_moved_integers(rng: np.random.Generator, op: str) -> None:
    x = ints(rng, 3, 4)
    attrs, meaning = MOVES[op]
    np.testing.assert_array_equal(run_alone(op, x, -17, **attrs), meaning(x))


def test_gathered_integers(rng: np.random.Generator) -> None:
    x, rows = ints(rng, 3, 4), np.array([2, -1, 0])
    for op, index, wanted in (("gather", rows, x[rows]), ("gather_elements", np.tile(rows[:, None], (1, 4)), x[rows])):
        model = Model()
        np.testing.assert_array_equal(model.run(op, [model.activation(x, 1), model.graph.constant(index)], 1, axis=0), wanted)


def test_bilinear_resize(rng: np.random.Generator) -> None:
    """Weights of 11 bits per axis, one rounding at the end. Positions are written out for a factor of 2 by half pixels."""
    x, requant = ints(rng, 1, 2, 3, 4), make_requant(1.5 / 2**22)
    model = Model()
    found = model.run("resize", [model.activation(x, 4)], -6, sizes=(1, 2, 6, 8), scales=(1.0, 1.0, 2.0, 2.0), mode="linear",
                      coordinate="half_pixel", requant=requant)  # fmt: skip

    def weights(index: int, extent: int) -> list[tuple[int, int]]:
        position = min(max((index + 0.5) / 2 - 0.5, 0.0), extent - 1.0)
        low = int(position)
        upper = round((position - low) * 2048)
        return [(low, 2048 - upper), (min(low + 1, extent - 1), upper)]

    def pixel(n: int, c: int, i: int, j: int) -> int:
        total = sum((int(x[n, c, a, b]) - 4) * u * v for a, u in weights(i, 3) for b, v in weights(j, 4))
        return clamped(-6 + requantised(total, requant), I8)

    np.testing.assert_array_equal(found, each(found.shape, pixel))


def test_bilinear_resize_of_one_axis_uses_the_same_scale(rng: np.random.Generator) -> None:
    """The sum has 22 fractional bits however many axes change."""
    x, requant = ints(rng, 1, 1, 3), make_requant(1 / 2**22)
    found = run_alone("resize", x, 0, sizes=(1, 1, 6), scales=(1.0, 1.0, 2.0), mode="linear", coordinate="asymmetric", requant=requant)
    a, b, c = (int(v) for v in x.reshape(-1))
    assert found.reshape(-1).tolist() == [a, (a + b + 1) // 2, b, (b + c + 1) // 2, c, c]


@pytest.mark.parametrize(("source", "target"), [(np.int8, DType.I16), (np.int16, DType.I8), (np.int32, DType.I8)])
def test_requantize(rng: np.random.Generator, source: Any, target: DType) -> None:
    info = np.iinfo(source)
    x = rng.integers(info.min, info.max, (50,), endpoint=True).astype(source)
    requant = make_requant(100.0 / float(info.max))
    model = Model()
    found = model.run("requantize", [model.activation(x, 3)], -8, target, requant=requant)
    wanted = [clamped(-8 + requantised(int(v) - 3, requant), target.range) for v in x]
    assert found.tolist() == wanted


@pytest.mark.parametrize("result", [np.int8, np.int16])
def test_table_of_bytes(rng: np.random.Generator, result: Any) -> None:
    table = ints(rng, 256, dtype=result)
    x = np.arange(-128, 128).astype(np.int8)
    model = Model()
    assert model.run("lut", [model.activation(x, 0)], 0, DType.of(result), table=table).tolist() == table.tolist()


def test_table_of_words(rng: np.random.Generator) -> None:
    table = ints(rng, 513, low=-32768, high=32767, dtype=np.int16)
    x = np.concatenate([ints(rng, 300, low=-32768, high=32767, dtype=np.int16), np.array([-32768, 32767], np.int16)])
    model = Model()
    found = model.run("lut", [model.activation(x, 0)], 0, DType.I16, table=table)
    for value, got in zip(x.tolist(), found.tolist()):
        index, fraction = divmod(value + 32768, 128)
        assert got == (int(table[index]) * 128 + (int(table[index + 1]) - int(table[index])) * fraction + 64) // 128


def test_quantize_and_dequantize() -> None:
    graph = Graph(stage=Stage.QUANTIZED)
    quant = QuantParams((0.5,), 3)
    x = graph.add_input("x", TensorType(DType.F32, (9,)))
    q = Builder(graph)("quantize", x, type=TensorType(DType.I8, (9,), quant))
    graph.set_outputs([q, Builder(graph)("dequantize", q)], ["q", "y"])
    verify(graph)
    data = np.array([0, 0.25, 0.75, -0.25, -0.75, 1e9, -1e9, np.nan, 1.3], np.float32)
    results = interpret(graph, {"x": data})
    assert results["q"].tolist() == [3, 3, 5, 3, 1, 127, -128, 3, 6]
    assert results["y"].tolist() == [0, 0, 1, 0, -1, 62, -65.5, 0, 1.5]


def test_dequantize_per_channel() -> None:
    graph = Graph()
    quant = QuantParams((0.5, 0.25), 0, axis=1)
    w = graph.constant(np.array([[1, 2], [-3, 4]], np.int8), quant=quant)
    graph.set_outputs([Builder(graph)("dequantize", w)], ["y"])
    assert interpret(graph, {})["y"].tolist() == [[0.5, 0.5], [-1.5, 1.0]]


def test_every_integer_form_has_a_case() -> None:
    """An op has an integer form when it can be rescaled, keeps the quantisation, moves elements or converts numbers."""
    tested = {"conv", "conv_transpose", "linear", "matmul", "add", "sub", "mul", "reduce_sum", "reduce_mean", "avg_pool", "max_pool"}
    tested |= {"min", "max", "relu", "clamp", "reduce_min", "reduce_max", "gather", "gather_elements", *MOVES}
    tested |= {"requantize", "lut", "quantize", "dequantize", "relayout"}
    tested |= {"softmax", "layer_norm", "rms_norm"}  # test_integer_norm.py
    tested |= {"attention"}  # test_attention.py
    keeps = Trait.KEEPS_QUANT | Trait.MOVES_DATA
    declared = {d.name for d in all_ops() if d.traits & keeps or "requant" in {a.name for a in d.attrs}}
    assert declared <= tested
