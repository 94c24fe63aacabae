# SPDX-License-Identifier: Apache-2.0
"""Convolutions, products and pooling."""

from __future__ import annotations

import math

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array

from .node import Node, Unsupported, importer
from .window import crop_negative, window_of


@importer("Conv")
def conv(node: Node) -> Value:
    """Conv 1, 11, 22."""
    x, w = node.operand(0), node.operand(1)
    window = window_of(node, w.shape[2:], x.shape[2:])
    x = crop_negative(node, x, window)
    return node.emit("conv", x, w, node.optional(2), groups=node.attr("group", 1), **window)


@importer("ConvTranspose")
def conv_transpose(node: Node) -> Value:
    """ConvTranspose 1, 11, 22; `output_shape` and `auto_pad` set the pads."""
    x, w = node.operand(0), node.operand(1)
    rank = len(w.shape) - 2
    strides, dilations = node.ints("strides") or (1,) * rank, node.ints("dilations") or (1,) * rank
    extra = node.ints("output_padding") or (0,) * rank
    pads = node.ints("pads") or (0,) * (2 * rank)
    wanted, auto = node.ints("output_shape"), node.attr("auto_pad", "NOTSET")
    if wanted is not None or auto.startswith("SAME"):
        target = wanted[-rank:] if wanted is not None else tuple(d * s for d, s in zip(x.shape[2:], strides))
        before, after, more = [], [], []
        for i in range(rank):
            full = (x.shape[2 + i] - 1) * strides[i] + extra[i] + (w.shape[2 + i] - 1) * dilations[i] + 1
            total = full - target[i]
            more.append(extra[i] + max(0, -total))
            total = max(0, total)
            # SAME_UPPER puts the odd one behind, everything else before.
            before.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
            after.append(total - before[-1])
        pads, extra = (*before, *after), tuple(more)
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    return node.emit("conv_transpose", x, w, node.optional(2), strides=strides, pads=pads, dilations=dilations,
                     groups=node.attr("group", 1), output_padding=extra)


@importer("Gemm")
def gemm(node: Node) -> Value:
    """Gemm 1 to 13: a linear layer where B is constant, else a product and a sum."""
    a, b, c = node.operand(0), node.operand(1), node.optional(2)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if node.attr("transA", 0):
        a = node.emit("transpose", a, perm=(1, 0))
    if c is not None and beta != 1.0:
        c = node.emit("mul", c, node.const(beta, c.dtype))
    if b.data is not None:
        weights = b.data if node.attr("transB", 0) else b.data.T
        if alpha != 1.0:
            weights = (weights * weights.dtype.type(alpha)).astype(weights.dtype)
        count = weights.shape[0]
        bias = c if c is not None and c.data is not None and c.data.size in (1, count) and c.data.ndim <= 2 else None
        if bias is not None and bias.data is not None:
            rows = bias.data.reshape(-1) if bias.data.ndim < 2 or bias.data.shape[0] == 1 else None
            bias = None if rows is None else node.const(np.broadcast_to(rows, (count,)))
        y = node.emit("linear", a, node.const(weights), bias)
        return y if bias is not None or c is None else node.emit("add", y, c)
    if node.attr("transB", 0):
        b = node.emit("transpose", b, perm=(1, 0))
    y = node.emit("matmul", a, b)
    if alpha != 1.0:
        y = node.emit("mul", y, node.const(alpha, y.dtype))
    return y if c is None else node.emit("add", y, c)


@importer("MatMul")
def matmul(node: Node) -> Value:
    """MatMul: vectors gain an axis for the product and lose it again."""
    a, b = node.operand(0), node.operand(1)
    if b.data is not None and b.type.rank == 2 and a.type.rank >= 1:
        return node.emit("linear", a, node.const(b.data.T))
    left, right = a.type.rank == 1, b.type.rank == 1
    if left:
        a = node.emit("reshape", a, shape=(1, *a.shape))
    if right:
        b = node.emit("reshape", b, shape=(*b.shape, 1))
    y = node.emit("matmul", a, b)
    if left or right:
        shape = list(y.shape)
        if left:
            del shape[-2]
        if right:
            del shape[-1]
        y = node.emit("reshape", y, shape=tuple(shape))
    return y


@importer("MaxPool")
def max_pool(node: Node) -> Value:
    """MaxPool 1 to 12, without the indices."""
    if node.wants(1):
        raise Unsupported("the indices of MaxPool are not computed")
    x, kernel = node.operand(0), node.ints("kernel_shape") or ()
    window = window_of(node, kernel, x.shape[2:])
    return node.emit("max_pool", x, kernel=kernel, ceil_mode=bool(node.attr("ceil_mode", 0)), **window)


@importer("AveragePool")
def average_pool(node: Node) -> Value:
    """AveragePool 1 to 22."""
    x, kernel = node.operand(0), node.ints("kernel_shape") or ()
    window = window_of(node, kernel, x.shape[2:])
    if any(d != 1 for d in window.pop("dilations")):
        raise Unsupported("dilated average pooling")
    return node.emit("avg_pool", x, kernel=kernel, ceil_mode=bool(node.attr("ceil_mode", 0)),
                     count_include_pad=bool(node.attr("count_include_pad", 0)), **window)


@importer("GlobalAveragePool")
def global_average_pool(node: Node) -> Value:
    """The mean over all spatial axes."""
    x = node.operand(0)
    return node.emit("reduce_mean", x, axes=tuple(range(2, x.type.rank)), keepdims=True)


@importer("GlobalMaxPool")
def global_max_pool(node: Node) -> Value:
    """The maximum over all spatial axes."""
    x = node.operand(0)
    return node.emit("reduce_max", x, axes=tuple(range(2, x.type.rank)), keepdims=True)


@importer("Resize", "Upsample")
def resize(node: Node) -> Value:
    """Upsample 7, 9 and Resize 10, 11, 13, 18, 19."""
    x = node.operand(0)
    rank, shape = x.type.rank, x.shape
    mode = node.attr("mode", "nearest")
    old = node.op_type == "Upsample" or node.opset < 11
    if node.attr("antialias", 0) or node.attr("exclude_outside", 0):
        raise Unsupported("antialias and exclude_outside")
    scales: Array | None
    if node.op_type == "Upsample" and node.attr("scales") is not None:
        scales = np.asarray(node.attr("scales"), np.float32)
        sizes = None
    else:
        scales_array = node.constant(1 if old else 2)
        scales = None if scales_array is None or not scales_array.size else scales_array.astype(np.float32)
        sizes = None if old or scales is not None else node.constant(3)
    axes = node.ints("axes") or tuple(range(rank))
    full_sizes, full_scales = list(shape), [1.0] * rank
    if scales is not None:
        for axis, scale in zip(axes, scales.tolist()):
            full_scales[axis], full_sizes[axis] = scale, int(math.floor(shape[axis] * scale))
    elif sizes is not None:
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        ratios = [int(s) / shape[a] for s, a in zip(sizes, axes)]
        chosen = {"not_larger": min(ratios), "not_smaller": max(ratios)}.get(policy)
        for axis, size, ratio in zip(axes, sizes.tolist(), ratios):
            full_scales[axis] = ratio if chosen is None else chosen
            full_sizes[axis] = int(size) if chosen is None else int(math.floor(chosen * shape[axis] + 0.5))
    else:
        raise Unsupported("neither scales nor sizes are given")
    coordinate = "asymmetric" if old else node.attr("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else node.attr("nearest_mode", "round_prefer_floor")
    if coordinate == "tf_crop_and_resize":
        raise Unsupported("tf_crop_and_resize")
    # Old nearest upsampling rounds down; old "linear" is what later opsets call linear with asymmetric positions.
    kind = {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode)
    return node.emit("resize", x, sizes=tuple(full_sizes), scales=tuple(float(s) for s in full_scales), mode=kind,
                     coordinate=coordinate, nearest=nearest, cubic_a=float(node.attr("cubic_coeff_a", -0.75)))

