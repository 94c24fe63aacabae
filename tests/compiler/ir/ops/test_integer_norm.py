# SPDX-License-Identifier: Apache-2.0
"""Integer softmax and normalisation: against loops over Python integers (`docs/numerics.md` section 4), and how near they are to the real functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from integer_reference import clamped, requantised

from gadl.compiler.ir.graph import Graph, Op, Stage
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.ops.integer_norm import reciprocal, reciprocal_root
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, QuantParams, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.quant.norms import norm_numbers, softmax_numbers

I8, I16 = (-128, 127), (-32768, 32767)
SIZES = (1, 2, 7, 64, 384)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name."""
    return np.random.default_rng(list(request.node.name.encode()))


def rows_of(rng: np.random.Generator, size: int) -> Array:
    """Narrow and wide rows, constant ones, single peaks, extremes."""
    spread = np.array([0.3, 1, 4, 20, 60, 200])[:, None]
    rows = np.clip(np.rint(rng.standard_normal((6, size)) * spread + rng.integers(-90, 90, (6, 1))), -128, 127)
    special = np.full((4, size), -7)
    special[1, 0], special[2, -1], special[3, ::2] = -6, 127, 127
    special[3, 1::2] = -128
    return np.concatenate([rows, special]).astype(np.int8)


def run(name: str, x: Array, zero_x: int, zero_y: int, vectors: Sequence[Array], attrs: dict[str, object]) -> tuple[Array, Op]:
    """An op's result, its graph verified."""
    graph = Graph(stage=Stage.QUANTIZED)
    value = graph.add_input("x", TensorType(DType.I8, x.shape, QuantParams((0.1,), zero_x)))
    kind = TensorType(DType.I8, x.shape, QuantParams((0.1,), zero_y))
    op = Builder(graph).create(name, [value, *(graph.constant(v) for v in vectors)], attrs, type=kind)
    graph.set_outputs([op.result], ["y"])
    verify(graph)
    return interpret(graph, {"x": x})["y"], op


def clz(value: int) -> int:
    return 32 - value.bit_length()


def between(entry: object, position: int) -> int:
    """513 entries with interpolation, at a position from 0 to 65535."""
    first, second = entry(position >> 7), entry((position >> 7) + 1)  # type: ignore[operator]
    return int((first * 128 + (second - first) * (position & 127) + 64) >> 7)


def rcp(v: int, fraction: int) -> int:
    z = clz(v) - 1
    found = between(lambda j: min(32767, round(2**30 / max(j * 128, 1 << 15))), (v << z) >> 15)
    return min(32767, ((found << z) + (1 << (15 - fraction))) >> (16 - fraction))


def root(v: int) -> int:
    h = (clz(v) - 1) // 2
    return between(lambda j: min(32767, round(2**21 / math.sqrt(max(j * 128, 1 << 14)))), (v << 2 * h) >> 15) << h


def test_reciprocals_are_as_near_as_said(rng: np.random.Generator) -> None:
    sums = np.unique(np.concatenate([np.exp2(rng.uniform(15, 31, 20000)).astype(np.int64), 2 ** np.arange(15, 31), 2 ** np.arange(15, 32) - 1]))
    assert np.abs(reciprocal(sums) - 2.0**29 / sums).max() < 1
    variances = np.unique(np.concatenate([np.exp2(rng.uniform(0, 31, 20000)).astype(np.int64), [1, 2, 3, 2**31 - 1]]))
    assert np.abs(reciprocal_root(variances) * np.sqrt(variances) / 2.0**28.5 - 1).max() < 1.4e-4


@pytest.mark.parametrize("most", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("size", SIZES)
def test_softmax(rng: np.random.Generator, size: int, most: float) -> None:
    """With probabilities up to `most`; rows that hold more are cut."""
    x, scale = rows_of(rng, size), 0.08
    numbers = softmax_numbers(scale, most / 255, make_requant)
    assert 0.5 < most * 2 ** int(str(numbers["fraction"])) <= 1
    found, op = run("softmax", x, 3, -128, [], {"axis": -1, **numbers})
    for row, result in zip(x.tolist(), found.tolist()):
        powers = [int(op.attrs["table"][255 + v - max(row)]) for v in row]
        factor = rcp(sum(powers), op.attrs["fraction"])
        assert result == [clamped(-128 + requantised(e * factor, op.attrs["requant"]), I8) for e in powers]
    real = np.exp(scale * (x.astype(float) - x.max(1, keepdims=True)))
    real /= real.sum(1, keepdims=True)
    exact = np.clip(-128 + 255 * real / most, *I8)
    inside = real.max(1) <= most
    tail = (numbers["table"][255 + x.astype(int) - x.max(1, keepdims=True)] < 2).mean(1) > 0.9
    off = np.abs(found - exact).max(1)
    assert off[inside & ~tail].max(initial=0) < 0.54 and off[inside].max(initial=0) < 0.54 + size / 257
    assert (found[~inside].max(1, initial=127) == 127).all()


def test_softmax_over_another_axis(rng: np.random.Generator) -> None:
    x = rows_of(rng, 8).reshape(10, 2, 4)
    attrs = softmax_numbers(0.05, 1 / 255, make_requant)
    first, _ = run("softmax", x, 0, -128, [], {"axis": 1, **attrs})
    last, _ = run("softmax", x.transpose(0, 2, 1).copy(), 0, -128, [], {"axis": 2, **attrs})
    np.testing.assert_array_equal(first, last.transpose(0, 2, 1))


@pytest.mark.parametrize("vectors", [0, 1, 2])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("size", SIZES)
def test_norm(rng: np.random.Generator, size: int, name: str, vectors: int) -> None:
    """Scale and bias with values of both signs and zero."""
    vectors = min(vectors, 2 if name == "layer_norm" else 1)
    x, zero_x, scale_x, zero_y, scale_y = rows_of(rng, size), -5, 0.05, 11, 0.031
    given = [rng.normal(1, 0.4, size).astype(np.float32), rng.normal(0, 0.5, size).astype(np.float32)][:vectors]
    for vector in given:
        vector[::5] = 0
    source = Graph()
    value = source.add_input("x", TensorType(DType.F32, x.shape))
    real_op = Builder(source).create(name, [value, *(source.constant(v) for v in given)], {"epsilon": 1e-5})
    attrs, constants = norm_numbers(real_op, scale_x, scale_y, make_requant)
    found, op = run(name, x, zero_x, zero_y, constants, {**real_op.attrs, **attrs})
    for row, result in zip(x.tolist(), found.tolist()):
        steps = list(op.attrs["requant"])
        c = [v - zero_x for v in row]
        if name == "layer_norm":
            fraction, whole, square, rest = (steps.pop(0) for _ in range(4))
            total = sum(c)
            mean = requantised(total, whole)
            v = requantised(sum((i - mean) ** 2 for i in c), square) - requantised((total - size * mean) ** 2, rest)
            c = [(i << op.attrs["fraction"]) - requantised(total, fraction) for i in c]
        else:
            v = requantised(sum(i * i for i in c), steps.pop(0))
        v = max(1, v + op.attrs["offset"])
        assert v < 2**31 and all(abs(i) < 2**15 and abs(i * root(v) * int(steps[0].multiplier[0])) < 2**63 for i in c)
        y = [requantised(i * root(v), steps[0]) for i in c]
        if vectors > 0:
            y = [requantised(clamped(t, I16) * int(g), steps[1]) for t, g in zip(y, constants[0])]
        if vectors > 1:
            y = [requantised(clamped(s, I16) + int(b), steps[2]) for s, b in zip(y, constants[1])]
        assert result == [clamped(zero_y + s, I8) for s in y]
    source.set_outputs([real_op.result], ["y"])
    exact = interpret(source, {"x": ((x.astype(float) - zero_x) * scale_x).astype(np.float32)})["y"]
    wide = x.astype(float).std(1) >= 2
    off = np.abs(found - np.clip(zero_y + exact / scale_y, *I8))
    assert off[wide].max(initial=0) < 0.65
