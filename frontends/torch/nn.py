# SPDX-License-Identifier: Apache-2.0
"""Convolutions, products, attention, pooling and resampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .importer import Node, Unsupported, importer


def _batched(node: Node, x: Value, spatial: int, compute: Callable[[Value], Value]) -> Value:
    """Run on `[N, C, *S]`; an image without batch axis gains one and loses it again."""
    if x.type.rank == spatial + 2:
        return compute(x)
    y = compute(node.reshape(x, (1, *x.shape)))
    return node.reshape(y, y.shape[1:])


def _pads(node: Node, rank: int, kernel: tuple[int, ...], dilations: tuple[int, ...]) -> tuple[int, ...]:
    """ONNX-order pads; `same` puts the odd one behind."""
    padding = node.arg("padding")
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * (2 * rank)
        total = [(k - 1) * d for k, d in zip(kernel, dilations)]
        return (*(t // 2 for t in total), *(t - t // 2 for t in total))
    both = node.ints("padding", rank)
    return both * 2


@importer("conv1d", "conv2d", "convolution", "_convolution")
def conv(node: Node) -> Value:
    """Convolutions, also transposed ones in their core form."""
    if node.arg("transposed"):
        return _transposed(node)
    w = node.tensor("weight")
    rank = w.type.rank - 2
    dilations = node.ints("dilation", rank)
    attrs = {
        "strides": node.ints("stride", rank), "dilations": dilations, "groups": node.arg("groups"),
        "pads": _pads(node, rank, w.shape[2:], dilations),
    }  # fmt: skip
    return _batched(node, node.tensor("input"), rank, lambda x: node.emit("conv", x, w, node.optional("bias"), **attrs))


@importer("conv_transpose1d", "conv_transpose2d")
def conv_transpose(node: Node) -> Value:
    """Transposed convolutions."""
    return _transposed(node)


def _transposed(node: Node) -> Value:
    w = node.tensor("weight")
    rank = w.type.rank - 2
    attrs = {
        "strides": node.ints("stride", rank), "dilations": node.ints("dilation", rank), "groups": node.arg("groups"),
        "pads": node.ints("padding", rank) * 2, "output_padding": node.ints("output_padding", rank),
    }  # fmt: skip
    return _batched(
        node, node.tensor("input"), rank, lambda x: node.emit("conv_transpose", x, w, node.optional("bias"), **attrs)
    )


def _swap_last(node: Node, x: Value) -> Value:
    rank = x.type.rank
    return node.emit("transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))


@importer("linear")
def linear(node: Node) -> Value:
    """Fully connected layer; computed weights make it a product and a sum."""
    x, w, b = node.tensor("input"), node.tensor("weight"), node.optional("bias")
    if w.is_constant and w.type.rank == 2:
        return node.emit("linear", x, w, b)
    y = _product(node, x, _swap_last(node, w) if w.type.rank == 2 else w)
    return y if b is None else node.emit("add", y, b)


def _product(node: Node, a: Value, b: Value) -> Value:
    """matmul by torch's rules: vectors gain an axis and lose it again; constant weights make a linear layer."""
    if b.data is not None and b.type.rank == 2:
        return node.emit("linear", a, node.importer.graph.constant(b.data.T, b.name))
    left, right = a.type.rank == 1, b.type.rank == 1
    y = node.emit(
        "matmul", node.reshape(a, (1, *a.shape)) if left else a, node.reshape(b, (*b.shape, 1)) if right else b
    )
    shape = list(y.shape)
    if left:
        del shape[-2]
    if right:
        del shape[-1]
    return node.reshape(y, shape)


@importer("mm", "bmm", "matmul", "mv", "dot")
def matmul(node: Node) -> Value:
    """Products of matrices, batches of them, and vectors."""
    names = {"aten::mv": ("self", "vec"), "aten::dot": ("self", "tensor"), "aten::matmul": ("self", "other")}
    first, second = names.get(node.op, ("self", "mat2"))
    return _product(node, node.tensor(first), node.tensor(second))


@importer("addmm", "baddbmm")
def addmm(node: Node) -> Value:
    """`beta * self + alpha * (a @ b)`."""
    first, second = ("mat1", "mat2") if node.op == "aten::addmm" else ("batch1", "batch2")
    a, b, bias = node.tensor(first), node.tensor(second), node.tensor("self")
    alpha, beta = node.arg("alpha"), node.arg("beta")
    if b.data is not None and b.type.rank == 2 and bias.shape == (b.shape[1],) and alpha == beta == 1:
        return node.emit("linear", a, node.importer.graph.constant(b.data.T, b.name), bias)
    y = _product(node, a, b)
    if alpha != 1:
        y = node.emit("mul", y, node.const(alpha, y.dtype))
    if beta != 1:
        bias = node.emit("mul", bias, node.const(beta, y.dtype))
    return y if beta == 0 else node.emit("add", y, bias)


@importer("scaled_dot_product_attention")
def attention(node: Node) -> Value:
    """`softmax(scale * q . k^T + mask) . v`, written out."""
    q, k, v, mask = node.tensor("query"), node.tensor("key"), node.tensor("value"), node.optional("attn_mask")
    if node.arg("dropout_p"):
        raise Unsupported("dropout in training mode: call model.eval() before the export")
    if node.arg("enable_gqa"):
        raise Unsupported("grouped queries")
    scale = node.arg("scale") or 1 / math.sqrt(q.shape[-1])
    scores = node.emit("matmul", q, _swap_last(node, k))
    scores = node.emit("mul", scores, node.const(scale, scores.dtype))
    if node.arg("is_causal"):
        seen = np.tril(np.ones(scores.shape[-2:], np.bool_))
        mask = node.const(seen)
    if mask is not None and mask.dtype is DType.BOOL:
        scores = node.emit("where", mask, scores, node.const(-np.inf, scores.dtype))
    elif mask is not None:
        scores = node.emit("add", scores, node.cast(mask, scores.dtype))
    return node.emit("matmul", node.emit("softmax", scores, axis=-1), v)


@importer("max_pool1d", "max_pool2d", "max_pool2d_with_indices")
def max_pool(node: Node) -> Value | list[Value]:
    """Maximum over windows; the indices are not computed."""
    rank = 1 if node.op.endswith("1d") else 2
    kernel = node.ints("kernel_size", rank)
    attrs = {
        "kernel": kernel, "strides": node.ints("stride", rank) or kernel, "pads": node.ints("padding", rank) * 2,
        "dilations": node.ints("dilation", rank), "ceil_mode": bool(node.arg("ceil_mode")),
    }  # fmt: skip
    y = _batched(node, node.tensor("self"), rank, lambda x: node.emit("max_pool", x, **attrs))
    return [y] if node.op.endswith("with_indices") else y


@importer("avg_pool1d", "avg_pool2d")
def avg_pool(node: Node) -> Value:
    """Mean over windows."""
    rank = 1 if node.op.endswith("1d") else 2
    if node.arg("divisor_override") is not None:
        raise Unsupported("divisor_override")
    kernel = node.ints("kernel_size", rank)
    attrs = {
        "kernel": kernel, "strides": node.ints("stride", rank) or kernel, "pads": node.ints("padding", rank) * 2,
        "ceil_mode": bool(node.arg("ceil_mode")), "count_include_pad": bool(node.arg("count_include_pad")),
    }  # fmt: skip
    return _batched(node, node.tensor("self"), rank, lambda x: node.emit("avg_pool", x, **attrs))


def _adaptive_axis(node: Node, x: Value, extent: int, out: int, axis: int) -> Value:
    """Means over the windows `[floor(i * n / m), ceil((i + 1) * n / m))` of one axis, as a product with their weights."""
    weights = np.zeros((out, extent), np.float32)
    for i in range(out):
        start, stop = i * extent // out, -(-(i + 1) * extent // out)
        weights[i, start:stop] = 1 / (stop - start)
    perm = [i for i in range(x.type.rank) if i != axis] + [axis]
    back = tuple(int(i) for i in np.argsort(perm))
    y = node.emit("linear", node.emit("transpose", x, perm=tuple(perm)), node.const(weights, x.dtype))
    return node.emit("transpose", y, perm=back)


@importer("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def adaptive_avg_pool(node: Node) -> Value:
    """The mean of everything, a pool where extents divide, else a product with averaging weights."""
    rank = 1 if node.op.endswith("1d") else 2
    x = node.tensor("self")
    extents, out = x.shape[-rank:], node.shape[-rank:]
    if extents == out:
        return x
    if all(o == 1 for o in out):
        return node.emit("reduce_mean", x, axes=tuple(range(x.type.rank - rank, x.type.rank)), keepdims=True)
    if all(e % o == 0 for e, o in zip(extents, out)):
        kernel = tuple(e // o for e, o in zip(extents, out))
        attrs = {
            "kernel": kernel,
            "strides": kernel,
            "pads": (0,) * (2 * rank),
            "ceil_mode": False,
            "count_include_pad": False,
        }
        return _batched(node, x, rank, lambda v: node.emit("avg_pool", v, **attrs))
    for i in range(rank):
        if extents[i] != out[i]:
            x = _adaptive_axis(node, x, extents[i], out[i], x.type.rank - rank + i)
    return x


@importer("adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_max_pool(node: Node) -> list[Value]:
    """The maximum of everything, or a pool where extents divide."""
    rank = 1 if node.op.endswith("1d") else 2
    x = node.tensor("self")
    extents, out = x.shape[-rank:], node.shape[-rank:]
    if all(o == 1 for o in out):
        return [node.emit("reduce_max", x, axes=tuple(range(x.type.rank - rank, x.type.rank)), keepdims=True)]
    if any(e % o for e, o in zip(extents, out)):
        raise Unsupported(f"windows of different sizes ({extents} to {out})")
    kernel = tuple(e // o for e, o in zip(extents, out))
    attrs = {
        "kernel": kernel,
        "strides": kernel,
        "pads": (0,) * (2 * rank),
        "dilations": (1,) * rank,
        "ceil_mode": False,
    }
    return [_batched(node, x, rank, lambda v: node.emit("max_pool", v, **attrs))]


@importer("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "upsample_linear1d",
          "upsample_bilinear2d", "upsample_bicubic2d")  # fmt: skip
def upsample(node: Node) -> Value:
    """Resampling; positions use the given scale factors, else the ratio of the extents."""
    kind = node.op.removeprefix("aten::")
    x = node.tensor("input" if node.arg("input") is not None else "self")
    rank = x.type.rank - 2
    given = node.arg("scale_factors") or [
        node.arg("scales_h", node.arg("scales")),
        node.arg("scales_w", node.arg("scales")),
    ]
    scales = [1.0, 1.0]
    for i in range(rank):
        scale = given[i] if i < len(given) else None
        scales.append(float(scale) if scale else node.shape[2 + i] / x.shape[2 + i])
    attrs: dict[str, str] = {"mode": "nearest", "coordinate": "asymmetric", "nearest": "floor"}
    if "exact" in kind:
        attrs = {"mode": "nearest", "coordinate": "half_pixel", "nearest": "round_prefer_ceil"}
    elif "nearest" not in kind:
        coordinate = "align_corners" if node.arg("align_corners") else "half_pixel"
        attrs = {"mode": "cubic" if "bicubic" in kind else "linear", "coordinate": coordinate}
    return node.emit("resize", x, sizes=node.shape, scales=tuple(scales), **attrs)
