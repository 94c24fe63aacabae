# SPDX-License-Identifier: Apache-2.0
"""What the CV18xx cannot do. Each docstring is the message that users read: English, then Chinese."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.ops.pooling import AvgPool
from gadl.compiler.ir.ops.shape import Resize, nearest_index
from gadl.compiler.ir.types import DType, Requant, Rounding
from gadl.targets.base import ConstraintTable

from .chip import Chip
from .expand.resize import MOST_WEIGHT, factors_of, most_weight, power_of_two
from .layers import (
    ELEMENTWISE,
    PRODUCTS,
    REDUCTIONS,
    WEIGHTED,
    is_depthwise,
    is_row,
    row_reads_op,
    shape_of,
    window_of,
    zero_point_of,
)
from .strides import MOVING

CONSTRAINTS = ConstraintTable()
constraint = CONSTRAINTS

#: Ops with a lowering.
DEVICE_OPS = frozenset({
    "conv", "conv_transpose", "linear", "matmul", "add", "sub", "mul", "min", "max", "relu", "clamp", "lut", "requantize", "max_pool", "avg_pool",
    "reduce_sum", "reduce_mean", "reduce_max", "resize", "concat", "slice", "pad", "reshape", "transpose",
})  # fmt: skip
#: Ops that pass integers on as they are, or by a table.
WITH_ZERO_POINTS = frozenset({"lut", "max_pool", "reduce_max", "min", "max", "resize", "concat", "slice", "pad", "reshape", "transpose"})
_WINDOWED = (*WEIGHTED, "max_pool", "avg_pool")
MOST_AXES, MOST_EXTENT, MOST_STRIDE, MOST_DILATION, MOST_INSERTED, MOST_PADDING = 16, 4063, 31, 15, 14, 15
#: Pixels of a filter of ones.
MOST_ONES = 4096


@constraint()
def element_types(op: Op, chip: Chip) -> bool:
    """the device computes on int8 tensors; this op works on another type
    设备只计算 int8 张量，该算子使用其他类型"""
    return all(v.dtype is DType.I8 for v in (*op.results, *(v for v in op.inputs if not v.is_constant)))


@constraint()
def four_axes(op: Op, chip: Chip) -> bool:
    """a tensor with more than four axes that is computed, not only moved or multiplied as matrices; or one without elements
    参与计算（而非仅搬运或矩阵相乘）的张量超过四个轴，或张量没有元素"""
    most = MOST_AXES if op.name in (*MOVING, "matmul") else 4
    tensors = [v for v in (*op.results, *op.inputs) if not v.is_constant]
    return all(0 < v.type.rank <= most and v.type.element_count > 0 for v in tensors)


@constraint()
def zero_points(op: Op, chip: Chip) -> bool:
    """a tensor with a zero point that this op does not take: it reads or makes symmetric numbers
    张量带零点，而该算子只读写对称数值"""
    if op.name in WITH_ZERO_POINTS:
        return True
    reads = op.name in ("conv", "conv_transpose", "linear")
    return not any(zero_point_of(v) for v in (*op.results, *(op.inputs[1:] if reads else op.inputs)))


@constraint("conv", "conv_transpose", "linear")
def constant_weights(op: Op, chip: Chip) -> bool:
    """weights that are computed at run time, or a residual operand
    权重在运行时计算得到，或带残差操作数"""
    return all(v is None or v.is_constant for v in op.operands[1:3]) and op.operand(3) is None


@constraint(*PRODUCTS)
def one_factor(op: Op, chip: Chip) -> bool:
    """a product of matrices with a factor for each column
    矩阵乘法的每列使用不同的缩放系数"""
    return not op.attrs["requant"].per_channel


@constraint(*_WINDOWED, *REDUCTIONS, *ELEMENTWISE)
def extents(op: Op, chip: Chip) -> bool:
    """an extent beyond 4063
    尺寸大于 4063"""
    shapes = [shape_of(v) for v in (op.result, *op.inputs) if not v.is_constant]
    return all(s is not None and max(s.n, s.c, s.h, s.w) <= MOST_EXTENT for s in shapes)


@constraint(*_WINDOWED)
def window_limits(op: Op, chip: Chip) -> bool:
    """stride beyond 31, dilation beyond 15, more than 14 zeros between samples, or padding that the instruction cannot hold
    步长大于 31、空洞大于 15、样本间插零超过 14，或填充超出指令范围"""
    w = window_of(op)
    fits = max(w.stride_h, w.stride_w) <= MOST_STRIDE and max(w.insert_h, w.insert_w) <= MOST_INSERTED and min(w.up, w.left) >= 0
    fits &= is_depthwise(op) or max(w.dilation_h, w.dilation_w) <= MOST_DILATION
    pads, x, y = max(op.attrs["pads"], default=0), shape_of(op.inputs[0]), shape_of(op.result)
    fits &= x is not None and y is not None and w.right(y.w, x.w) > -w.stride_w
    return fits and (pads <= MOST_PADDING or op.name in ("conv", "avg_pool") and pads <= 255)


@constraint(*_WINDOWED)
def rows_in_windows(op: Op, chip: Chip) -> bool:
    """windows that see nothing but rows of padding, or of zeros between samples
    窗口仅覆盖填充行或样本间插入的零"""
    w, x, y = window_of(op), shape_of(op.inputs[0]), shape_of(op.result)
    if x is None or y is None:
        return False
    first, last = w.reach_h - 1 - w.up, (y.h - 1) * w.stride_h - w.up
    return first >= 0 and last <= (x.h - 1) * (w.insert_h + 1) and w.reach_h > w.insert_h


@constraint("conv_transpose")
def one_sample(op: Op, chip: Chip) -> bool:
    """transposed convolution of a single row or column
    单行或单列的转置卷积"""
    x, w = shape_of(op.inputs[0]), window_of(op)
    return x is not None and (x.h > 1 or w.insert_h == 0) and (x.w > 1 or w.insert_w == 0)


@constraint("max_pool")
def pooled_dilation(op: Op, chip: Chip) -> bool:
    """maximum pooling with dilation
    带空洞的最大池化"""
    return set(op.attrs["dilations"]) == {1}


@constraint("avg_pool")
def counted_padding(op: Op, chip: Chip) -> bool:
    """average pooling that leaves padding out of the count
    平均池化不计入填充"""
    return len({int(c) for c in AvgPool.counts(op).reshape(-1)}) == 1


@constraint(*REDUCTIONS)
def reduced_axes(op: Op, chip: Chip) -> bool:
    """reduction over axes other than all pixels, or a sum of more pixels than a filter of ones may have
    规约轴不是全部像素轴，或像素过多"""
    rank = op.inputs[0].type.rank
    shape = shape_of(op.inputs[0])
    pixels = rank >= 3 and {a % rank for a in op.attrs["axes"]} == set(range(2, rank))
    filtered = op.name != "reduce_max" and op.attrs["requant"].rounding is not Rounding.UP
    return pixels and shape is not None and (not filtered or shape.h * shape.w <= MOST_ONES)


@constraint("resize")
def resize_forms(op: Op, chip: Chip) -> bool:
    """resizing other than by whole factors: nearest, or linear by powers of two between half-pixel centres (by 8 and more: one channel)
    只支持整数倍缩放：最近邻，或以半像素中心线性插值 2 的幂倍（8 倍及以上仅限单通道）"""
    factors = factors_of(op)
    if factors is None:
        return False
    if op.attrs["mode"] == "nearest":
        return all(
            (nearest_index(position, op.inputs[0].shape[axis], op.attrs["nearest"]) == np.arange(len(position)) * op.inputs[0].shape[axis] // len(position)).all()
            for axis, position in Resize.axes(op)
        )
    exact = op.attrs["requant"] is not None and is_power(op.attrs["requant"])
    half = op.attrs["coordinate"] in ("half_pixel", "pytorch_half_pixel")
    small = most_weight(*factors) <= MOST_WEIGHT
    return op.attrs["mode"] == "linear" and exact and half and all(map(power_of_two, factors)) and (small or op.result.shape[:2] == (1, 1))


@constraint("slice")
def forward_steps(op: Op, chip: Chip) -> bool:
    """slices with negative steps
    负步长切片"""
    return min(op.attrs["steps"]) > 0


@constraint("pad")
def constant_padding(op: Op, chip: Chip) -> bool:
    """padding by reflection or by edge values
    反射或边缘填充"""
    return bool(op.attrs["mode"] == "constant")


@constraint("concat")
def computed_operands(op: Op, chip: Chip) -> bool:
    """concatenation with a constant
    与常量拼接"""
    return not any(v.is_constant for v in op.inputs)


@constraint(*ELEMENTWISE)
def broadcast_forms(op: Op, chip: Chip) -> bool:
    """operands of other shapes than the result's, one number, one pixel for each channel, or constants for each column
    操作数形状既不同于结果，也不是单个数值、每通道一个像素或每列一个常量"""
    return row_reads_op(op) is not None


@constraint("add", "sub")
def computed_terms(op: Op, chip: Chip) -> bool:
    """a sum with a single constant
    与单个常量求和"""
    return not any(v.is_constant and not is_row(v, op) for v in op.inputs)


def is_power(requant: Requant) -> bool:
    """A factor of 2^-22: the sum of interpolation weights."""
    return len(requant.multiplier) == 1 and int(requant.multiplier[0]) << 22 == 1 << int(requant.shift[0])
