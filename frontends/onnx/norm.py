# SPDX-License-Identifier: Apache-2.0
"""Normalisation and softmax."""

from __future__ import annotations

import math

import numpy as np

from gadl.compiler.ir.graph import Value

from .node import Node, Unsupported, importer


@importer("BatchNormalization")
def batch_norm(node: Node) -> Value:
    """BatchNormalization 7, 9, 14, 15 in inference."""
    if node.attr("training_mode", 0) or (node.opset >= 7 and node.attr("spatial", 1) == 0):
        raise Unsupported("training mode and non-spatial statistics")
    return node.emit("batch_norm", *(node.operand(i) for i in range(5)), epsilon=float(node.attr("epsilon", 1e-5)))


@importer("InstanceNormalization")
def instance_norm(node: Node) -> Value:
    """InstanceNormalization 6, 22."""
    return node.emit("instance_norm", *(node.operand(i) for i in range(3)), epsilon=float(node.attr("epsilon", 1e-5)))


@importer("LayerNormalization")
def layer_norm(node: Node) -> list[Value]:
    """LayerNormalization 17; mean and inverse deviation are written out where somebody reads them."""
    x, epsilon = node.operand(0), float(node.attr("epsilon", 1e-5))
    axis = int(node.attr("axis", -1))
    y = node.emit("layer_norm", x, node.operand(1), node.optional(2), axis=axis, epsilon=epsilon)
    if not node.wants(1) and not node.wants(2):
        return [y]
    axes = tuple(range(axis % x.type.rank, x.type.rank))
    mean = node.emit("reduce_mean", x, axes=axes, keepdims=True)
    centred = node.emit("sub", x, mean)
    variance = node.emit("reduce_mean", node.emit("mul", centred, centred), axes=axes, keepdims=True)
    return [y, mean, node.emit("rsqrt", node.emit("add", variance, node.const(epsilon, x.dtype)))]


@importer("RMSNormalization")
def rms_norm(node: Node) -> Value:
    """RMSNormalization 23."""
    return node.emit("rms_norm", node.operand(0), node.operand(1), axis=int(node.attr("axis", -1)),
                     epsilon=float(node.attr("epsilon", 1e-5)))


@importer("GroupNormalization")
def group_norm(node: Node) -> Value:
    """GroupNormalization 21 (scale and bias per channel); 18 had them per group."""
    x, scale, bias = node.operand(0), node.operand(1), node.operand(2)
    groups = int(node.attr("num_groups"))
    if node.opset < 21:
        repeats = x.shape[1] // groups
        scale, bias = (
            node.emit("reshape", node.emit("expand", node.emit("reshape", v, shape=(groups, 1)), shape=(groups, repeats)),
                      shape=(x.shape[1],))
            for v in (scale, bias)
        )
    return node.emit("group_norm", x, scale, bias, groups=groups, epsilon=float(node.attr("epsilon", 1e-5)))


@importer("Softmax", "LogSoftmax")
def softmax(node: Node) -> Value:
    """Softmax and LogSoftmax; before opset 13 all axes from `axis` on count as one."""
    name = "softmax" if node.op_type == "Softmax" else "log_softmax"
    x = node.operand(0)
    if node.opset >= 13:
        return node.emit(name, x, axis=int(node.attr("axis", -1)))
    axis = int(node.attr("axis", 1)) % max(1, x.type.rank)
    if axis == x.type.rank - 1:
        return node.emit(name, x, axis=axis)
    flat = node.emit("reshape", x, shape=(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    return node.emit("reshape", node.emit(name, flat, axis=1), shape=x.shape)


@importer("LpNormalization")
def lp_norm(node: Node) -> Value:
    """LpNormalization 1, 22 with p = 1 or 2: x / norm(x), 0 where the norm is 0."""
    x, axis = node.operand(0), int(node.attr("axis", -1)) % node.operand(0).type.rank
    if node.attr("p", 2) == 2:
        size = node.emit("reduce_l2", x, axes=(axis,), keepdims=True)
    else:
        size = node.emit("reduce_sum", node.emit("abs", x), axes=(axis,), keepdims=True)
    # Every other norm is larger than the smallest number.
    return node.emit("div", x, node.emit("max", size, node.const(float(np.finfo(np.float32).tiny), x.dtype)))


@importer("MeanVarianceNormalization")
def mean_variance_norm(node: Node) -> Value:
    """MeanVarianceNormalization 9, 13: (x - mean) / (deviation + 1e-9)."""
    x, axes = node.operand(0), node.ints("axes") or (0, 2, 3)
    centred = node.emit("sub", x, node.emit("reduce_mean", x, axes=axes, keepdims=True))
    variance = node.emit("reduce_mean", node.emit("mul", centred, centred), axes=axes, keepdims=True)
    deviation = node.emit("add", node.emit("sqrt", variance), node.const(1e-9, x.dtype))
    return node.emit("div", centred, deviation)


@importer("LRN")
def local_response_norm(node: Node) -> Value:
    """LRN 1, 13: the sum over neighbouring channels is a 1x1 convolution of the squares with a band of ones."""
    x, size = node.operand(0), int(node.attr("size"))
    channels, rank = x.shape[1], x.type.rank - 2
    if channels > 4096:
        raise Unsupported(f"{channels} channels")
    distance = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    band = (distance >= -((size - 1) // 2)) & (distance <= size // 2)
    weights = node.const(band.reshape(*band.shape, *(1,) * rank), x.dtype)
    ones, zeros = (1,) * rank, (0,) * (2 * rank)
    total = node.emit("conv", node.emit("mul", x, x), weights, strides=ones, pads=zeros, dilations=ones, groups=1)
    scaled = node.emit("mul", total, node.const(float(node.attr("alpha", 1e-4)) / size, x.dtype))
    base = node.emit("add", scaled, node.const(float(node.attr("bias", 1.0)), x.dtype))
    return node.emit("div", x, node.emit("pow", base, node.const(float(node.attr("beta", 0.75)), x.dtype)))
