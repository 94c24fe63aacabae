# SPDX-License-Identifier: Apache-2.0
"""Layers: what the code generator sees of a segment's ops, and the shapes that the chip gives to their tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.ops.shape import Resize, linear_taps, nearest_index
from gadl.passes.plan.rows import RowMap
from gadl.targets.base import Segment

#: Ops whose elements depend on the same element of their operands only.
ELEMENTWISE = frozenset({"add", "sub", "mul", "min", "max", "relu", "clamp", "lut", "requantize"})
#: Those that take a row of constants.
VECTOR_OPS = frozenset({"add", "sub", "mul"})
WEIGHTED = frozenset({"conv", "conv_transpose"})
PRODUCTS = frozenset({"linear", "matmul"})
REDUCTIONS = frozenset({"reduce_mean", "reduce_sum", "reduce_max", "reduce_min"})


@dataclass(frozen=True)
class Layer:
    """One op. `index` is its place among the segment's layers, `ops` those in its ops."""

    index: int
    op: Op
    ops: tuple[int, ...]

    @property
    def result(self) -> Value:
        """What the layer makes."""
        return self.op.result

    @property
    def name(self) -> str:
        """The model's own name of the layer."""
        return self.op.loc.node or self.op.result.name


def layers_of(segment: Segment) -> list[Layer]:
    """The segment's layers in execution order."""
    return [Layer(index, op, (index,)) for index, op in enumerate(segment.ops)]


@dataclass(frozen=True)
class Shape:
    """Images, channels, rows and columns."""

    n: int
    c: int
    h: int
    w: int


def shape_of(value: Value) -> Shape | None:
    """The shape that lanes and rows see: channels on axis 1, one spatial axis as columns; None beyond four axes."""
    dims = tuple(value.shape)
    match len(dims):
        case 1:
            return Shape(1, 1, 1, dims[0])
        case 2:
            return Shape(dims[0], dims[1], 1, 1)
        case 3:
            return Shape(dims[0], dims[1], 1, dims[2])
        case 4:
            return Shape(*dims)
        case _:
            return None


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window: kernel, strides, dilations, zeros between the samples of the operand (`insert`), and before all (`up`, `left`).

    What is needed below and on the right follows from the result's extents.
    """

    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    insert_h: int
    insert_w: int
    up: int
    left: int

    @property
    def reach_h(self) -> int:
        """Rows under the kernel."""
        return (self.kh - 1) * self.dilation_h + 1

    @property
    def reach_w(self) -> int:
        """Columns under the kernel."""
        return (self.kw - 1) * self.dilation_w + 1

    def right(self, result: int, operand: int) -> int:
        """Samples behind the operand's last column that the last window reaches; negative where columns are left over."""
        return (result - 1) * self.stride_w - self.left + self.reach_w - ((operand - 1) * (self.insert_w + 1) + 1)

    def rows(self, result: int, operand: int) -> RowMap:
        """Which of `operand` rows each of `result` rows reads."""
        first = np.arange(result, dtype=np.int64) * self.stride_h - self.up
        step = self.insert_h + 1
        low = np.clip(-(-first // step), 0, operand)
        high = np.clip((first + self.reach_h - 1) // step + 1, 0, operand)
        return RowMap.of(low, np.maximum(high, low))

    def padding(self, rows: range, held: range) -> tuple[int, int]:
        """Padding above and below where result rows `rows` are made from operand rows `held`, in samples with zeros between them."""
        start = rows.start * self.stride_h - self.up
        end = (rows.stop - 1) * self.stride_h - self.up + self.reach_h
        step = self.insert_h + 1
        return held.start * step - start, end - ((held.stop - 1) * step + 1)


def _two(values: tuple[int, ...], absent: int) -> tuple[int, int]:
    """Numbers of rows and columns; one axis is that of columns."""
    return (values[0], values[1]) if len(values) == 2 else (absent, values[0])


def window_of(op: Op) -> Window:
    """The window of a convolution, transposed convolution, pooling or reduction over all pixels."""
    x = shape_of(op.inputs[0])
    if op.name in REDUCTIONS and x is not None:
        return Window(x.h, x.w, 1, 1, 1, 1, 0, 0, 0, 0)
    rank = op.inputs[0].type.rank - 2
    kernel = tuple(op.inputs[1].shape[2:]) if op.name in WEIGHTED else op.attrs["kernel"]
    (kh, kw), (sh, sw) = _two(kernel, 1), _two(op.attrs["strides"], 1)
    dh, dw = _two(op.attrs.get("dilations", (1,) * rank), 1)
    up, left = _two(op.attrs["pads"][:rank], 0)
    if op.name != "conv_transpose":
        return Window(kh, kw, sh, sw, dh, dw, 0, 0, up, left)
    return Window(kh, kw, 1, 1, dh, dw, sh - 1, sw - 1, (kh - 1) * dh - up, (kw - 1) * dw - left)


def zero_point_of(value: Value) -> int:
    """The integer that stands for zero."""
    return 0 if value.quant is None else value.quant.zero_point


def is_depthwise(op: Op) -> bool:
    """One filter for each channel."""
    if op.name not in WEIGHTED or op.attrs["groups"] == 1:
        return False
    return bool(op.attrs["groups"] == op.inputs[0].shape[1] == op.result.shape[1])


def by_channel(op: Op) -> bool:
    """True where each channel of the result follows from the same channel of the operands."""
    if op.name in WEIGHTED:
        return is_depthwise(op)
    if op.name in ELEMENTWISE or op.name in REDUCTIONS or op.name == "resize":
        return True
    return op.name in ("max_pool", "avg_pool")


def row_reads(layer: Layer) -> list[tuple[Value, RowMap]] | None:
    """The operands that a layer reads by rows, or None when it does not run that way."""
    return row_reads_op(layer.op)


def row_reads_op(op: Op) -> list[tuple[Value, RowMap]] | None:
    """The same for an op."""
    y = shape_of(op.result)
    shapes = [shape_of(v) for v in op.inputs if not v.is_constant]
    if y is None or any(s is None for s in shapes):
        return None
    x = shapes[0]
    if x is None:
        return None
    if op.name in ELEMENTWISE:
        return _elementwise(op, y)
    if op.name in WEIGHTED or op.name in ("max_pool", "avg_pool"):
        return [(op.inputs[0], window_of(op).rows(y.h, x.h))]
    if op.name in REDUCTIONS:
        rank = op.inputs[0].type.rank
        return [(op.inputs[0], RowMap.whole(1, x.h))] if {a % rank for a in op.attrs["axes"]} == set(range(2, rank)) else None
    if op.name == "resize":
        return [(op.inputs[0], resize_rows(op, x.h, y.h))]
    if op.name == "concat" and op.attrs["axis"] % op.result.type.rank == 1 and y.h * y.w > 1:
        return [(v, RowMap.same(y.h)) for v in op.inputs] if not any(v.is_constant for v in op.inputs) else None
    return None


def _elementwise(op: Op, y: Shape) -> list[tuple[Value, RowMap]] | None:
    found: list[tuple[Value, RowMap]] = []
    for value in op.inputs:
        if value.is_constant:
            if value.type.element_count != 1 and not (op.name in VECTOR_OPS and is_row(value, op)):
                return None
            continue
        x = shape_of(value)
        if x == y and value.shape == op.result.shape:
            found.append((value, RowMap.same(y.h)))
        elif x is not None and (x.n, x.c, x.h, x.w) == (y.n, y.c, 1, 1):
            found.append((value, RowMap.whole(y.h, 1)))
        else:
            return None
    return found or None


def is_row(value: Value, op: Op) -> bool:
    """True for one number for each column of an op's result, alike for all rows and channels."""
    columns = op.result.shape[-1]
    return op.result.type.rank in (3, 4) and value.type.rank > 0 and value.shape[-1] == value.type.element_count == columns


def resize_rows(op: Op, operand: int, result: int) -> RowMap:
    """Nearest: the row that is copied; by interpolation, the rows on both sides."""
    for axis, position in Resize.axes(op):
        if axis == 2 and op.inputs[0].type.rank == 4:
            if op.attrs["mode"] == "nearest":
                rows = nearest_index(position, operand, op.attrs["nearest"])
                return RowMap.of(rows, rows + 1)
            low, high, _ = linear_taps(position, operand)
            return RowMap.of(low, high + 1)
    return RowMap.same(result)


def macs_of(op: Op) -> int:
    """Multiply-accumulates of an op."""
    if op.name in PRODUCTS:
        return math.prod(op.result.shape) * int(op.inputs[0].shape[-1])
    if op.name == "conv":
        return math.prod(op.result.shape) * math.prod(op.inputs[1].shape[1:])
    if op.name == "conv_transpose":
        return math.prod(op.inputs[0].shape) * math.prod(op.inputs[1].shape[1:])
    return 0
