# SPDX-License-Identifier: Apache-2.0
"""Convolutions and products with their RESCALE against the TOSA reference model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, Rounding

from .device import Quantised
from .lab import NCHW, Lab
from .reference_model import D
from .samples import IDENTITY, ints, pick, ratios, zero_point

CASES = 16


def bias_of(rng: np.random.Generator, channels: int, size: int) -> Array:
    return rng.integers(-size, size, channels).astype(np.int64)


class Geometry:
    """A random window whose last position touches the padded border, as TOSA asks."""

    def __init__(self, rng: np.random.Generator, dilated: bool = True) -> None:
        def axis() -> tuple[int, int, int, int, int, int]:
            kernel, stride, dilation = pick(rng, 1, 4), pick(rng, 1, 3), pick(rng, 1, 3) if dilated else 1
            reach = (kernel - 1) * dilation + 1
            before, after = pick(rng, 0, reach - 1), pick(rng, 0, reach - 1)
            out = pick(rng, 1, 7)
            size = (out - 1) * stride + reach - before - after
            return (size, kernel, stride, dilation, before, after) if size > 0 else axis()

        self.h, self.w = axis(), axis()
        self.size = (self.h[0], self.w[0])
        self.kernel = (self.h[1], self.w[1])
        self.strides = (self.h[2], self.w[2])
        self.dilations = (self.h[3], self.w[3])
        self.tosa_pad = [self.h[4], self.h[5], self.w[4], self.w[5]]
        self.pads = (self.h[4], self.w[4], self.h[5], self.w[5])

    @property
    def attrs(self) -> dict[str, Any]:
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}


@pytest.mark.parametrize("rounding", [Rounding.UP, Rounding.TFL2], ids=lambda r: r.value)
def test_conv2d(rng: np.random.Generator, tmp_path: Path, rounding: Rounding) -> None:
    """int8: stride, padding, dilation, zero points, per tensor and per channel."""
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            g, n, ic, oc = Geometry(rng), 1 + case % 2, pick(rng, 1, 20), pick(rng, 1, 35)
            x, w = ints(rng, n, ic, *g.size), ints(rng, oc, ic, *g.kernel, low=-127)
            bias = bias_of(rng, oc, 20000).astype(np.int32)
            zx, zy = zero_point(rng), zero_point(rng)
            requant = ratios(rng, oc if case % 3 else 1, 40 / (5000 * np.sqrt(w[0].size)), rounding)
            ours = Quantised()
            y = ours("conv", ours.input(x, zx), ours.const(w), ours.const(bias), zero=zy, requant=requant, **g.attrs)
            t = lab.tosa
            operands = [t.const(x.transpose(0, 2, 3, 1)), t.const(w.transpose(0, 2, 3, 1)), t.const(bias), t.zero(zx), t.zero(0)]
            shape = [y.shape[i] for i in (0, 2, 3, 1)]
            sums = t("CONV2D", operands, shape, D.INT32, g.tosa_pad, g.strides, g.dilations, False, D.INT32)
            lab.expect(t.rescale(sums, requant, 0, zy, D.INT8), ours, y, "conv", NCHW)


def test_conv2d_clamp_and_residual(rng: np.random.Generator, tmp_path: Path) -> None:
    """What the convolution fuses: `clamp(zy + R(acc) + R1(r - zr), lo, hi)` is RESCALE, RESCALE, ADD, RESCALE, CLAMP."""
    with Lab(tmp_path) as lab:
        for _ in range(CASES):
            g, ic, oc = Geometry(rng), pick(rng, 1, 20), pick(rng, 1, 20)
            x, w = ints(rng, 1, ic, *g.size), ints(rng, oc, ic, *g.kernel, low=-127)
            zx, zy, zr = (zero_point(rng) for _ in range(3))
            low, high = sorted((pick(rng, -128, 127), pick(rng, -128, 127)))
            requant, other = ratios(rng, oc, 40 / (5000 * np.sqrt(w[0].size))), ratios(rng, 1, 0.8)
            ours = Quantised()
            size = [(s + a + b - (k - 1) * d - 1) // t + 1 for s, k, t, d, a, b in (g.h, g.w)]
            r = ints(rng, 1, oc, *size)
            fused: dict[str, Any] = {"requant": requant, "residual_requant": other, "clamp": (low, high)}
            y = ours("conv", ours.input(x, zx), ours.const(w), None, ours.input(r, zr), zero=zy, **fused, **g.attrs)
            t = lab.tosa
            bias = t.const(np.zeros(oc, np.int32))
            operands = [t.const(x.transpose(0, 2, 3, 1)), t.const(w.transpose(0, 2, 3, 1)), bias, t.zero(zx), t.zero(0)]
            shape = [1, *size, oc]
            sums = t("CONV2D", operands, shape, D.INT32, g.tosa_pad, g.strides, g.dilations, False, D.INT32)
            left = t.rescale(sums, requant, 0, 0, D.INT32)
            right = t.rescale(t.const(r.transpose(0, 2, 3, 1)), other, zr, 0, D.INT32)
            total = t.rescale(t("ADD", [left, right], shape, D.INT32), IDENTITY, 0, zy, D.INT8)
            bounds = [list(np.array([v], np.int8).tobytes()) for v in (low, high)]
            lab.expect(t("CLAMP", [total], shape, D.INT8, *bounds, 1), ours, y, "conv", NCHW)


def test_conv2d_int16(rng: np.random.Generator, tmp_path: Path) -> None:
    """int16 activations, int8 weights: 48-bit sums, 16-bit multipliers (`scale32` off)."""
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            g, n, ic, oc = Geometry(rng), 1 + case % 2, pick(rng, 1, 20), pick(rng, 1, 20)
            x, w = ints(rng, n, ic, *g.size, dtype=np.int16), ints(rng, oc, ic, *g.kernel, low=-127)
            bias = bias_of(rng, oc, 2**32 if case % 4 == 3 else 2**22)
            requant = ratios(rng, oc if case % 3 else 1, 1 / (100 * np.sqrt(w[0].size)), bits=15)
            ours = Quantised()
            y = ours("conv", ours.input(x), ours.const(w), ours.const(bias), dtype=DType.I16, requant=requant, **g.attrs)
            t = lab.tosa
            zeros = t.zero(0, np.int16), t.zero(0)
            operands = [t.const(x.transpose(0, 2, 3, 1)), t.const(w.transpose(0, 2, 3, 1)), t.const(bias, D.INT48), *zeros]
            shape = [y.shape[i] for i in (0, 2, 3, 1)]
            sums = t("CONV2D", operands, shape, D.INT48, g.tosa_pad, g.strides, g.dilations, False, D.INT48)
            lab.expect(t.rescale(sums, requant, 0, 0, D.INT16, scale32=False), ours, y, "conv", NCHW)


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
def test_depthwise_conv2d(rng: np.random.Generator, tmp_path: Path, wide: bool) -> None:
    """One filter per channel. A channel multiplier above one is a grouped convolution of ours, which the host runs."""
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            g, n, channels = Geometry(rng), 1 + case % 2, pick(rng, 1, 40)
            several = 1 if case % 4 else 2
            x = ints(rng, n, channels, *g.size, dtype=np.int16 if wide else np.int8)
            w = ints(rng, channels * several, 1, *g.kernel, low=-127)
            zx, zy = (0, 0) if wide else (zero_point(rng), zero_point(rng))
            bias = bias_of(rng, channels * several, 5000)
            typical = 1 / (100 * np.sqrt(w[0].size)) if wide else 40 / (5000 * np.sqrt(w[0].size))
            requant = ratios(rng, channels * several if case % 3 else 1, typical, bits=15 if wide else 31)
            ours = Quantised()
            held = ours.const(bias if wide else bias.astype(np.int32))
            attrs = {**g.attrs, "groups": channels, "requant": requant}
            y = ours("conv", ours.input(x, zx), ours.const(w), held, dtype=DType.I16 if wide else DType.I8, zero=zy, **attrs)
            t = lab.tosa
            kernel = w.reshape(channels, several, *g.kernel).transpose(2, 3, 0, 1)
            sums_type = D.INT48 if wide else D.INT32
            operands = [
                t.const(x.transpose(0, 2, 3, 1)), t.const(kernel), t.const(bias, sums_type),
                t.zero(zx, np.int16 if wide else np.int8), t.zero(0),
            ]  # fmt: skip
            shape = [y.shape[i] for i in (0, 2, 3, 1)]
            sums = t("DEPTHWISE_CONV2D", operands, shape, sums_type, g.tosa_pad, g.strides, g.dilations, False, sums_type)
            reference = t.rescale(sums, requant, 0, zy, D.INT16 if wide else D.INT8, scale32=not wide)
            lab.expect(reference, ours, y, "conv" if several == 1 else "", NCHW)


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
def test_transpose_conv2d(rng: np.random.Generator, tmp_path: Path, wide: bool) -> None:
    """TOSA adds `out_pad` to the result, we subtract `pads`."""
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            n, ic, oc = 1 + case % 2, pick(rng, 1, 12), pick(rng, 1, 20)
            size, kernel, strides = ((pick(rng, low, 5), pick(rng, low, 5)) for low in (1, 2, 1))
            strides = (min(strides[0], kernel[0]), min(strides[1], kernel[1]))
            pads = tuple(pick(rng, 0, k - 1) for k in (*kernel, *kernel))
            x = ints(rng, n, ic, *size, dtype=np.int16 if wide else np.int8)
            extents = [(s - 1) * t + k - a - b for s, t, k, a, b in zip(size, strides, kernel, pads, pads[2:])]
            if min(extents) < 1:
                pads = (0, 0, 0, 0)
            w = ints(rng, ic, oc, *kernel, low=-127)
            zx, zy = (0, 0) if wide else (zero_point(rng), zero_point(rng))
            bias = bias_of(rng, oc, 5000)
            spread = np.sqrt(ic * np.prod(kernel))
            requant = ratios(
                rng, oc if case % 3 else 1, 1 / (100 * spread) if wide else 40 / (5000 * spread), bits=15 if wide else 31
            )
            ours = Quantised()
            held = ours.const(bias if wide else bias.astype(np.int32))
            y = ours("conv_transpose", ours.input(x, zx), ours.const(w), held, dtype=DType.I16 if wide else DType.I8, zero=zy,
                     requant=requant, strides=strides, pads=pads, dilations=(1, 1), output_padding=(0, 0))  # fmt: skip
            t = lab.tosa
            sums_type = D.INT48 if wide else D.INT32
            operands = [
                t.const(x.transpose(0, 2, 3, 1)), t.const(w.transpose(1, 2, 3, 0)), t.const(bias, sums_type),
                t.zero(zx, np.int16 if wide else np.int8), t.zero(0),
            ]  # fmt: skip
            shape = [y.shape[i] for i in (0, 2, 3, 1)]
            out_pad = [-pads[0], -pads[2], -pads[1], -pads[3]]
            sums = t("TRANSPOSE_CONV2D", operands, shape, sums_type, out_pad, strides, False, sums_type)
            reference = t.rescale(sums, requant, 0, zy, D.INT16 if wide else D.INT8, scale32=not wide)
            lab.expect(reference, ours, y, "conv_transpose", NCHW)


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
def test_fully_connected(rng: np.random.Generator, tmp_path: Path, wide: bool) -> None:
    """`linear` is CONV2D of one pixel."""
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            n, k, m = pick(rng, 1, 9), pick(rng, 1, 70), pick(rng, 1, 40)
            x, w = ints(rng, n, k, dtype=np.int16 if wide else np.int8), ints(rng, m, k, low=-127)
            zx, zy = (0, 0) if wide else (zero_point(rng), zero_point(rng))
            bias = bias_of(rng, m, 5000)
            typical = 1 / (100 * np.sqrt(k)) if wide else 40 / (5000 * np.sqrt(k))
            requant = ratios(rng, m if case % 3 else 1, typical, bits=15 if wide else 31)
            ours = Quantised()
            held = ours.const(bias if wide else bias.astype(np.int32))
            kind = DType.I16 if wide else DType.I8
            y = ours("linear", ours.input(x, zx), ours.const(w), held, dtype=kind, zero=zy, requant=requant)
            t = lab.tosa
            sums_type = D.INT48 if wide else D.INT32
            operands = [
                t.const(x[:, None, None]), t.const(w[:, None, None]), t.const(bias, sums_type),
                t.zero(zx, np.int16 if wide else np.int8), t.zero(0),
            ]  # fmt: skip
            sums = t("CONV2D", operands, [n, 1, 1, m], sums_type, [0] * 4, [1, 1], [1, 1], False, sums_type)
            rescaled = t.rescale(sums, requant, 0, zy, D.INT16 if wide else D.INT8, scale32=not wide)
            lab.expect(t("RESHAPE", [rescaled, t.shape([n, m])], [n, m], rescaled.dtype), ours, y, "linear")


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
def test_matmul(rng: np.random.Generator, tmp_path: Path, wide: bool) -> None:
    """Two activations, each with a zero point."""
    with Lab(tmp_path) as lab:
        for case in range(CASES):
            n, h, c, w = 1 + case % 3, pick(rng, 1, 20), pick(rng, 1, 60), pick(rng, 1, 35)
            kind = np.int16 if wide else np.int8
            a, b = ints(rng, n, h, c, dtype=kind), ints(rng, n, c, w, dtype=kind)
            za, zb, zy = (0, 0, 0) if wide else (zero_point(rng), zero_point(rng), zero_point(rng))
            requant = ratios(rng, 1, 1 / (16000 * np.sqrt(c)) if wide else 40 / (5000 * np.sqrt(c)), bits=15 if wide else 31)
            ours = Quantised()
            y = ours(
                "matmul", ours.input(a, za), ours.input(b, zb), dtype=DType.I16 if wide else DType.I8, zero=zy, requant=requant
            )
            t = lab.tosa
            operands = [t.const(a), t.const(b), t.zero(za, kind), t.zero(zb, kind)]
            sums = t("MATMUL", operands, [n, h, w], D.INT48 if wide else D.INT32)
            lab.expect(
                t.rescale(sums, requant, 0, zy, D.INT16 if wide else D.INT8, scale32=not wide), ours, y, "" if wide else "matmul"
            )


def test_sums_of_extreme_operands(tmp_path: Path) -> None:
    """The largest 8-bit sums of a deep kernel, at a multiplier that lets every bit through."""
    with Lab(tmp_path) as lab:
        for zx in (-128, 127):
            x = np.full((1, 64, 4, 4), -1 - zx, np.int8)
            w = np.full((4, 64, 3, 3), 127, np.int8)
            w[1], w[2, ::2], w[3, 0] = -127, 126, 1
            bias = np.array([2**30, -(2**30), 0, 7], np.int32)
            requant = make_requant(np.array([2.0**-25, 2.0**-24, 2.0**-17, 0.9 * 2.0**-18]))
            ours = Quantised()
            y = ours(
                "conv",
                ours.input(x, zx),
                ours.const(w),
                ours.const(bias),
                requant=requant,
                strides=(1, 1),
                pads=(1, 1, 1, 1),
                dilations=(1, 1),
            )
            t = lab.tosa
            operands = [t.const(x.transpose(0, 2, 3, 1)), t.const(w.transpose(0, 2, 3, 1)), t.const(bias), t.zero(zx), t.zero(0)]
            sums = t("CONV2D", operands, [1, 4, 4, 4], D.INT32, [1] * 4, [1, 1], [1, 1], False, D.INT32)
            lab.expect(t.rescale(sums, requant, 0, 0, D.INT8), ours, y, "conv", NCHW)
