# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops."""

from __future__ import annotations

import math

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.opdef import REQUIRED, Trait, all_ops
from gadl.compiler.ir.types import DType

from .node import Node, Unsupported, importer, ir_dtype

_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "equal", "Less": "less",
    "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "And": "logical_and",
    "Or": "logical_or", "Xor": "not_equal",
}  # fmt: skip
#: Functions of one tensor that are called the same on both sides, attributes included.
_UNARY = {
    op_type: definition
    for definition in all_ops()
    if Trait.UNARY in definition.traits and all(a.default is not REQUIRED for a in definition.attrs)
    for op_type in definition.onnx
}


@importer(*_BINARY)
def binary(node: Node) -> Value:
    """Two operands with broadcast."""
    return node.emit(_BINARY[node.op_type], node.operand(0), node.operand(1))


@importer("Pow")
def power(node: Node) -> Value:
    """Pow 7 to 15: the exponent may have a type of its own; the result has the base's."""
    a, b = node.operand(0), node.operand(1)
    if a.dtype is b.dtype or not (b.dtype.is_float and a.dtype.is_integer):
        return node.emit("pow", a, b if a.dtype is b.dtype else node.emit("cast", b, dtype=a.dtype))
    return node.emit("cast", node.emit("pow", node.emit("cast", a, dtype=b.dtype), b), dtype=a.dtype)


@importer(*_UNARY)
def unary(node: Node) -> Value:
    """One operand; absent attributes have their declared defaults, which are ONNX's."""
    definition = _UNARY[node.op_type]
    given = {a.name: node.attr(a.name) for a in definition.attrs}
    return node.emit(definition.name, node.operand(0), **{name: value for name, value in given.items() if value is not None})


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
    """Clip 6 (attributes) and 11, 12, 13 (inputs, which need not be constants)."""
    x = node.operand(0)
    if node.opset < 11:
        low, high = float(node.attr("min", -math.inf)), float(node.attr("max", math.inf))
    else:
        bounds = [node.optional(1), node.optional(2)]
        if any(v is not None and v.data is None for v in bounds):
            for name, bound in zip(("max", "min"), bounds):
                x = x if bound is None else node.emit(name, x, bound)
            return x
        low, high = (
            default if v is None or v.data is None else v.data.item() for v, default in zip(bounds, (-math.inf, math.inf))
        )
    if x.dtype.is_integer:
        limits = x.dtype.range
        return node.emit("clamp", x, lo=int(max(min(low, high), limits[0])), hi=int(min(high, limits[1])))
    # Old exporters write the largest float for "no bound".
    largest = float(np.finfo(np.float32).max)
    low = -math.inf if low <= -largest else float(low)
    high = math.inf if high >= largest else float(high)
    # max first, then min: the upper bound wins.
    low = min(low, high)
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


@importer("Identity")
def identity(node: Node) -> Value:
    """The operand itself."""
    return node.operand(0)


@importer("Dropout")
def dropout(node: Node) -> list[Value]:
    """Dropout 7 to 22 in inference: the operand itself, and a mask of ones where somebody reads it."""
    x, training = node.operand(0), node.constant(2)
    if training is not None and training.item():
        raise Unsupported("training mode")
    if not node.wants(1):
        return [x]
    ones = node.const(np.ones((1,) * x.type.rank, np.bool_))
    return [x, node.emit("expand", ones, shape=x.shape)]


@importer("Selu")
def selu(node: Node) -> Value:
    """Selu 6, 22: a scaled elu."""
    x = node.operand(0)
    alpha, gamma = float(node.attr("alpha", 1.6732632)), float(node.attr("gamma", 1.0507010))
    return node.emit("mul", node.emit("elu", x, alpha=alpha), node.const(gamma, x.dtype))


@importer("Celu")
def celu(node: Node) -> Value:
    """Celu 12: alpha * elu(x / alpha)."""
    x, alpha = node.operand(0), float(node.attr("alpha", 1.0))
    if alpha == 1.0:
        return node.emit("elu", x, alpha=1.0)
    factor = node.const(alpha, x.dtype)
    return node.emit("mul", node.emit("elu", node.emit("div", x, factor), alpha=1.0), factor)


@importer("Softsign")
def softsign(node: Node) -> Value:
    """Softsign 1, 22: x / (1 + |x|)."""
    x = node.operand(0)
    return node.emit("div", x, node.emit("add", node.emit("abs", x), node.const(1.0, x.dtype)))


@importer("ThresholdedRelu")
def thresholded_relu(node: Node) -> Value:
    """ThresholdedRelu 10, 22: x where it is above alpha, else 0."""
    x = node.operand(0)
    above = node.emit("greater", x, node.const(float(node.attr("alpha", 1.0)), x.dtype))
    return node.emit("where", above, x, node.const(0.0, x.dtype))


@importer("Tan")
def tan(node: Node) -> Value:
    """Tan 7, 22: sin(x) / cos(x)."""
    return node.emit("div", node.emit("sin", node.operand(0)), node.emit("cos", node.operand(0)))


@importer("IsNaN")
def is_nan(node: Node) -> Value:
    """IsNaN 9 to 20: only NaN differs from itself."""
    return node.emit("not_equal", node.operand(0), node.operand(0))


@importer("com.microsoft::Gelu")
def gelu_fused(node: Node) -> Value:
    """ONNX Runtime's Gelu."""
    return node.emit("gelu", node.operand(0), approximate="none")


@importer("com.microsoft::FastGelu", "com.microsoft::BiasGelu")
def gelu_with_bias(node: Node) -> Value:
    """ONNX Runtime's FastGelu and BiasGelu: the bias is added before."""
    x, bias = node.operand(0), node.optional(1)
    x = x if bias is None else node.emit("add", x, bias)
    return node.emit("gelu", x, approximate="tanh" if node.op_type == "FastGelu" else "none")


@importer("com.microsoft::QuickGelu")
def quick_gelu(node: Node) -> Value:
    """ONNX Runtime's QuickGelu: x * sigmoid(alpha * x)."""
    x = node.operand(0)
    scaled = node.emit("mul", x, node.const(float(node.attr("alpha", 1.702)), x.dtype))
    return node.emit("mul", x, node.emit("sigmoid", scaled))
