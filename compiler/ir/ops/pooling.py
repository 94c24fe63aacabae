# SPDX-License-Identifier: Apache-2.0
"""Pooling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, Trait, register
from ..requant import apply_requant
from ..types import Array, TensorType
from .common import REQUANT, array, centred, finish_float, finish_integer, given, requant_of, wide
from .nn import DILATIONS, PADS, STRIDES, check_window, window_extent

KERNEL = Attr("kernel", AttrKind.INTS)
CEIL = Attr("ceil_mode", AttrKind.BOOL, False)


def pool_shape(x: TensorType, attrs: dict[str, Any], dilations: tuple[int, ...]) -> tuple[int, ...]:
    """Result shape of a pooling window. With `ceil_mode`, windows that start in the padding behind are dropped."""
    xs = x.static_shape
    rank = len(xs) - 2
    check_window(rank, attrs, "kernel", "strides", *(("dilations",) if "dilations" in attrs else ()))
    out = []
    for i in range(rank):
        before, after, stride = attrs["pads"][i], attrs["pads"][rank + i], attrs["strides"][i]
        extent = window_extent(xs[2 + i], attrs["kernel"][i], stride, before + after, dilations[i], attrs["ceil_mode"])
        if attrs["ceil_mode"] and (extent - 1) * stride >= xs[2 + i] + before:
            extent -= 1
        out.append(extent)
    return (*xs[:2], *out)


def pool_windows(x: Array, op: Op, fill: Any) -> Any:
    """Yields the input under each kernel position, `[N, C, *out]`, with `fill` in the padding."""
    attrs, rank, out = op.attrs, x.ndim - 2, op.results[0].shape[2:]
    dilations = attrs.get("dilations", (1,) * rank)
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, attrs["strides"], attrs["kernel"], dilations)]
    after = [max(0, r - size - p) for r, size, p in zip(reach, x.shape[2:], attrs["pads"][:rank])]
    padded = np.pad(x, ((0, 0), (0, 0), *zip(attrs["pads"][:rank], after)), constant_values=fill)
    for tap in itertools.product(*(range(k) for k in attrs["kernel"])):
        cut = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilations, out, attrs["strides"])
        )
        yield padded[(slice(None), slice(None), *cut)]


@register
class MaxPool(OpDef):
    """Maximum over sliding windows. x: [N, C, *S] -> [N, C, *S']; padding never wins."""

    name = "max_pool"
    attrs = (KERNEL, STRIDES, PADS, DILATIONS, CEIL)
    traits = Trait.KEEPS_QUANT
    onnx = ("MaxPool",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        return [TensorType(x.dtype, pool_shape(x, attrs, attrs["dilations"]), x.quant)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        dtype = op.inputs[0].dtype
        fill = dtype.range[0] if dtype.is_integer else -np.inf
        result = None
        for window in pool_windows(x, op, fill):
            result = window.copy() if result is None else np.maximum(result, window)
        return [np.asarray(result)]


@register
class AvgPool(OpDef):
    """Mean over sliding windows. x: [N, C, *S] -> [N, C, *S'].

    `count_include_pad`: padding counts in the denominator (not what `ceil_mode` adds behind it). In the integer form
    `requant` has one entry, or one per count of 1..kernel size.
    """

    name = "avg_pool"
    attrs = (KERNEL, STRIDES, PADS, CEIL, Attr("count_include_pad", AttrKind.BOOL, False), REQUANT)
    onnx = ("AveragePool",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        return [TensorType(x.dtype, pool_shape(x, attrs, (1,) * (x.rank - 2)))]

    @classmethod
    def counts(cls, op: Op) -> Array:
        """Denominator of every window, i64[*S']."""
        rank = len(op.attrs["kernel"])
        pads = op.attrs["pads"]
        per_axis = []
        for i in range(rank):
            size, before, after = op.inputs[0].shape[2 + i], pads[i], pads[rank + i]
            low, high = (0, size) if not op.attrs["count_include_pad"] else (-before, size + after)
            starts = np.arange(op.results[0].shape[2 + i]) * op.attrs["strides"][i] - before
            stops = starts + op.attrs["kernel"][i]
            per_axis.append(np.minimum(stops, high) - np.maximum(starts, low))
        total = per_axis[0]
        for more in per_axis[1:]:
            total = total[..., None] * more
        return np.maximum(total, 1)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        requant = requant_of(op)
        x = wide(array(inputs, 0)) if requant is None else centred(op, inputs, 0)
        total = sum(pool_windows(x, op, 0))
        counts = cls.counts(op)
        if requant is None:
            return [finish_float(op, total / counts.astype(total.dtype))]
        if not requant.per_channel:
            return [finish_integer(op, apply_requant(total, requant))]
        result = np.zeros_like(total)
        for count in np.unique(counts):
            one = type(requant)(requant.multiplier[count - 1 : count], requant.shift[count - 1 : count], requant.rounding)
            result = np.where(counts == count, apply_requant(total, one), result)
        return [finish_integer(op, result)]
