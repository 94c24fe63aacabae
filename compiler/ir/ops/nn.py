# SPDX-License-Identifier: Apache-2.0
"""Convolutions and products."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, Operand, OpError, Trait, register
from ..requant import apply_requant
from ..types import Array, DType, TensorType
from .common import (
    CLAMP,
    REQUANT,
    array,
    broadcast,
    centred,
    finish_float,
    finish_integer,
    given,
    requant_of,
    requantised,
    wide,
)

STRIDES = Attr("strides", AttrKind.INTS)
PADS = Attr("pads", AttrKind.INTS)
DILATIONS = Attr("dilations", AttrKind.INTS)
GROUPS = Attr("groups", AttrKind.INT, 1)
RESIDUAL_REQUANT = Attr("residual_requant", AttrKind.REQUANT, None)


def check_window(rank: int, attrs: dict[str, Any], *names: str) -> None:
    """`OpError` unless the window attributes have one entry per spatial axis and make sense."""
    if rank not in (1, 2):
        raise OpError(f"{rank} spatial dimensions are not supported; 1 and 2 are")
    for name in names:
        if len(attrs[name]) != rank or min(attrs[name]) < (0 if name == "output_padding" else 1):
            raise OpError(f"'{name}' must be {rank} positive numbers, got {attrs[name]}")
    if attrs.get("groups", 1) < 1:
        raise OpError(f"'groups' must be at least 1, got {attrs['groups']}")
    if len(attrs["pads"]) != 2 * rank or min(attrs["pads"]) < 0:
        raise OpError(f"'pads' must be {2 * rank} numbers of at least 0, got {attrs['pads']}")


def check_weights(types: Sequence[TensorType | None], channels: int) -> None:
    """`OpError` when the weights are empty or the bias (operand 2) does not have one entry per output channel."""
    if 0 in given(types, 1).static_shape:
        raise OpError(f"weights {given(types, 1).shape} are empty")
    bias = types[2] if len(types) > 2 else None
    if bias is not None and bias.static_shape != (channels,):
        raise OpError(f"bias {bias.shape} does not fit {channels} channels")


def check_residual(types: Sequence[TensorType | None], result: TensorType) -> None:
    """`OpError` when operand 3 is present and does not have the result's shape."""
    residual = types[3] if len(types) > 3 else None
    if residual is not None and residual.shape != result.shape:
        raise OpError(f"residual {residual.shape} does not fit the result {result.shape}")


def window_extent(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool = False) -> int:
    """Output extent of a sliding window; `pad` is the sum of both sides."""
    reach = size + pad - (kernel - 1) * dilation - 1
    if reach < 0:
        raise OpError(f"the window of {(kernel - 1) * dilation + 1} is larger than the padded input of {size + pad}")
    return (-(-reach // stride) if ceil else reach // stride) + 1


def canonical_sum(x: Array, w: Array, total: Array) -> Array:
    """Half precision: `total` plus one product per input channel, ascending, each added in f32."""
    for channel in range(x.shape[2]):
        total = total + w[None, :, :, channel, None] * x[:, :, None, channel]
    return total


def convolve(x: Array, w: Array, attrs: dict[str, Any], out: Sequence[int], half: bool) -> Array:
    """Sum over taps, kernel position by kernel position: `x[N,C,*S], w[O,C/g,*K] -> [N,O,*out]`.

    x holds centred integers (i64) or floats; padding is zero. Integers are exact, by way of floating-point products that cannot round:
    where |x| < 256 and |w| <= 128, 512 products stay below 2^24.
    """
    rank, groups = x.ndim - 2, attrs["groups"]
    pads, strides, dilations = attrs["pads"], attrs["strides"], attrs["dilations"]
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, strides, w.shape[2:], dilations)]
    after = [max(0, r - size - p) for r, size, p in zip(reach, x.shape[2:], pads[:rank])]
    batch, grouped = x.shape[0], w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    integer = np.issubdtype(x.dtype, np.integer)
    if integer:
        small = int(np.abs(x).max(initial=0)) < 256 and int(np.abs(w).max(initial=0)) <= 128 and w.shape[1] <= 512
        x, grouped = (values.astype(np.float32 if small else np.float64) for values in (x, grouped))
    x = np.pad(x, ((0, 0), (0, 0), *zip(pads[:rank], after)))
    shape = (batch, groups, w.shape[0] // groups, int(np.prod(out)))
    total = np.zeros(shape, np.float64 if integer else x.dtype)
    for tap in itertools.product(*(range(k) for k in w.shape[2:])):
        cut = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilations, out, strides)
        )
        index: tuple[Any, ...] = (slice(None), slice(None), *cut)
        window = x[index].reshape(batch, groups, x.shape[1] // groups, shape[3])
        # A strided kernel would miss the fast product.
        of_tap: tuple[Any, ...] = (slice(None), slice(None), slice(None), *tap)
        kernel = np.ascontiguousarray(grouped[of_tap])
        if half:
            total = canonical_sum(window, kernel, total)
        elif kernel.shape[1:] == (1, 1):
            total += kernel[None] * window
        else:
            total += np.matmul(kernel[None], window)
    return (total.astype(np.int64) if integer else total).reshape(batch, w.shape[0], *out)


def is_half(dtype: DType) -> bool:
    """True for the types that accumulate in canonical order."""
    return dtype in (DType.F16, DType.BF16)


def finish_products(op: Op, total: Array, inputs: Sequence[Array | None], axis: int) -> Array:
    """Bias, residual, requantisation and clamp of convolutions and products; `axis` is the channel axis."""
    bias = inputs[2] if len(inputs) > 2 else None
    residual = inputs[3] if len(inputs) > 3 else None
    if bias is not None:
        shape = [1] * total.ndim
        shape[axis] = -1
        total = total + bias.astype(total.dtype).reshape(shape)
    if requant_of(op) is None:
        if residual is not None:
            total = total + wide(residual)
        return finish_float(op, total) if op.results[0].dtype.is_float else total.astype(op.results[0].dtype.numpy)
    total = requantised(op, total, axis)
    if residual is not None:
        total = total + apply_requant(centred(op, inputs, 3), op.attrs["residual_requant"])
    return finish_integer(op, total)


@register
class Conv(OpDef):
    """N-d convolution with groups, bias and an optional residual added to the result.

    x: [N, C, *S], w: [O, C/groups, *K], b: [O], residual and result: [N, O, *S']. One or two spatial dimensions.
    """

    name = "conv"
    operands = (Operand("x"), Operand("w"), Operand("b", optional=True), Operand("residual", optional=True))
    attrs = (STRIDES, PADS, DILATIONS, GROUPS, CLAMP, REQUANT, RESIDUAL_REQUANT)
    traits = Trait.WEIGHTED
    onnx = ("Conv",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x, w = given(types, 0), given(types, 1)
        xs, ws = x.static_shape, w.static_shape
        rank = len(xs) - 2
        check_window(rank, attrs, "strides", "dilations")
        if len(ws) != rank + 2 or ws[1] * attrs["groups"] != xs[1] or ws[0] % attrs["groups"]:
            raise OpError(f"weights {ws} do not fit {xs[1]} input channels in {attrs['groups']} groups")
        pads = attrs["pads"]
        out = tuple(
            window_extent(xs[2 + i], ws[2 + i], attrs["strides"][i], pads[i] + pads[rank + i], attrs["dilations"][i])
            for i in range(rank)
        )
        check_weights(types, ws[0])
        result = TensorType(x.dtype, (xs[0], ws[0], *out))
        check_residual(types, result)
        return [result]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        half = is_half(op.inputs[0].dtype)
        integer = requant_of(op) is not None
        x = centred(op, inputs, 0) if integer else wide(array(inputs, 0))
        w = array(inputs, 1)
        w = w.astype(np.int64) if integer else wide(w)
        total = convolve(x, w, op.attrs, op.results[0].shape[2:], half)
        return [finish_products(op, total, inputs, 1)]


@register
class ConvTranspose(OpDef):
    """Transposed convolution. x: [N, C, *S], w: [C, O/groups, *K], b: [O] -> [N, O, *S']."""

    name = "conv_transpose"
    operands = (Operand("x"), Operand("w"), Operand("b", optional=True))
    attrs = (STRIDES, PADS, DILATIONS, GROUPS, Attr("output_padding", AttrKind.INTS), CLAMP, REQUANT)
    traits = Trait.WEIGHTED
    onnx = ("ConvTranspose",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x, w = given(types, 0), given(types, 1)
        xs, ws = x.static_shape, w.static_shape
        rank = len(xs) - 2
        check_window(rank, attrs, "strides", "dilations", "output_padding")
        if len(ws) != rank + 2 or ws[0] != xs[1] or xs[1] % attrs["groups"]:
            raise OpError(f"weights {ws} do not fit {xs[1]} input channels")
        check_weights(types, ws[1] * attrs["groups"])
        out = tuple(
            (xs[2 + i] - 1) * attrs["strides"][i] - attrs["pads"][i] - attrs["pads"][rank + i]
            + (ws[2 + i] - 1) * attrs["dilations"][i] + 1 + attrs["output_padding"][i]
            for i in range(rank)
        )  # fmt: skip
        if min(out) < 1:
            raise OpError(f"the result would have extents {out}")
        return [TensorType(x.dtype, (xs[0], ws[1] * attrs["groups"], *out))]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        integer = requant_of(op) is not None
        x = centred(op, inputs, 0) if integer else wide(array(inputs, 0))
        w = array(inputs, 1).astype(np.int64) if integer else wide(array(inputs, 1))
        attrs, rank = op.attrs, x.ndim - 2
        # The same sum as a convolution of the zero-stuffed input with the mirrored kernel.
        size = [(s - 1) * t + 1 for s, t in zip(x.shape[2:], attrs["strides"])]
        stuffed = np.zeros((*x.shape[:2], *size), x.dtype)
        stuffed[(slice(None), slice(None), *(slice(None, None, t) for t in attrs["strides"]))] = x
        groups = attrs["groups"]
        kernel = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)
        kernel = kernel.reshape(groups * w.shape[1], w.shape[0] // groups, *w.shape[2:])
        kernel = kernel[(slice(None), slice(None), *(slice(None, None, -1),) * rank)]
        edge = [(k - 1) * d - p for k, d, p in zip(w.shape[2:], attrs["dilations"], attrs["pads"][:rank])]
        cut = tuple(slice(max(0, -e), None) for e in edge)
        moved = {
            "groups": groups, "strides": (1,) * rank, "dilations": attrs["dilations"],
            "pads": tuple(max(0, e) for e in edge) * 2,
        }  # fmt: skip
        x = stuffed[(slice(None), slice(None), *cut)]
        total = convolve(x, kernel, moved, op.results[0].shape[2:], is_half(op.inputs[0].dtype))
        return [finish_products(op, total, inputs, 1)]


@register
class Linear(OpDef):
    """Fully connected layer: x[..., K] . w[N, K]^T + b[N] (+ residual) -> [..., N]."""

    name = "linear"
    operands = (Operand("x"), Operand("w"), Operand("b", optional=True), Operand("residual", optional=True))
    attrs = (CLAMP, REQUANT, RESIDUAL_REQUANT)
    traits = Trait.WEIGHTED
    onnx = ("Gemm",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x, w = given(types, 0), given(types, 1)
        xs, ws = x.static_shape, w.static_shape
        if len(xs) < 1 or len(ws) != 2 or ws[1] != xs[-1]:
            raise OpError(f"weights {ws} do not fit an input of shape {xs}")
        check_weights(types, ws[0])
        result = TensorType(x.dtype, (*xs[:-1], ws[0]))
        check_residual(types, result)
        return [result]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        integer = requant_of(op) is not None
        x = centred(op, inputs, 0) if integer else wide(array(inputs, 0))
        w = array(inputs, 1).astype(np.int64) if integer else wide(array(inputs, 1))
        return [finish_products(op, _product(x, w.T, is_half(op.inputs[0].dtype)), inputs, -1)]


def _product(a: Array, b: Array, half: bool) -> Array:
    """`a[..., M, K] . b[..., K, N]`: integers exact, half precision in canonical order."""
    if np.issubdtype(a.dtype, np.integer):
        return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
    if not half:
        return np.matmul(a, b)
    total = np.zeros((*np.broadcast_shapes(a.shape[:-1], b.shape[:-2] + (1,)), b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        total = total + a[..., k, None] * b[..., k, None, :].reshape(*b.shape[:-2], 1, b.shape[-1])
    return total


@register
class MatMul(OpDef):
    """Batched product of two tensors: a[..., M, K] . b[..., K, N] -> [..., M, N], batch axes broadcast."""

    name = "matmul"
    operands = (Operand("a"), Operand("b"))
    attrs = (CLAMP, REQUANT)
    onnx = ("MatMul",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        a, b = given(types, 0), given(types, 1)
        left, right = a.static_shape, b.static_shape
        if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
            raise OpError(f"shapes {left} and {right} cannot be multiplied")
        return [TensorType(a.dtype, (*broadcast(left[:-2], right[:-2]), left[-2], right[-1]))]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        if requant_of(op) is not None:
            total = _product(centred(op, inputs, 0), centred(op, inputs, 1), False)
            return [finish_integer(op, requantised(op, total, None))]
        a, b = wide(array(inputs, 0)), wide(array(inputs, 1))
        return [finish_float(op, _product(a, b, is_half(op.inputs[0].dtype)))]


