# SPDX-License-Identifier: Apache-2.0
"""RESCALE, sums, products, reductions and tables against the TOSA reference model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import DType, Requant, Rounding

from .device import Quantised
from .lab import Lab
from .reference_model import IGNORE, D
from .samples import IDENTITY, ints, pick, ratios, zero_point

CASES = 12
KINDS: dict[str, tuple[Any, DType, Any]] = {
    "int8": (np.int8, DType.I8, D.INT8), "int16": (np.int16, DType.I16, D.INT16), "int32": (np.int32, DType.I32, D.INT32),
}  # fmt: skip


def shape_of(rng: np.random.Generator, rank: int = 0) -> tuple[int, ...]:
    return tuple(pick(rng, 1, 9) for _ in range(rank or pick(rng, 1, 4)))


def zero_of(rng: np.random.Generator, kind: str) -> int:
    """TOSA gives zero points to 8-bit tensors only."""
    return zero_point(rng) if kind == "int8" else 0


@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.TFL2], ids=lambda r: r.value)
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_rescale(rng: np.random.Generator, tmp_path: Path, source: str, target: str, rounding: Rounding) -> None:
    """`requantize`: all nine pairs of types, ratios from tiny to the largest that TOSA defines: |value| < 2^(shift - 1)."""
    numpy_in, _, _ = KINDS[source]
    _, out, tosa_out = KINDS[target]
    reach = {"int8": 256, "int16": 32768, "int32": 2.0**31}[source]
    with Lab(tmp_path) as lab:
        for _ in range(CASES):
            x = ints(rng, *shape_of(rng), dtype=numpy_in)
            x.reshape(-1)[:3] = (np.iinfo(numpy_in).min, np.iinfo(numpy_in).max, 1)[: x.size]
            zx, zy = zero_of(rng, source), zero_of(rng, target)
            largest = min(0.999 * 2.0**30 / reach, 0.9999 if rounding is Rounding.TFL2 else np.inf)
            useful = {"int8": 127, "int16": 32767, "int32": 2.0**31}[target] / reach
            ratio = largest if rng.random() < 0.2 else min(largest, useful * 2.0 ** rng.uniform(-7, 2))
            requant = make_requant(2.0 ** np.floor(np.log2(ratio)) if rng.random() < 0.3 else ratio, rounding)
            ours = Quantised()
            y = ours("requantize", ours.input(x, zx), dtype=out, zero=zy, requant=requant)
            lab.expect(
                lab.tosa.rescale(lab.tosa.const(x), requant, zx, zy, tosa_out), ours, y, "" if target == "int32" else "requantize"
            )


def test_rescale_of_halves(tmp_path: Path) -> None:
    """Every tie of a power of two, in both roundings: the values where a wrong rounding shows."""
    x = np.arange(-1024, 1025, dtype=np.int32)
    with Lab(tmp_path) as lab:
        for rounding in (Rounding.UP, Rounding.TFL2):
            for shift in (31, 32, 33, 36, 40):
                requant = Requant(np.array([1 << 30], np.int32), np.array([shift], np.int8), rounding)
                ours = Quantised()
                y = ours("requantize", ours.input(x), dtype=DType.I16, requant=requant)
                lab.expect(lab.tosa.rescale(lab.tosa.const(x), requant, 0, 0, D.INT16), ours, y, "requantize")


@pytest.mark.parametrize("kind", ["int8", "int16"])
@pytest.mark.parametrize("op", ["add", "sub"])
def test_add_and_sub(rng: np.random.Generator, tmp_path: Path, op: str, kind: str) -> None:
    """`R_o(R_a(a - za) ± R_b(b - zb))`: RESCALE of both operands to int32, ADD or SUB, RESCALE. Operands broadcast."""
    numpy, ir, tosa = KINDS[kind]
    bits = 20 if kind == "int8" else 14
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            shape = shape_of(rng)
            other = tuple(1 if case % 3 == 1 and rng.random() < 0.5 else d for d in shape)
            a, b = ints(rng, *shape, dtype=numpy), ints(rng, *other, dtype=numpy)
            za, zb, zy = (zero_of(rng, kind) for _ in range(3))
            sa, sb, so = 2.0 ** rng.uniform(-3, 0, 3)
            twice = 2 * max(sa, sb)
            inner = [make_requant(s / twice * (1 << bits)) for s in (sa, sb)]
            last = make_requant(twice / (so * (1 << bits)))
            ours = Quantised()
            y = ours(op, ours.input(a, za), ours.input(b, zb), dtype=ir, zero=zy, requant=(*inner, last))
            t = lab.tosa
            wide = [t.rescale(t.const(v), r, z, 0, D.INT32) for v, r, z in ((a, inner[0], za), (b, inner[1], zb))]
            lab.expect(t.rescale(t(op.upper(), wide, shape, D.INT32), last, 0, zy, tosa), ours, y, op)


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_mul(rng: np.random.Generator, tmp_path: Path, kind: str) -> None:
    """RESCALE by one takes the zero points away, MUL in int32, RESCALE."""
    numpy, ir, tosa = KINDS[kind]
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            shape = shape_of(rng)
            other = tuple(1 if case % 3 == 1 and rng.random() < 0.5 else d for d in shape)
            a, b = ints(rng, *shape, dtype=numpy), ints(rng, *other, dtype=numpy)
            za, zb, zy = (zero_of(rng, kind) for _ in range(3))
            requant = ratios(rng, 1, 1 / 128 if kind == "int8" else 2.0**-15)
            ours = Quantised()
            y = ours("mul", ours.input(a, za), ours.input(b, zb), dtype=ir, zero=zy, requant=requant)
            t = lab.tosa
            wide = [t.rescale(t.const(v), IDENTITY, z, 0, D.INT32) for v, z in ((a, za), (b, zb))]
            product = t("MUL", [*wide, t.zero(0)], shape, D.INT32)
            lab.expect(t.rescale(product, requant, 0, zy, tosa), ours, y, "mul")


@pytest.mark.parametrize("kind", ["int8", "int16"])
@pytest.mark.parametrize("op", ["reduce_sum", "reduce_mean"])
def test_reduced_sums(rng: np.random.Generator, tmp_path: Path, op: str, kind: str) -> None:
    """RESCALE by one to int32, REDUCE_SUM axis by axis, RESCALE; a mean has 1/count in the last one."""
    numpy, ir, tosa = KINDS[kind]
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            pixels = case % 2 == 0
            shape = (1, pick(rng, 1, 300), *shape_of(rng, 2)) if pixels else (pick(rng, 1, 40), *shape_of(rng))
            axes = (2, 3) if pixels else tuple(sorted(rng.choice(len(shape), pick(rng, 1, len(shape)), replace=False).tolist()))
            count = int(np.prod([shape[i] for i in axes]))
            x = ints(rng, *shape, dtype=numpy)
            zx, zy = zero_of(rng, kind), zero_of(rng, kind)
            requant = make_requant(rng.uniform(0.5, 1.5) / (count if op == "reduce_mean" else np.sqrt(count)))
            ours = Quantised()
            y = ours(op, ours.input(x, zx), dtype=ir, zero=zy, axes=axes, keepdims=True, requant=requant)
            t = lab.tosa
            total, extents = t.rescale(t.const(x), IDENTITY, zx, 0, D.INT32), list(shape)
            for axis in axes:
                extents[axis] = 1
                total = t("REDUCE_SUM", [total], extents, D.INT32, axis)
            lab.expect(t.rescale(total, requant, 0, zy, tosa), ours, y, op if pixels else "")


@pytest.mark.parametrize("kind", ["int8", "int16"])
@pytest.mark.parametrize("op", ["reduce_max", "reduce_min"])
def test_reduced_extremes(rng: np.random.Generator, tmp_path: Path, op: str, kind: str) -> None:
    numpy, ir, tosa = KINDS[kind]
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            shape = (1, *shape_of(rng, 3)) if case % 2 else shape_of(rng, 4)
            axes = (2, 3) if case % 2 else (pick(rng, 0, 3),)
            x, zx = ints(rng, *shape, dtype=numpy), zero_of(rng, kind)
            ours = Quantised()
            y = ours(op, ours.input(x, zx), dtype=ir, zero=zx, axes=axes, keepdims=True)
            found, extents = lab.tosa.const(x), list(shape)
            for axis in axes:
                extents[axis] = 1
                found = lab.tosa(op.upper(), [found], extents, tosa, axis, IGNORE)
            lab.expect(found, ours, y, op if case % 2 else "")


def test_table_of_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        for _ in range(4):
            x, table = ints(rng, 2, 3, 17), ints(rng, 256)
            x.reshape(-1)[:2] = -128, 127
            ours = Quantised()
            y = ours("lut", ours.input(x, 3), zero=5, table=table)
            lab.expect(lab.tosa("TABLE", [lab.tosa.const(x), lab.tosa.const(table)], x.shape, D.INT8), ours, y, "lut")


def test_table_of_words(rng: np.random.Generator, tmp_path: Path) -> None:
    """TABLE gives int32 with seven fractional bits; RESCALE by 1/128 takes them away."""
    with Lab(tmp_path) as lab:
        for case in range(4):
            x, table = ints(rng, 2, 3, 300, dtype=np.int16), ints(rng, 513, dtype=np.int16)
            x.reshape(-1)[:2] = -32768, 32767
            # TOSA wants differences of neighbours that fit 16 bits.
            table = np.sort(table) // 2 if case else (32767 * np.tanh(np.linspace(-4, 4, 513))).astype(np.int16)
            ours = Quantised()
            y = ours("lut", ours.input(x), dtype=DType.I16, table=table)
            t = lab.tosa
            wide = t("TABLE", [t.const(x), t.const(table)], x.shape, D.INT32)
            lab.expect(t.rescale(wide, make_requant(2.0**-7), 0, 0, D.INT16), ours, y, "lut")


def test_negate(rng: np.random.Generator, tmp_path: Path) -> None:
    """NEGATE is a table of ours like any function of one byte."""
    with Lab(tmp_path) as lab:
        for _ in range(4):
            x, zx, zy = ints(rng, 3, 33), zero_point(rng), zero_point(rng)
            table = np.clip(-(np.arange(-128, 128) - zx) + zy, -128, 127).astype(np.int8)
            ours = Quantised()
            y = ours("lut", ours.input(x, zx), zero=zy, table=table)
            t = lab.tosa
            lab.expect(t("NEGATE", [t.const(x), t.zero(zx), t.zero(zy)], x.shape, D.INT8), ours, y, "lut")
