# SPDX-License-Identifier: Apache-2.0
"""What the reference NPU cannot do. Each docstring is the message that users read: English, then Chinese."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import DType
from gadl.targets.base import ConstraintTable

from .layers import window_of
from .machine import Machine

CONSTRAINTS = ConstraintTable()
constraint = CONSTRAINTS

#: Ops with a lowering.
DEVICE_OPS = frozenset({
    "conv", "conv_transpose", "linear", "matmul", "add", "sub", "mul", "min", "max", "lut", "requantize", "max_pool", "avg_pool",
    "resize", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "concat", "slice", "pad", "reshape", "transpose", "relayout",
    "softmax", "layer_norm", "rms_norm", "attention",
})  # fmt: skip
_HALF_OPS = frozenset({"conv", "linear", "matmul", "add", "sub", "mul", "min", "max", "max_pool", "concat", "slice", "reshape", "transpose", "relayout"})


@constraint()
def element_types(op: Op, machine: Machine) -> bool:
    """the device computes on i8, i16 and f16 tensors; this op works on another type
    设备只计算 i8、i16 与 f16 张量，该算子使用其他类型"""
    result = op.result.dtype
    if result is DType.F16:
        return op.name in _HALF_OPS and all(v.dtype in (DType.F16, DType.F32) for v in op.inputs)
    return result in (DType.I8, DType.I16) and all(v.dtype in (DType.I8, DType.I16, DType.I32, DType.I64) for v in op.inputs)


@constraint("add", "sub", "mul", "min", "max", "lut", "requantize", "relayout", "slice", "concat", "pad", "reshape", "transpose")
def at_most_four_dimensions(op: Op, machine: Machine) -> bool:
    """more than four dimensions that do not merge
    超过四个不可合并的维度"""
    return sum(extent != 1 for extent in op.result.shape) <= 4 or op.name == "reshape"


@constraint()
def has_elements(op: Op, machine: Machine) -> bool:
    """a tensor without elements or without dimensions
    张量没有元素或没有维度"""
    return all(v.type.rank >= 1 and v.type.element_count > 0 for v in (*op.inputs, *op.results) if not v.is_constant)


@constraint("conv")
def grouped_convolution(op: Op, machine: Machine) -> bool:
    """grouped convolution runs only with one group or with one filter per channel (depthwise)
    分组卷积仅支持单组或逐通道（depthwise）"""
    window = window_of(op)
    return window.groups == 1 or window.depthwise


@constraint("conv", "conv_transpose", "linear")
def constant_weights(op: Op, machine: Machine) -> bool:
    """weights that are computed at run time
    权重在运行时计算得到"""
    return all(v is None or v.is_constant for v in op.operands[1:3])


@constraint("conv_transpose")
def transposed_geometry(op: Op, machine: Machine) -> bool:
    """transposed convolution with groups or dilation
    带分组或空洞的转置卷积"""
    return op.attrs["groups"] == 1 and set(op.attrs["dilations"]) == {1}


@constraint("conv", "max_pool", "avg_pool")
def window_limits(op: Op, machine: Machine) -> bool:
    """kernel, stride or dilation beyond 255, padding beyond 2047 or an extent beyond 65535
    卷积核、步长或空洞大于 255，填充大于 2047，或尺寸大于 65535"""
    w = window_of(op)
    small = max(w.kh, w.kw, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w) <= 255
    return small and max(op.attrs["pads"]) <= 2047 and max(w.ih, w.iw, w.ic, w.oh, w.ow, w.oc) <= 65535


@constraint("avg_pool")
def counted_padding(op: Op, machine: Machine) -> bool:
    """average pooling that counts padding at some borders only
    平均池化仅在部分边界计入填充"""
    requant = op.attrs.get("requant")
    return not (op.attrs["count_include_pad"] and requant is not None and requant.per_channel)


@constraint("resize")
def resize_forms(op: Op, machine: Machine) -> bool:
    """resizing of other than rows and columns, or cubic interpolation
    缩放行列以外的维度，或三次插值"""
    changed = [i for i, (a, b) in enumerate(zip(op.inputs[0].shape, op.attrs["sizes"])) if a != b]
    return op.inputs[0].type.rank == 4 and op.attrs["mode"] != "cubic" and all(i >= 2 for i in changed)


@constraint("reduce_sum", "reduce_mean", "reduce_max", "reduce_min")
def reduced_axes(op: Op, machine: Machine) -> bool:
    """reduction over axes other than all pixels or the last axis
    规约轴不是全部像素轴或最后一轴"""
    rank = op.inputs[0].type.rank
    axes = {a % rank for a in op.attrs["axes"]}
    pixels = set(range(2, rank))
    return bool(axes) and (axes == pixels if rank >= 3 else axes == {rank - 1}) and op.inputs[0].shape[0] == 1


@constraint("pad")
def constant_padding(op: Op, machine: Machine) -> bool:
    """padding by reflection or by edge values
    反射或边缘填充"""
    return bool(op.attrs["mode"] == "constant")


@constraint("slice")
def forward_steps(op: Op, machine: Machine) -> bool:
    """slices with negative steps
    负步长切片"""
    return min(op.attrs["steps"]) > 0


@constraint("softmax", "layer_norm", "rms_norm")
def last_axis(op: Op, machine: Machine) -> bool:
    """softmax or normalisation over other than the last axis, or over one that does not fit on chip
    softmax 或归一化不沿最后一轴，或该轴放不进片上存储"""
    rank, size = op.result.type.rank, op.result.shape[-1]
    return op.attrs["axis"] % rank == rank - 1 and 24 * size <= machine.sram_bytes


@constraint("attention")
def attention_tile(op: Op, machine: Machine) -> bool:
    """attention whose rows of scores do not fit on chip, over constants, or with keys or values that some heads share
    注意力的得分行放不进片上存储、操作数为常量，或部分头共享键或值"""
    (_, depth), (keys, width), lead = op.inputs[0].shape[-2:], op.inputs[2].shape[-2:], op.result.shape[:-2]
    shared = all(v.shape[:-2] == lead or (v is not op.inputs[0] and math.prod(v.shape[:-2]) == 1) for v in op.inputs[:3])
    return shared and 8 * keys + 256 * (depth + width) <= machine.sram_bytes // 2 and not any(v.is_constant for v in op.inputs[:3])


@constraint("matmul")
def matmul_depth(op: Op, machine: Machine) -> bool:
    """a product of two activations deeper than 16384
    两个激活张量的乘积深度大于 16384"""
    return op.inputs[0].shape[-1] <= 16384 and not any(v.is_constant for v in op.inputs)
