# SPDX-License-Identifier: Apache-2.0
"""Integer attention: against loops over Python integers (`docs/numerics.md` section 4), and how near it is to the real function."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Op, Stage, Value
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder, OpError
from gadl.compiler.ir.ops.integer_norm import normaliser
from gadl.compiler.ir.requant import joined_scale, make_requant
from gadl.compiler.ir.types import Array, DType, QuantParams, Requant, Rounding, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.quant.attention import powers_of

SCALES, ZEROS = (0.03, 0.04, 0.02, 0.015), (3, -6, 11, -9)


def made(arrays: dict[str, Array], zero: int, attrs: dict[str, Any]) -> tuple[Array, Op]:
    """The op's result on q, k, v and perhaps a mask, its graph verified."""
    graph = Graph(stage=Stage.QUANTIZED)
    values: list[Value] = []
    for (name, array), point in zip(arrays.items(), (*ZEROS[:3], 0)):
        values.append(graph.add_input(name, TensorType(DType.I8, array.shape, QuantParams((0.1,), point))))
    heads, rows, width = arrays["q"].shape[0], arrays["q"].shape[1], arrays["v"].shape[-1]
    kind = TensorType(DType.I8, (heads, rows, width), QuantParams((0.1,), ZEROS[3]))
    op = Builder(graph).create("attention", values, {"zero": zero, **attrs}, type=kind)
    graph.set_outputs([op.result], ["y"])
    verify(graph)
    return interpret(graph, arrays)["y"], op


def rescaled(value: int, multiplier: int, shift: int) -> int:
    assert 1 <= shift <= 62 and abs(value) < 2**31
    return (value * multiplier + (1 << (shift - 1))) >> shift


def scale_of_row(total: int, requant: Requant) -> tuple[int, int]:
    """The scale of all times 1 / total, from the table of reciprocals at 15 leading bits."""
    zeros = 31 - total.bit_length()
    at = (total << zeros) >> 15
    entries = [min(32767, round(2**30 / max(j * 128, 1 << 15))) for j in (at >> 7, (at >> 7) + 1)]
    factor = (entries[0] * 128 + (entries[1] - entries[0]) * (at & 127) + 64) >> 7
    product = (factor << 16) * int(requant.multiplier[0])
    bits = 31 if (product + (1 << 30)) >> 31 >= 1 << 30 else 30
    return (product + (1 << (bits - 1))) >> bits, 61 - zeros + int(requant.shift[0]) - bits


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("heads", "rows", "depth", "keys", "width"), [(1, 1, 1, 1, 1), (2, 5, 8, 7, 3), (3, 4, 16, 60, 8)])
def test_attention(heads: int, rows: int, depth: int, keys: int, width: int, masked: bool) -> None:
    rng = np.random.default_rng(keys)
    arrays = {
        name: rng.integers(-128, 128, (heads if name != "k" else 1, size, other), np.int8)
        for name, size, other in (("q", rows, depth), ("k", keys, depth), ("v", keys, width))
    }
    step, zero = 0.05, 4
    if masked:
        arrays["mask"] = np.where(rng.random((rows, keys)) < 0.5, 0, -60).astype(np.int8)
    requants = [make_requant(SCALES[0] * SCALES[1] / step / np.sqrt(depth)), make_requant(0.1 / step), make_requant(SCALES[2] / SCALES[3])]
    requants = requants if masked else [requants[0], requants[2]]
    found, op = made(arrays, zero, {"table": powers_of(step), "requant": tuple(requants)})
    q, k, v = (a.astype(int) - z for a, z in zip((arrays["q"], arrays["k"], arrays["v"]), ZEROS))
    exact = np.zeros(found.shape)
    for h, i in itertools.product(range(heads), range(rows)):
        scores = []
        for j in range(keys):
            s = zero + rescaled(int((q[h, i] * k[0, j]).sum()), int(requants[0].multiplier[0]), int(requants[0].shift[0]))
            if masked:
                s += rescaled(int(arrays["mask"][i, j]), int(requants[1].multiplier[0]), int(requants[1].shift[0]))
            scores.append(min(max(s, -128), 127))
        powers = [int(op.attrs["table"][255 + s - max(scores)]) + 128 for s in scores]
        multiplier, shift = scale_of_row(sum(powers), requants[-1])
        sums = [sum(p * int(row[c]) for p, row in zip(powers, v[h])) for c in range(width)]
        assert found[h, i].tolist() == [min(max(ZEROS[3] + rescaled(s, multiplier, shift), -128), 127) for s in sums]
        real = np.exp(step * np.array(scores, float))
        exact[h, i] = real @ v[h] / real.sum() * SCALES[2] / SCALES[3]
    # Every power is off by half a step of 1/255 at most, and no result by more than that times what its values spread.
    spread = np.ptp(v, axis=1, keepdims=True) * SCALES[2] / SCALES[3]
    bound = 0.51 + spread * min(1.0, keys / 510)
    assert (np.abs(found - np.clip(exact + ZEROS[3], -128, 127)) <= bound).all()


def test_normalisers_are_as_near_as_said() -> None:
    rng = np.random.default_rng(0)
    sums = np.unique(np.concatenate([np.exp2(rng.uniform(0, 31, 20000)).astype(np.int64), 2 ** np.arange(31), 2 ** np.arange(1, 32) - 1]))
    multiplier, shift = normaliser(sums)
    assert (multiplier >= 1 << 30).all() and (multiplier < 1 << 31).all()
    assert np.abs(multiplier * sums / np.exp2(shift.astype(float)) - 1).max() < 7e-5
    for ratio in (1.0, 0.3, 17.0, 1 / 200):
        both, total = joined_scale(multiplier, shift, make_requant(ratio))
        assert (both >= 1 << 30).all() and (both < 1 << 31).all()
        assert np.abs(both * sums / np.exp2(total.astype(float)) / ratio - 1).max() < 7e-5


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"table": np.zeros(256, np.int16)}, "256 i8"),
        ({"requant": (make_requant(0.5),)}, "one entry for scores"),
        ({"requant": (make_requant(0.5), make_requant(2.0**-10))}, "out of range"),
        ({"requant": (make_requant(0.5), make_requant(0.5, Rounding.F32))}, "out of range"),
        ({"requant": (make_requant(0.5), make_requant(0.5, Rounding.TFL2))}, "out of range"),
    ],
)
def test_what_does_not_fit_is_refused(attrs: dict[str, Any], message: str) -> None:
    arrays = {name: np.zeros((1, 2, 2), np.int8) for name in "qkv"}
    with pytest.raises(OpError, match=message):
        made(arrays, 0, {"table": powers_of(0.1), "requant": (make_requant(0.5), make_requant(0.5)), **attrs})
