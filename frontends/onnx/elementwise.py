# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops."""

from __future__ import annotations

import math

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .node import Node, Unsupported, importer, ir_dtype

_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Equal": "equal", "Less": "less",
    "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "And": "logical_and",
    "Or": "logical_or",
}  # fmt: skip
_UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hard_swish", "Mish": "mish", "Softplus": "softplus",
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Neg": "neg", "Abs": "abs", "Erf": "erf",
    "Sin": "sin", "Cos": "cos", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Not": "logical_not",
}  # fmt: skip


@importer(*_BINARY)
def binary(node: Node) -> Value:
    """Two operands with broadcast; before opset 7 broadcasting was an attribute."""
    a, b = node.operand(0), node.operand(1)
    if a.dtype is not b.dtype:
        b = node.emit("cast", b, dtype=a.dtype)
    return node.emit(_BINARY[node.op_type], a, b)


@importer(*_UNARY)
def unary(node: Node) -> Value:
    """One operand, no attributes."""
    return node.emit(_UNARY[node.op_type], node.operand(0))


@importer("Min", "Max", "Sum")
def variadic(node: Node) -> Value:
    """Any number of operands, folded from the left."""
    name = {"Min": "min", "Max": "max", "Sum": "add"}[node.op_type]
    result = node.operand(0)
    for index in range(1, len(node.inputs)):
        result = node.emit(name, result, node.operand(index))
    return result


@importer("Mean")
def mean(node: Node) -> Value:
    """Mean of any number of operands."""
    total = node.operand(0)
    for index in range(1, len(node.inputs)):
        total = node.emit("add", total, node.operand(index))
    return node.emit("mul", total, node.const(1 / len(node.inputs), total.dtype))


@importer("Mod")
def mod(node: Node) -> Value:
    """Mod 10, 13; `fmod` has the sign of the dividend."""
    if node.attr("fmod", 0):
        raise Unsupported("fmod=1")
    return node.emit("mod", node.operand(0), node.operand(1))


@importer("LeakyRelu")
def leaky_relu(node: Node) -> Value:
    """LeakyRelu 1 to 16."""
    return node.emit("leaky_relu", node.operand(0), alpha=float(node.attr("alpha", 0.01)))


@importer("Elu")
def elu(node: Node) -> Value:
    """Elu 1 to 22."""
    return node.emit("elu", node.operand(0), alpha=float(node.attr("alpha", 1.0)))


@importer("HardSigmoid")
def hard_sigmoid(node: Node) -> Value:
    """HardSigmoid 1 to 22."""
    return node.emit("hard_sigmoid", node.operand(0), alpha=float(node.attr("alpha", 0.2)), beta=float(node.attr("beta", 0.5)))


@importer("Gelu")
def gelu(node: Node) -> Value:
    """Gelu 20."""
    return node.emit("gelu", node.operand(0), approximate=node.attr("approximate", "none"))


@importer("Swish")
def swish(node: Node) -> Value:
    """Swish 24."""
    alpha = float(node.attr("alpha", 1.0))
    x = node.operand(0)
    if alpha == 1.0:
        return node.emit("silu", x)
    return node.emit("mul", x, node.emit("sigmoid", node.emit("mul", x, node.const(alpha, x.dtype))))


@importer("PRelu")
def prelu(node: Node) -> Value:
    """PRelu 7, 9, 16: the slope broadcasts from the right, as everything else does."""
    return node.emit("prelu", node.operand(0), node.operand(1))


@importer("Clip")
def clip(node: Node) -> Value:
    """Clip 6 (attributes) and 11, 12, 13 (inputs)."""
    x = node.operand(0)
    if node.opset < 11:
        low, high = node.attr("min", -math.inf), node.attr("max", math.inf)
    else:
        bounds = [node.constant(i) for i in (1, 2)]
        low = -math.inf if bounds[0] is None else bounds[0].item()
        high = math.inf if bounds[1] is None else bounds[1].item()
    if x.dtype.is_integer:
        limits = x.dtype.range
        return node.emit("clamp", x, lo=int(max(low, limits[0])), hi=int(min(high, limits[1])))
    # Old exporters write the largest float for "no bound".
    largest = float(np.finfo(np.float32).max)
    low = -math.inf if low <= -largest else float(low)
    high = math.inf if high >= largest else float(high)
    if low > high:
        low = high
    return node.emit("relu", x) if (low, high) == (0.0, math.inf) else node.emit("clamp", x, lo=low, hi=high)


@importer("Cast", "CastLike")
def cast(node: Node) -> Value:
    """Cast 6 to 21 and CastLike 15."""
    import onnx_ir

    x = node.operand(0)
    like = node.op_type == "CastLike"
    target = node.operand(1).dtype if like else ir_dtype(onnx_ir.DataType(node.attr("to")))
    if target is DType.F64 and x.data is None:
        raise Unsupported("double precision")
    return x if target is x.dtype else node.emit("cast", x, dtype=target)


@importer("Where")
def where(node: Node) -> Value:
    """Where 9, 16."""
    return node.emit("where", node.operand(0), node.operand(1), node.operand(2))


@importer("Identity", "Dropout")
def identity(node: Node) -> Value:
    """The operand itself; the mask of Dropout is not computed."""
    if len(node.node.outputs) > 1 and node.node.outputs[1].name and node.node.outputs[1].uses():
        raise Unsupported("the mask of Dropout is not computed")
    return node.operand(0)
