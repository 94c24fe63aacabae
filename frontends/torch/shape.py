# SPDX-License-Identifier: Apache-2.0
"""Data movement."""

from __future__ import annotations

import math

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .importer import Node, Unsupported, importer


@importer("view.default", "_unsafe_view", "reshape", "flatten.using_ints", "unflatten.int", "squeeze", "unsqueeze", "view_as", "reshape_as",
          "_reshape_alias", "_reshape_copy")  # fmt: skip
def reshape(node: Node) -> Value:
    """Every op that keeps the elements in order has the shape that torch traced."""
    return node.reshape(node.tensor("self"), node.shape)


@importer("permute", "transpose.int", "t", "movedim.int", "swapaxes", "numpy_T")
def transpose(node: Node) -> Value:
    """Axes in another order."""
    x = node.tensor("self")
    axes = list(range(x.type.rank))
    if node.op == "aten::permute":
        axes = [d % x.type.rank for d in node.arg("dims")]
    elif node.op in ("aten::t", "aten::numpy_T"):
        axes.reverse()
    elif node.op == "aten::movedim":
        source, target = node.arg("source") % x.type.rank, node.arg("destination") % x.type.rank
        axes.insert(target, axes.pop(source))
    elif axes:
        a, b = (node.arg(n, node.arg(m)) % x.type.rank for n, m in (("dim0", "axis0"), ("dim1", "axis1")))
        axes[a], axes[b] = axes[b], axes[a]
    return x if axes == sorted(axes) else node.emit("transpose", x, perm=tuple(axes))


@importer("cat", "concat", "concatenate")
def cat(node: Node) -> Value:
    """One after another; torch skips empty vectors and promotes types."""
    parts = [node.cast(v, node.dtype) for v in node.arg("tensors") if v.shape != (0,) or node.shape == (0,)]
    return parts[0] if len(parts) == 1 else node.emit("concat", *parts, axis=node.arg("dim") % len(node.shape))


@importer("stack")
def stack(node: Node) -> Value:
    """Side by side along a fresh axis."""
    axis = node.arg("dim") % len(node.shape)
    shape = (*node.shape[:axis], 1, *node.shape[axis + 1 :])
    parts = [node.reshape(node.cast(v, node.dtype), shape) for v in node.arg("tensors")]
    return parts[0] if len(parts) == 1 else node.emit("concat", *parts, axis=axis)


def _cut(node: Node, x: Value, axis: int, start: int, size: int, step: int = 1) -> Value:
    """`size` elements of one axis."""
    if (start, size, step) == (0, x.shape[axis], 1):
        return x
    starts, sizes, steps = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return node.emit("slice", x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


@importer("slice.Tensor", "narrow")
def slice_(node: Node) -> Value:
    """A range of one axis."""
    x = node.tensor("self")
    axis = node.arg("dim") % x.type.rank
    if node.op == "aten::narrow":
        return _cut(node, x, axis, node.arg("start") % x.shape[axis], node.arg("length"))
    span = range(*slice(node.arg("start"), node.arg("end"), node.arg("step")).indices(x.shape[axis]))
    return _cut(node, x, axis, span.start if len(span) else 0, len(span), span.step)


@importer("select.int")
def select(node: Node) -> Value:
    """One index of an axis, which goes."""
    x = node.tensor("self")
    axis = node.arg("dim") % x.type.rank
    return node.reshape(_cut(node, x, axis, node.arg("index") % x.shape[axis], 1), node.shape)


@importer(
    "split.Tensor", "split.sizes", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split.sections"
)
def split(node: Node) -> list[Value]:
    """Pieces of one axis."""
    x = node.tensor("self")
    axis = node.arg("dim") % x.type.rank
    extent = x.shape[axis]
    name = node.op.removeprefix("aten::")
    if "chunk" in name:
        sizes: list[int] = [-(-extent // node.arg("chunks"))]
    elif name == "tensor_split":
        count = node.arg("sections")
        sizes = [extent // count + (i < extent % count) for i in range(count)]
    else:
        given = node.arg("split_sizes", node.arg("split_size"))
        sizes = [given] if isinstance(given, int) else list(given)
    if len(sizes) == 1 and sizes[0] < extent:
        sizes = [min(sizes[0], extent - start) for start in range(0, extent, sizes[0])]
    starts = np.cumsum([0, *sizes]).tolist()
    return [_cut(node, x, axis, start, size) for start, size in zip(starts, sizes)]


@importer("unbind.int")
def unbind(node: Node) -> list[Value]:
    """Every index of an axis."""
    x = node.tensor("self")
    axis = node.arg("dim") % x.type.rank
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [node.reshape(_cut(node, x, axis, i, 1), shape) for i in range(x.shape[axis])]


@importer("expand", "expand_as", "broadcast_to")
def expand(node: Node) -> Value:
    """Broadcast."""
    x = node.tensor("self")
    return x if x.shape == node.shape else node.emit("expand", x, shape=node.shape)


@importer("repeat", "tile")
def repeat(node: Node) -> Value:
    """Copies along each axis; missing leading axes are 1."""
    x, repeats = node.tensor("self"), tuple(node.arg("repeats", node.arg("dims")))
    rank = max(x.type.rank, len(repeats))
    repeats = (1,) * (rank - len(repeats)) + repeats
    x = node.reshape(x, (1,) * (rank - x.type.rank) + x.shape)
    return x if all(r == 1 for r in repeats) else node.emit("tile", x, repeats=repeats)


@importer("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def pad(node: Node) -> Value:
    """Padding, last axis first in torch's list; negative pads cut."""
    x, given = node.tensor("self"), node.arg("pad") or node.arg("padding")
    name = node.op.removeprefix("aten::")
    mode = {"constant_pad_nd": "constant", "pad": node.arg("mode")}.get(
        name, "reflect" if "reflection" in name else "edge"
    )
    mode = "edge" if mode == "replicate" else mode
    if mode not in ("constant", "reflect", "edge"):
        raise Unsupported(f"mode={mode}")
    before, after = [0] * x.type.rank, [0] * x.type.rank
    for i in range(len(given) // 2):
        before[-1 - i], after[-1 - i] = given[2 * i], given[2 * i + 1]
    for axis in range(x.type.rank):
        cut_before, cut_after = max(0, -before[axis]), max(0, -after[axis])
        x = _cut(node, x, axis, cut_before, x.shape[axis] - cut_before - cut_after)
    pads = tuple(max(0, p) for p in (*before, *after))
    value = node.arg("value") or 0.0
    return node.emit("pad", x, pads=pads, mode=mode, value=float(value)) if any(pads) else x


@importer("flip")
def flip(node: Node) -> Value:
    """Some axes backwards."""
    x = node.tensor("self")
    for axis in node.arg("dims"):
        at = axis % x.type.rank
        x = _cut(node, x, at, x.shape[at] - 1, x.shape[at], -1)
    return x


@importer("roll")
def roll(node: Node) -> Value:
    """The end of an axis moved to its front."""
    x, axes = node.tensor("self"), node.arg("dims")
    flat = not axes
    shape = x.shape
    if flat:
        x, axes = node.reshape(x, (math.prod(shape),)), [0]
    for shift, axis in zip(node.arg("shifts"), axes):
        at = axis % x.type.rank
        moved = shift % x.shape[at]
        if moved:
            keep = x.shape[at] - moved
            x = node.emit("concat", _cut(node, x, at, keep, moved), _cut(node, x, at, 0, keep), axis=at)
    return node.reshape(x, shape)


@importer("index_select")
def index_select(node: Node) -> Value:
    """Slices of an axis by an index vector."""
    x = node.tensor("self")
    return node.emit("gather", x, node.tensor("index"), axis=node.arg("dim") % x.type.rank)


@importer("embedding")
def embedding(node: Node) -> Value:
    """Rows of the weight."""
    return node.emit("gather", node.tensor("weight"), node.tensor("indices"), axis=0)


@importer("gather")
def gather(node: Node) -> Value:
    """Elements along an axis by an index tensor."""
    x = node.tensor("self")
    return node.emit("gather_elements", x, node.tensor("index"), axis=node.arg("dim") % x.type.rank)


@importer("index.Tensor", "_unsafe_index.Tensor")
def index(node: Node) -> Value:
    """One index tensor, or constant ones that span a grid: a gather per axis."""
    x, indices = node.tensor("self"), node.arg("indices")
    used = [(i, v) for i, v in enumerate(indices) if v is not None]
    if any(v.dtype is DType.BOOL for _, v in used):
        raise Unsupported("boolean masks make shapes that depend on data")
    if len(used) == 1:
        return node.emit("gather", x, used[0][1], axis=used[0][0])
    # Index tensors that vary along one axis each, in order, select a grid: take it axis by axis.
    full = np.broadcast_shapes(*(v.shape for _, v in used))
    grid = len(full) == len(used) and [i for i, _ in used] == list(range(used[0][0], used[0][0] + len(used)))
    for position, (_, v) in enumerate(used):
        shape = (1,) * (len(full) - v.type.rank) + v.shape
        grid = grid and all(d == 1 for p, d in enumerate(shape) if p != position)
    if not grid:
        raise Unsupported("several index tensors that do not span a grid")
    for axis, v in used:
        x = node.emit("gather", x, node.reshape(v, (math.prod(v.shape),)), axis=axis)
    return x


@importer("pixel_shuffle")
def pixel_shuffle(node: Node) -> Value:
    """`[N, C r r, H, W] -> [N, C, H r, W r]`."""
    x, r = node.tensor("self"), node.arg("upscale_factor")
    *lead, c, h, w = x.shape
    k = len(lead)
    y = node.reshape(x, (*lead, c // (r * r), r, r, h, w))
    y = node.emit("transpose", y, perm=(*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return node.reshape(y, node.shape)


@importer("pixel_unshuffle")
def pixel_unshuffle(node: Node) -> Value:
    """`[N, C, H r, W r] -> [N, C r r, H, W]`."""
    x, r = node.tensor("self"), node.arg("downscale_factor")
    *lead, c, h, w = x.shape
    k = len(lead)
    y = node.reshape(x, (*lead, c, h // r, r, w // r, r))
    y = node.emit("transpose", y, perm=(*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return node.reshape(y, node.shape)


@importer("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(node: Node) -> Value:
    """Channels of all groups interleaved."""
    x, groups = node.tensor("self"), node.arg("groups")
    n, c, *rest = x.shape
    y = node.reshape(x, (n, groups, c // groups, *rest))
    y = node.emit("transpose", y, perm=(0, 2, 1, *range(3, 3 + len(rest))))
    return node.reshape(y, x.shape)


@importer("tril", "triu")
def triangle(node: Node) -> Value:
    """A triangle of the last two axes, the rest 0."""
    x, offset = node.tensor("self"), node.arg("diagonal")
    ones = np.ones(x.shape[-2:], np.bool_)
    mask = np.tril(ones, offset) if node.op == "aten::tril" else np.triu(ones, offset)
    return node.emit("where", node.const(mask), x, node.const(0, x.dtype))
