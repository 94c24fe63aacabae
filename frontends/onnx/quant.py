# SPDX-License-Identifier: Apache-2.0
"""Quantised models: QDQ pairs, QLinear and Integer ops keep their own scales.

Activations of type u8 become i8: `u - 128` with the zero point moved by the same 128 stands for the same real value, and
`clamp(zp + v, 0, 255) - 128 = clamp(zp - 128 + v, -128, 127)`, so nothing changes but the name of each number.
"""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array, DType, QuantParams, TensorType

from .importer import Node, Unsupported, importer


def _params(node: Node, scale_at: int, zero_at: int, axis: int | None) -> tuple[QuantParams, DType]:
    """Scale and zero point from constant inputs, u8 moved to i8."""
    scale, zero = node.constant(scale_at), node.constant(zero_at)
    if scale is None:
        raise Unsupported("the scale is missing")
    dtype = DType.U8 if zero is None else DType.of(zero.dtype)
    points = np.zeros(scale.size, np.int64) if zero is None else zero.reshape(-1).astype(np.int64)
    if dtype is DType.U8:
        dtype, points = DType.I8, points - 128
    if dtype not in (DType.I8, DType.I16, DType.I32):
        raise Unsupported(f"quantised type {dtype.value}")
    if len(set(points.tolist())) > 1:
        raise Unsupported("zero points that differ per channel")
    scales = tuple(float(s) for s in scale.reshape(-1))
    if min(scales) <= 0:
        raise Unsupported("scales must be positive")
    per_axis = axis if len(scales) > 1 else None
    return QuantParams(scales, int(points[0]), per_axis), dtype


def _signed(data: Array) -> Array:
    return (data.astype(np.int16) - 128).astype(np.int8) if data.dtype == np.uint8 else data


def _dequantize(node: Node, value: Value, params: QuantParams) -> Value:
    """A real value of an integer one."""
    if value.data is not None:
        held = node.importer.graph.constant(_signed(value.data), value.name, params)
        return node.emit("dequantize", held)
    if value.quant == params:
        return node.emit("dequantize", value)
    raise Unsupported("the scale differs from the one that the tensor was quantised with")


@importer("QuantizeLinear")
def quantize_linear(node: Node) -> Value:
    """QuantizeLinear 10 to 23, per tensor or per axis."""
    x = node.operand(0)
    if node.attr("block_size", 0):
        raise Unsupported("blocked quantisation")
    axis = int(node.attr("axis", 1)) % max(1, x.type.rank)
    params, dtype = _params(node, 1, 2, axis)
    return node.emit("quantize", x, type=TensorType(dtype, x.shape, params))


@importer("DequantizeLinear")
def dequantize_linear(node: Node) -> Value:
    """DequantizeLinear 10 to 23, per tensor or per axis."""
    x = node.operand(0)
    if node.attr("block_size", 0):
        raise Unsupported("blocked quantisation")
    axis = int(node.attr("axis", 1)) % max(1, x.type.rank)
    params, _ = _params(node, 1, 2, axis)
    return _dequantize(node, x, params)


@importer("QLinearConv")
def qlinear_conv(node: Node) -> Value:
    """QLinearConv 10 as dequantise, conv, quantise."""
    from .nn import _window

    x = _dequantize(node, node.operand(0), _params(node, 1, 2, None)[0])
    weights = node.operand(3)
    w = _dequantize(node, weights, _params(node, 4, 5, 0)[0])
    params, dtype = _params(node, 6, 7, None)
    bias = node.constant(8)
    b = None
    if bias is not None:
        scales = np.atleast_1d(_scales(x) * _scales(w)).astype(np.float64)
        full = tuple(np.broadcast_to(scales, bias.shape).tolist())
        quant = QuantParams(full, 0, 0) if len(full) > 1 else QuantParams(full)
        b = node.emit("dequantize", node.importer.graph.constant(bias, "bias", quant))
    y = node.emit("conv", x, w, b, groups=node.attr("group", 1), **_window(node, w.shape[2:], x.shape[2:]))
    return node.emit("quantize", y, type=TensorType(dtype, y.shape, params))


def _scales(value: Value) -> Array:
    producer = value.producer
    quant = producer.inputs[0].quant if producer is not None else None
    if quant is None:
        raise Unsupported("an operand has no scale")
    return quant.scales


@importer("QLinearMatMul")
def qlinear_matmul(node: Node) -> Value:
    """QLinearMatMul 10, 21 as dequantise, product, quantise."""
    a = _dequantize(node, node.operand(0), _params(node, 1, 2, None)[0])
    b = _dequantize(node, node.operand(3), _params(node, 4, 5, None)[0])
    params, dtype = _params(node, 6, 7, None)
    y = node.emit("matmul", a, b)
    return node.emit("quantize", y, type=TensorType(dtype, y.shape, params))


@importer("com.microsoft::QLinearAdd", "com.microsoft::QLinearMul")
def qlinear_binary(node: Node) -> Value:
    """ONNX Runtime's QLinearAdd and QLinearMul as dequantise, op, quantise."""
    a = _dequantize(node, node.operand(0), _params(node, 1, 2, None)[0])
    b = _dequantize(node, node.operand(3), _params(node, 4, 5, None)[0])
    params, dtype = _params(node, 6, 7, None)
    y = node.emit("add" if node.op_type == "QLinearAdd" else "mul", a, b)
    return node.emit("quantize", y, type=TensorType(dtype, y.shape, params))
