# SPDX-License-Identifier: Apache-2.0
"""Layers: what the code generator sees of a segment's ops.

A layer is one op, plus a table look-up that its drain absorbs. `Window` is the geometry that convolutions, products and
pooling share; `Flat` that of elementwise ops; `Copy` that of data movement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from gadl.compiler.ir.graph import Op, Value
from gadl.targets.base import Segment


@dataclass(frozen=True)
class Layer:
    """`op` and what is fused behind it; `result` is the value that reaches memory."""

    index: int
    op: Op
    lut: Op | None
    ops: tuple[int, ...]

    @property
    def result(self) -> Value:
        """The value that the layer stores."""
        return (self.lut or self.op).result

    @property
    def name(self) -> str:
        """The model's own name of the layer."""
        return self.op.loc.node or self.op.result.name


#: Ops whose drain can apply a 256-entry table.
_DRAINED = frozenset({"conv", "linear", "conv_transpose", "matmul"})


def layers_of(segment: Segment) -> list[Layer]:
    """The segment's layers in execution order.

    `y = lut(conv(x))` becomes one layer where only the table reads the convolution: the drain applies the same table to the
    same integers.
    """
    position = {id(op): index for index, op in enumerate(segment.ops)}
    returned = {id(v) for v in segment.outputs}
    absorbed: set[int] = set()
    layers: list[Layer] = []
    for index, op in enumerate(segment.ops):
        if id(op) in absorbed:
            continue
        lut = None
        if op.name in _DRAINED and len(op.result.users) == 1 and id(op.result) not in returned:
            (user,) = op.result.users
            if user.name == "lut" and id(user) in position and user.result.dtype.size_bytes == 1 == op.result.dtype.size_bytes:
                lut = user
                absorbed.add(id(user))
        ops = (index,) if lut is None else (index, position[id(lut)])
        layers.append(Layer(len(layers), op, lut, ops))
    return layers


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window over one image, channels innermost.

    `ic` counts the channels of the whole input, `group_ic` those that one output channel reads. Pads at the bottom and
    right follow from the output size.
    """

    batch: int
    ih: int
    iw: int
    ic: int
    oh: int
    ow: int
    oc: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    groups: int = 1

    @property
    def group_ic(self) -> int:
        """Input channels per output channel."""
        return self.ic // self.groups

    @property
    def depthwise(self) -> bool:
        """One filter per channel."""
        return self.groups > 1 and self.groups == self.ic == self.oc

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole layer."""
        return self.batch * self.oh * self.ow * self.oc * self.kh * self.kw * self.group_ic

    def input_rows(self, first: int, count: int) -> tuple[int, int]:
        """The input rows `[start, end)` that output rows `[first, first + count)` read, inside the image."""
        start = first * self.stride_h - self.pad_top
        end = (first + count - 1) * self.stride_h - self.pad_top + (self.kh - 1) * self.dilation_h + 1
        return min(max(start, 0), self.ih), max(min(end, self.ih), 0)


def window_of(op: Op) -> Window:
    """The window of a conv, pooling or linear op.

    One spatial dimension is treated as rows; `linear` is a 1x1 window whose pixels are the leading dimensions.
    """
    x, y = op.inputs[0], op.result
    if op.name == "linear":
        rows, ic = math.prod(x.shape[:-1]), x.shape[-1]
        return product_window(rows, ic, y.shape[-1])
    rank = x.type.rank - 2
    spatial_in, spatial_out = (*x.shape[2:], 1)[:2], (*y.shape[2:], 1)[:2]
    kernel = op.inputs[1].shape[2:] if op.name == "conv" else op.attrs["kernel"]

    def two(values: tuple[int, ...]) -> tuple[int, int]:
        return (values[0], values[1]) if rank == 2 else (values[0], 1)

    kh, kw = two(tuple(kernel))
    sh, sw = two(op.attrs["strides"])
    dh, dw = two(op.attrs.get("dilations", (1,) * rank))
    pads = op.attrs["pads"]
    groups = op.attrs["groups"] if op.name == "conv" else x.shape[1]
    return Window(
        x.shape[0], spatial_in[0], spatial_in[1], x.shape[1], spatial_out[0], spatial_out[1], y.shape[1],
        kh, kw, sh, sw, dh, dw, pads[0], pads[1] if rank == 2 else 0, groups,
    )  # fmt: skip


def product_window(rows: int, depth: int, columns: int) -> Window:
    """A matrix product as a 1x1 window: rows are pixels, columns are output channels."""
    return Window(1, rows, 1, depth, rows, 1, columns, 1, 1, 1, 1, 1, 1, 0, 0)


def memory_shape(value: Value) -> tuple[int, ...]:
    """The extents in memory order, outermost first."""
    return tuple(value.shape[axis] for axis in value.layout.permutation(value.type.rank))


def memory_strides(value: Value) -> tuple[int, ...]:
    """Byte stride of each logical axis of the dense tensor."""
    order = value.layout.permutation(value.type.rank)
    strides, step = [0] * len(order), value.dtype.size_bytes
    for axis in reversed(order):
        strides[axis] = step
        step *= value.shape[axis]
    return tuple(strides)


@dataclass(frozen=True)
class Flat:
    """An elementwise op over collapsed dimensions, outermost first.

    `strides[k][d]` is the byte stride of operand k (the result comes last) in dimension d, 0 where it broadcasts.
    """

    dims: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def flatten(result: Value, columns: Sequence[tuple[int, ...]]) -> Flat:
    """Collapse the dimensions of an elementwise op as far as all strides allow.

    `columns` are byte strides per logical axis of the result, one tuple per operand and one for the result, 0 where an
    operand broadcasts.
    """
    order = [axis for axis in result.layout.permutation(result.type.rank) if result.shape[axis] != 1]
    dims: list[int] = []
    kept: list[list[int]] = [[] for _ in columns]
    for axis in order:
        extent = result.shape[axis]
        if dims and all(k[-1] == column[axis] * extent for k, column in zip(kept, columns)):
            dims[-1] *= extent
            for k, column in zip(kept, columns):
                k[-1] = column[axis]
        else:
            dims.append(extent)
            for k, column in zip(kept, columns):
                k.append(column[axis])
    if not dims:
        return Flat((1,), tuple((0,) for _ in columns))
    return Flat(tuple(dims), tuple(tuple(k) for k in kept))


def in_logical_order(value: Value) -> bool:
    """True when the elements lie in memory in the order of their logical indices."""
    order = [axis for axis in value.layout.permutation(value.type.rank) if value.shape[axis] != 1]
    return order == sorted(order)


def same_bytes(op: Op) -> bool:
    """True for ops that only look at the bytes of a dense tensor in another way."""
    x, y = op.inputs[0], op.results[0]
    if op.name == "reshape":
        return in_logical_order(x) and in_logical_order(y)
    if op.name not in ("transpose", "relayout"):
        return False
    perm = op.attrs["perm"] if op.name == "transpose" else range(y.type.rank)
    theirs, ours = memory_strides(x), memory_strides(y)
    return all(theirs[axis] == ours[number] for number, axis in enumerate(perm) if y.shape[number] > 1)


def read_once(value: Value, returned: Set[int]) -> bool:
    """True for a value that the segment makes and that one op reads: it may lie where that op wants it."""
    return len(value.users) == 1 and value.producer is not None and id(value) not in returned
