# SPDX-License-Identifier: Apache-2.0
"""Data movement and shape arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .fold import MOST_FOLDED
from .node import Node, Unsupported, importer, ir_dtype


@importer("Constant")
def constant(node: Node) -> Value:
    """Constant 1 to 23."""
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        found = node.attr(name)
        if found is not None:
            kind = np.float32 if "float" in name else np.int64
            return node.const(found if name == "value" else np.asarray(found, kind))
    raise Unsupported("sparse and string constants")


@importer("ConstantOfShape")
def constant_of_shape(node: Node) -> Value:
    """ConstantOfShape 9 to 21."""
    given, fill = node.constant(0), node.attr("value", np.zeros(1, np.float32))
    dims = () if given is None else tuple(int(d) for d in given.reshape(-1))
    if math.prod(dims) > MOST_FOLDED or min(dims, default=0) < 0:
        raise Unsupported(f"a constant of shape {dims}")
    return node.const(np.full(dims, fill.reshape(-1)[0], fill.dtype))


@importer("Shape")
def shape(node: Node) -> Value:
    """Shape 1 to 21: static, hence a constant."""
    dims = node.operand(0).shape
    start, end = node.attr("start", 0), node.attr("end", len(dims))
    return node.const(np.asarray(dims[slice(start, end)], np.int64))


@importer("Size")
def size(node: Node) -> Value:
    """Number of elements."""
    return node.const(np.asarray(math.prod(node.operand(0).shape), np.int64))


@importer("Range")
def range_(node: Node) -> Value:
    """Range 11 of constants."""
    start, limit, delta = (node.constant(i) for i in range(3))
    if start is None or limit is None or delta is None:
        raise Unsupported("inputs are missing")
    if not delta.item() or (limit.item() - start.item()) / delta.item() > MOST_FOLDED:
        raise Unsupported("the range is too long")
    return node.const(np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype))


@importer("NonZero")
def non_zero(node: Node) -> Value:
    """NonZero of a constant."""
    data = node.constant(0)
    if data is None:
        raise Unsupported("the operand is missing")
    return node.const(np.stack(np.nonzero(data)).astype(np.int64))


@importer("Reshape")
def reshape(node: Node) -> Value:
    """Reshape 5 to 21: 0 keeps an extent (unless allowzero), -1 takes what is left."""
    x, target = node.operand(0), node.constant(1)
    if target is None:
        raise Unsupported("the shape is missing")
    dims = [int(d) for d in target.reshape(-1)]
    if not node.attr("allowzero", 0):
        dims = [x.shape[i] if d == 0 and i < x.type.rank else d for i, d in enumerate(dims)]
    if dims.count(-1) == 1:
        known = math.prod(d for d in dims if d != -1)
        if known == 0 or x.type.element_count % known:
            raise Unsupported(f"shape {dims} does not fit {x.shape}")
        dims[dims.index(-1)] = x.type.element_count // known
    return node.emit("reshape", x, shape=tuple(dims))


@importer("Flatten")
def flatten(node: Node) -> Value:
    """Flatten 1 to 21."""
    x = node.operand(0)
    axis = node.attr("axis", 1)
    axis = axis + x.type.rank if axis < 0 else axis
    return node.emit("reshape", x, shape=(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@importer("Squeeze")
def squeeze(node: Node) -> Value:
    """Squeeze: axes are an attribute before opset 13."""
    x = node.operand(0)
    axes = node.ints("axes", 1)
    gone = {a % x.type.rank for a in axes} if axes is not None else {i for i, d in enumerate(x.shape) if d == 1}
    if any(x.shape[a] != 1 for a in gone):
        raise Unsupported(f"axes {sorted(gone)} of {x.shape} are not all 1")
    return node.emit("reshape", x, shape=tuple(d for i, d in enumerate(x.shape) if i not in gone))


@importer("Unsqueeze")
def unsqueeze(node: Node) -> Value:
    """Unsqueeze: axes are an attribute before opset 13."""
    x, axes = node.operand(0), node.ints("axes", 1) or ()
    rank = x.type.rank + len(axes)
    placed = {a % rank for a in axes}
    rest = iter(x.shape)
    return node.emit("reshape", x, shape=tuple(1 if i in placed else next(rest) for i in range(rank)))


@importer("Transpose")
def transpose(node: Node) -> Value:
    """Transpose 1 to 23."""
    x = node.operand(0)
    return node.emit("transpose", x, perm=node.ints("perm") or tuple(reversed(range(x.type.rank))))


@importer("Concat")
def concat(node: Node) -> Value:
    """Concat 4 to 13; empty operands vanish."""
    parts = [node.operand(i) for i in range(len(node.inputs))]
    axis = int(node.attr("axis", 1))
    full = [p for p in parts if p.type.element_count] or parts[:1]
    return full[0] if len(full) == 1 else node.emit("concat", *full, axis=axis % full[0].type.rank)


@importer("Split")
def split(node: Node) -> list[Value]:
    """Split: sizes are an attribute before opset 13; `num_outputs` from 18 on."""
    x = node.operand(0)
    axis = int(node.attr("axis", 0)) % x.type.rank
    sizes = node.ints("split", 1)
    if sizes is None:
        count = len(node.node.outputs)
        part = -(-x.shape[axis] // count)
        sizes = tuple(min(part, x.shape[axis] - i * part) for i in range(count))
    results, start = [], 0
    for extent in sizes:
        starts, full = [0] * x.type.rank, list(x.shape)
        starts[axis], full[axis] = start, extent
        results.append(node.emit("slice", x, starts=tuple(starts), sizes=tuple(full), steps=(1,) * x.type.rank))
        start += extent
    return results


@importer("Slice")
def slice_(node: Node) -> Value:
    """Slice 1 (attributes) and 10 to 13 (inputs)."""
    x = node.operand(0)
    if node.opset < 10:
        starts, ends, axes, steps = node.ints("starts"), node.ints("ends"), node.ints("axes"), None
    else:
        given = [node.constant(i) for i in range(1, 5)]
        starts, ends, axes, steps = (None if g is None else tuple(int(v) for v in g.reshape(-1)) for g in given)
    if starts is None or ends is None:
        raise Unsupported("starts and ends are missing")
    first, count, stride = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
    for i, axis in enumerate(axes if axes is not None else range(len(starts))):
        axis %= x.type.rank
        span = range(*slice(starts[i], ends[i], steps[i] if steps else 1).indices(x.shape[axis]))
        first[axis], count[axis], stride[axis] = (span.start if len(span) else 0), len(span), span.step
    return node.emit("slice", x, starts=tuple(first), sizes=tuple(count), steps=tuple(stride))


@importer("Pad")
def pad(node: Node) -> Value:
    """Pad: an attribute before opset 11, then inputs; negative pads cut."""
    x = node.operand(0)
    pads = node.ints("pads") if node.opset < 11 else node.ints("pads", 1)
    if pads is None:
        raise Unsupported("pads are missing")
    value = node.attr("value", 0.0)
    axes: Sequence[int] = range(x.type.rank)
    if node.opset >= 11:
        given = node.constant(2)
        value = 0.0 if given is None or not given.size else float(given.reshape(-1)[0])
        listed = node.constant(3)
        axes = range(x.type.rank) if listed is None else [int(a) % x.type.rank for a in listed]
    before, after = [0] * x.type.rank, [0] * x.type.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(pads) // 2 + i]
    if min(*before, *after) < 0:
        starts = tuple(max(0, -b) for b in before)
        sizes = tuple(d - s - max(0, -a) for d, s, a in zip(x.shape, starts, after))
        x = node.emit("slice", x, starts=starts, sizes=sizes, steps=(1,) * x.type.rank)
    full = tuple(max(0, p) for p in (*before, *after))
    mode = node.attr("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise Unsupported(f"mode={mode}")
    return x if not any(full) else node.emit("pad", x, pads=full, mode=mode, value=float(value))


@importer("Gather")
def gather(node: Node) -> Value:
    """Gather 1 to 13."""
    x = node.operand(0)
    return node.emit("gather", x, node.operand(1), axis=int(node.attr("axis", 0)) % max(1, x.type.rank))


@importer("GatherElements")
def gather_elements(node: Node) -> Value:
    """GatherElements 11, 13."""
    return node.emit("gather_elements", node.operand(0), node.operand(1), axis=int(node.attr("axis", 0)))


@importer("ScatterND", "ScatterElements")
def scatter(node: Node) -> Value:
    """ScatterND 11 to 18 and ScatterElements 11 to 18 at constant indices, without reduction.

    Rows of the data followed by rows of the updates, gathered by a table that names the last writer of every row.
    """
    x, indices, updates = node.operand(0), node.constant(1), node.operand(2)
    if indices is None or node.attr("reduction", "none") != "none":
        raise Unsupported(f"reduction={node.attr('reduction')}")
    if node.op_type == "ScatterND":
        rows, rest = x.shape[: indices.shape[-1]], x.shape[indices.shape[-1] :]
        places = tuple(np.moveaxis(indices, -1, 0).reshape(indices.shape[-1], -1))
    else:
        rows, rest = x.shape, ()
        places = tuple(i.reshape(-1) for i in np.indices(indices.shape, np.int64))
        axis = int(node.attr("axis", 0)) % x.type.rank
        places = (*places[:axis], indices.reshape(-1), *places[axis + 1 :])
    if math.prod(rows) > MOST_FOLDED:
        raise Unsupported(f"a table of {math.prod(rows)} rows")
    table = np.arange(math.prod(rows), dtype=np.int64)
    extents = np.asarray(rows, np.int64)
    written = np.ravel_multi_index(tuple(np.where(p < 0, p + e, p) for p, e in zip(places, extents)), rows)
    table[written] = math.prod(rows) + np.arange(written.size)
    both = [node.emit("reshape", v, shape=(n, *rest)) for v, n in ((x, table.size), (updates, written.size))]
    made = node.emit("gather", node.emit("concat", *both, axis=0), node.const(table), axis=0)
    return node.emit("reshape", made, shape=x.shape)


@importer("Expand")
def expand(node: Node) -> Value:
    """Expand 8, 13: both shapes broadcast."""
    x, target = node.operand(0), node.constant(1)
    full = np.broadcast_shapes(x.shape, tuple(int(d) for d in target) if target is not None else ())
    return x if full == x.shape else node.emit("expand", x, shape=tuple(int(d) for d in full))


@importer("Tile")
def tile(node: Node) -> Value:
    """Tile 6, 13."""
    repeats = node.constant(1)
    return node.emit("tile", node.operand(0), repeats=tuple(int(r) for r in repeats) if repeats is not None else ())


@importer("DepthToSpace")
def depth_to_space(node: Node) -> Value:
    """DepthToSpace 1 to 13 as reshape, transpose, reshape."""
    x, block = node.operand(0), int(node.attr("blocksize"))
    n, c, h, w = x.shape
    inner = c // (block * block)
    if node.attr("mode", "DCR") == "DCR":
        y = node.emit("reshape", x, shape=(n, block, block, inner, h, w))
        y = node.emit("transpose", y, perm=(0, 3, 4, 1, 5, 2))
    else:
        y = node.emit("reshape", x, shape=(n, inner, block, block, h, w))
        y = node.emit("transpose", y, perm=(0, 1, 4, 2, 5, 3))
    return node.emit("reshape", y, shape=(n, inner, h * block, w * block))


@importer("SpaceToDepth")
def space_to_depth(node: Node) -> Value:
    """SpaceToDepth 1 to 28 as reshape, transpose, reshape; mode CRD puts the channel before the block."""
    x, block = node.operand(0), int(node.attr("blocksize"))
    n, c, h, w = x.shape
    y = node.emit("reshape", x, shape=(n, c, h // block, block, w // block, block))
    y = node.emit("transpose", y, perm=(0, 3, 5, 1, 2, 4) if node.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4))
    return node.emit("reshape", y, shape=(n, c * block * block, h // block, w // block))


@importer("EyeLike")
def eye_like(node: Node) -> Value:
    """An identity matrix of a static shape."""
    import onnx_ir

    x, wanted = node.operand(0), node.attr("dtype")
    if x.type.rank != 2 or x.type.element_count > MOST_FOLDED:
        raise Unsupported(f"a matrix of shape {x.shape}")
    dtype = x.dtype if wanted is None else ir_dtype(onnx_ir.DataType(wanted))
    return node.const(np.eye(x.shape[0], x.shape[1], k=int(node.attr("k", 0)), dtype=dtype.numpy))


@importer("OneHot")
def one_hot(node: Node) -> Value:
    """OneHot 9, 11 of indices: compared with 0, 1, ... along a new axis; negative ones count from the end."""
    indices, depth, values = node.operand(0), node.constant(1), node.constant(2)
    if depth is None or values is None:
        raise Unsupported("depth and values are missing")
    count, rank = int(depth.item()), indices.type.rank + 1
    axis = int(node.attr("axis", -1)) % rank
    if not 0 < count <= MOST_FOLDED:
        raise Unsupported(f"depth {count}")
    index = indices if indices.dtype is DType.I64 else node.emit("cast", indices, dtype=DType.I64)
    from_end = node.emit("add", index, node.const(count, DType.I64))
    index = node.emit("where", node.emit("less", index, node.const(0, DType.I64)), from_end, index)
    index = node.emit("reshape", index, shape=(*indices.shape[:axis], 1, *indices.shape[axis:]))
    classes = node.const(np.arange(count).reshape(-1, *(1,) * (rank - axis - 1)), DType.I64)
    return node.emit("where", node.emit("equal", index, classes), node.const(values[1]), node.const(values[0]))


@importer("Trilu")
def trilu(node: Node) -> Value:
    """Trilu 14: one side of a diagonal kept, 0 elsewhere."""
    x, given = node.operand(0), node.constant(1)
    if x.type.rank < 2 or math.prod(x.shape[-2:]) > MOST_FOLDED:
        raise Unsupported(f"a matrix of shape {x.shape}")
    k = 0 if given is None else int(given.item())
    ones = np.ones(x.shape[-2:], np.bool_)
    mask = np.triu(ones, k) if node.attr("upper", 1) else np.tril(ones, k)
    return node.emit("where", node.const(mask), x, node.const(0, x.dtype))
