# SPDX-License-Identifier: Apache-2.0
"""Quantised models: QDQ pairs keep their own scales; QLinear and Integer ops become real ops between such pairs.

Activations of type u8 become i8: `u - 128` with the zero point moved by the same 128 stands for the same real value, and
`clamp(zp + v, 0, 255) - 128 = clamp(zp - 128 + v, -128, 127)`, so nothing changes but the name of each number. The importer
remembers these values (`Importer.unsigned`); whoever reads the bytes themselves, and the model's outputs, get 128 added
back (`as_stored`).

Ops that move integers without computing (a reshape or max_pool between two QLinear ops) are put between a dequantise and a
quantise of the same scale: `quantize(dequantize(q)) = q`, because `fl(fl(n s) / s)` is less than 1/2 away from n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.ops.quant import quantize_array
from gadl.compiler.ir.types import Array, DType, QuantParams, TensorType

from .node import Node, OpFunction, Unsupported, importer, ir_dtype
from .window import window_of

if TYPE_CHECKING:
    from .importer import Importer

#: ONNX ops whose results are elements of input 0, and those that read scales themselves.
_MOVES = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
_READS_SCALES = ("DequantizeLinear", "QLinear", "QGemm")
_SHIFT = 128


@dataclass(frozen=True)
class Scale:
    """A scale, zero points as the model stores them, the axis they run along and the stored type."""

    scale: Array
    zero: Array
    axis: int | None
    stored: DType

    @property
    def shift(self) -> int:
        """What is taken from stored numbers to make them signed."""
        return _SHIFT if self.stored is DType.U8 else 0

    @property
    def dtype(self) -> DType:
        """The type in the IR."""
        return DType.I8 if self.stored is DType.U8 else self.stored

    def params(self, shape: tuple[int, ...]) -> QuantParams:
        """As the IR keeps it; `Unsupported` where it cannot."""
        points = {int(z) - self.shift for z in self.zero}
        if len(points) > 1:
            raise Unsupported("zero points that differ per channel")
        scales = tuple(float(s) for s in self.scale)
        if not all(0 < s < np.inf for s in scales):
            raise Unsupported("scales must be positive")
        if self.dtype not in (DType.I8, DType.I16, DType.I32):
            raise Unsupported(f"quantised type {self.stored.value}")
        if len(scales) == 1:
            return QuantParams(scales, points.pop())
        if self.axis is None or self.axis >= len(shape) or shape[self.axis] != len(scales):
            raise Unsupported(f"{len(scales)} scales do not fit shape {shape}")
        return QuantParams(scales, points.pop(), self.axis)

    def real(self, node: Node, value: Value) -> Value:
        """`(q - zero point) * scale` written out in f32, for integers that came without a scale."""
        shape = [1] * value.type.rank
        if self.axis is not None and self.scale.size > 1:
            shape[self.axis] = -1
        x = node.emit("cast", value, dtype=DType.F32)
        if self.zero.any():
            zero = self.zero if self.zero.size > 1 else self.zero[:1]
            x = node.emit("sub", x, node.const(zero.reshape(shape if zero.size > 1 else ()), DType.F32))
        scale = self.scale if self.scale.size > 1 else self.scale[:1]
        return node.emit("mul", x, node.const(scale.reshape(shape if scale.size > 1 else ()), DType.F32))


def _scale(node: Node, scale_at: int, zero_at: int, axis: int | None = None, stored: DType | None = None) -> Scale:
    """Scale and zero point from constant inputs; `stored` is the type where the zero point is left out."""
    scale, zero = node.constant(scale_at), node.constant(zero_at)
    if scale is None or not scale.size:
        raise Unsupported("the scale is missing")
    kind = (stored or DType.U8) if zero is None else DType.of(zero.dtype)
    points = np.zeros(1, np.int64) if zero is None else zero.reshape(-1).astype(np.int64)
    return Scale(scale.reshape(-1).astype(np.float32), points, axis, kind)


def _quantize(node: Node, x: Value, scale: Scale) -> Value:
    params = scale.params(x.shape)
    if x.data is not None:
        held = node.importer.graph.constant(quantize_array(x.data, params, scale.dtype), f"{x.name}.q", params)
    else:
        held = node.emit("quantize", x, type=TensorType(scale.dtype, x.shape, params))
    if scale.shift:
        node.importer.unsigned.add(id(held))
    return held


def _dequantize(node: Node, value: Value, scale: Scale) -> Value:
    """Real values of integers that `scale` describes."""
    if value.data is not None and value.quant is None:
        try:
            params = scale.params(value.shape)
        except Unsupported:
            return scale.real(node, value)
        data = value.data if not scale.shift else (value.data.astype(np.int16) - _SHIFT).astype(np.int8)
        return node.emit("dequantize", node.importer.graph.constant(data, value.name, params))
    if value.quant is not None and value.quant == scale.params(value.shape):
        return node.emit("dequantize", value)
    x = scale.real(node, as_stored(node.importer, value))
    if scale.dtype is DType.I32 or len(set(scale.zero.tolist())) > 1:
        return x
    # x lies on the grid of the scale: the pair changes nothing and tells the passes about it.
    return node.emit("dequantize", _quantize(node, x, scale))


def as_stored(context: Importer, value: Value) -> Value:
    """The numbers as the model stores them: u8 where they became signed."""
    if id(value) not in context.unsigned:
        return value
    build = context.builder
    if value.data is not None:
        return context.graph.constant((value.data.astype(np.int16) + _SHIFT).astype(np.uint8), value.name)
    shift = context.graph.constant(np.asarray(_SHIFT, np.int16), "shift")
    return build("cast", build("add", build("cast", value, dtype=DType.I16), shift), dtype=DType.U8, result=f"{value.name}.u8")


def around_integers(node: Node, function: OpFunction) -> Value | list[Value]:
    """Call an op function on real operands: operands that carry a scale are dequantised, the results quantised again.

    Other ops than those that move elements get the stored numbers.
    """
    carried = [v for v in node.inputs if v is not None and v.quant is not None]
    if not carried or node.op_type.startswith(_READS_SCALES):
        return function(node)
    first = carried[0]
    unsigned = id(first) in node.importer.unsigned
    alike = all(v.type.quant == first.quant and (id(v) in node.importer.unsigned) == unsigned for v in carried)
    complete = len(carried) == (len(node.inputs) if node.op_type == "Concat" else 1) and first is node.inputs[0]
    quant = first.quant
    if node.op_type not in _MOVES or not alike or not complete or quant is None or quant.axis is not None:
        node.inputs = [None if v is None else as_stored(node.importer, v) for v in node.inputs]
        return function(node)
    node.inputs = [v if v is None or v.quant is None else node.emit("dequantize", v) for v in node.inputs]
    results = function(node)
    made = []
    for value in results if isinstance(results, list) else [results]:
        made.append(node.emit("quantize", value, type=TensorType(first.dtype, value.shape, quant)))
        if unsigned:
            node.importer.unsigned.add(id(made[-1]))
    return made


def _axis(node: Node, x: Value) -> int:
    axis = int(node.attr("axis", 1))
    return axis + x.type.rank if axis < 0 else axis


@importer("QuantizeLinear", "com.microsoft::QuantizeLinear")
def quantize_linear(node: Node) -> Value:
    """QuantizeLinear 10 to 25, per tensor or per axis."""
    import onnx_ir

    x = node.operand(0)
    if node.attr("block_size", 0):
        raise Unsupported("blocked quantisation of activations")
    wanted = node.attr("output_dtype", 0)
    stored = ir_dtype(onnx_ir.DataType(wanted)) if wanted else None
    return _quantize(node, x, _scale(node, 1, 2, _axis(node, x), stored))


@importer("DequantizeLinear", "com.microsoft::DequantizeLinear")
def dequantize_linear(node: Node) -> Value:
    """DequantizeLinear 10 to 25, per tensor or per axis; constants also with blocks of one scale."""
    x, block = node.operand(0), int(node.attr("block_size", 0))
    axis = _axis(node, x)
    if block:
        return _blocked(node, x, axis, block)
    scale = node.constant(1)
    stored = DType.U8 if id(x) in node.importer.unsigned else x.dtype
    y = _dequantize(node, x, _scale(node, 1, 2, axis, stored))
    dtype = DType.F32 if scale is None else DType.of(scale.dtype)
    return y if dtype is DType.F32 else node.emit("cast", y, dtype=dtype)


def _blocked(node: Node, x: Value, axis: int, block: int) -> Value:
    """Constants with one scale per `block` elements along `axis`, as real constants."""
    data, scale, zero = node.constant(0), node.constant(1), node.constant(2)
    if data is None or scale is None:
        raise Unsupported("blocked quantisation of activations")
    extent = data.shape[axis]
    if block > extent:
        raise Unsupported(f"blocks of {block} along {extent}")
    full = np.repeat(scale, block, axis).take(range(extent), axis).astype(np.float32)
    points = 0 if zero is None else np.repeat(zero, block, axis).take(range(extent), axis).astype(np.int64)
    return node.const((data.astype(np.int64) - points).astype(np.float32) * full, DType.of(scale.dtype))


@importer("QLinearConv")
def qlinear_conv(node: Node) -> Value:
    """QLinearConv 10 as dequantise, conv, quantise; the bias has the scale of the product."""
    left, right = _scale(node, 1, 2), _scale(node, 4, 5, 0)
    x, w = _dequantize(node, node.operand(0), left), _dequantize(node, node.operand(3), right)
    window = window_of(node, w.shape[2:], x.shape[2:])
    y = node.emit("conv", x, w, _bias(node, 8, left, right), groups=int(node.attr("group", 1)), **window)
    return _quantize(node, y, _scale(node, 6, 7))


def _bias(node: Node, index: int, left: Scale, right: Scale) -> Value | None:
    """An i32 bias whose scale is the product of two scales."""
    bias = node.constant(index)
    if bias is None:
        return None
    scale = Scale(left.scale * right.scale, np.zeros(1, np.int64), 0, DType.I32)
    return _dequantize(node, node.importer.graph.constant(bias.astype(np.int32), "bias"), scale)


@importer("QLinearMatMul")
def qlinear_matmul(node: Node) -> Value:
    """QLinearMatMul 10, 21 as dequantise, product, quantise."""
    b = node.operand(3)
    a = _dequantize(node, node.operand(0), _scale(node, 1, 2, max(0, node.operand(0).type.rank - 2)))
    y = node.emit("matmul", a, _dequantize(node, b, _scale(node, 4, 5, b.type.rank - 1)))
    return _quantize(node, y, _scale(node, 6, 7))


@importer("com.microsoft::QGemm")
def qgemm(node: Node) -> Value:
    """ONNX Runtime's QGemm as dequantise, product, quantise."""
    if node.attr("alpha", 1.0) != 1.0 or node.attr("transA", 0):
        raise Unsupported("alpha and transA")
    transposed = bool(node.attr("transB", 0))
    left, right = _scale(node, 1, 2), _scale(node, 4, 5, 0 if transposed else 1)
    a, b = _dequantize(node, node.operand(0), left), _dequantize(node, node.operand(3), right)
    bias = _bias(node, 6, left, right)
    y = node.emit("matmul", a, node.emit("transpose", b, perm=(1, 0)) if transposed else b)
    y = y if bias is None else node.emit("add", y, bias)
    return y if node.optional(7) is None else _quantize(node, y, _scale(node, 7, 8))


@importer("com.microsoft::QLinearAdd", "com.microsoft::QLinearMul")
def qlinear_binary(node: Node) -> Value:
    """ONNX Runtime's QLinearAdd and QLinearMul as dequantise, op, quantise."""
    a = _dequantize(node, node.operand(0), _scale(node, 1, 2))
    b = _dequantize(node, node.operand(3), _scale(node, 4, 5))
    y = node.emit("add" if node.op_type == "QLinearAdd" else "mul", a, b)
    return _quantize(node, y, _scale(node, 6, 7))


@importer("com.microsoft::QLinearConcat")
def qlinear_concat(node: Node) -> Value:
    """ONNX Runtime's QLinearConcat: the result's scale first, then three inputs per operand."""
    parts = [_dequantize(node, node.operand(i), _scale(node, i + 1, i + 2)) for i in range(2, len(node.inputs), 3)]
    y = parts[0] if len(parts) == 1 else node.emit("concat", *parts, axis=int(node.attr("axis", 1)) % parts[0].type.rank)
    return _quantize(node, y, _scale(node, 0, 1))


@importer("com.microsoft::QLinearSigmoid", "com.microsoft::QLinearLeakyRelu", "com.microsoft::QLinearGlobalAveragePool",
          "com.microsoft::QLinearAveragePool", "com.microsoft::QLinearSoftmax")
def qlinear_unary(node: Node) -> Value:
    """ONNX Runtime's QLinear forms of ops with one operand."""
    x = _dequantize(node, node.operand(0), _scale(node, 1, 2))
    if node.attr("channels_last", 0):
        raise Unsupported("channels_last=1")
    attrs: dict[str, Any] = {}
    match node.op_type:
        case "QLinearSigmoid":
            name = "sigmoid"
        case "QLinearLeakyRelu":
            name, attrs = "leaky_relu", {"alpha": float(node.attr("alpha", 0.01))}
        case "QLinearGlobalAveragePool":
            name, attrs = "reduce_mean", {"axes": tuple(range(2, x.type.rank)), "keepdims": True}
        case "QLinearSoftmax":
            axis = int(node.attr("axis", -1)) % x.type.rank
            if int(node.attr("opset", 13)) < 13 and axis != x.type.rank - 1:
                raise Unsupported("softmax over several axes")
            name, attrs = "softmax", {"axis": axis}
        case _:
            kernel = node.ints("kernel_shape") or ()
            window = window_of(node, kernel, x.shape[2:])
            window.pop("dilations")
            include = bool(node.attr("count_include_pad", 0))
            name, attrs = "avg_pool", {"kernel": kernel, "ceil_mode": bool(node.attr("ceil_mode", 0)),
                                       "count_include_pad": include, **window}  # fmt: skip
    return _quantize(node, node.emit(name, x, **attrs), _scale(node, 3, 4))


@importer("MatMulInteger", "ConvInteger")
def integer_product(node: Node) -> Value:
    """MatMulInteger 10 and ConvInteger 10 on real numbers: exact while sums stay below 2^24, else rounded to f32."""
    sides = []
    for index in (0, 1):
        value, zero = as_stored(node.importer, node.operand(index)), node.optional(index + 2)
        real = node.emit("cast", value, dtype=DType.F32)
        if zero is not None:
            zero = node.emit("cast", as_stored(node.importer, zero), dtype=DType.F32)
            if zero.type.rank == 1 and zero.shape[0] > 1:
                # One per row of a, per output channel of the weights; one per column of b broadcasts by itself.
                trailing = 1 if index == 0 else value.type.rank - 1 if node.op_type == "ConvInteger" else 0
                zero = node.emit("reshape", zero, shape=(*zero.shape, *(1,) * trailing))
            real = node.emit("sub", real, zero)
        sides.append(real)
    if node.op_type == "MatMulInteger":
        y = node.emit("matmul", *sides)
    else:
        window = window_of(node, sides[1].shape[2:], sides[0].shape[2:])
        y = node.emit("conv", *sides, groups=int(node.attr("group", 1)), **window)
    return node.emit("cast", y, dtype=DType.I32)


@importer("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: Node) -> list[Value]:
    """DynamicQuantizeLinear 11 written out in real numbers: u8 data, scale and zero point of the data's own range."""
    x = node.operand(0)
    axes, zero, top = tuple(range(x.type.rank)), node.const(0, x.dtype), node.const(255, x.dtype)
    low = node.emit("min", node.emit("reduce_min", x, axes=axes, keepdims=False), zero)
    high = node.emit("max", node.emit("reduce_max", x, axes=axes, keepdims=False), zero)
    scale = node.emit("div", node.emit("sub", high, low), top)
    point = node.emit("round", node.emit("clamp", node.emit("div", node.emit("neg", low), scale), lo=0.0, hi=255.0))
    y = node.emit("add", node.emit("round", node.emit("div", x, scale)), point)
    y = node.emit("cast", node.emit("clamp", y, lo=0.0, hi=255.0), dtype=DType.U8)
    return [y, scale, node.emit("cast", point, dtype=DType.U8)]
