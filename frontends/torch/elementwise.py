# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops. torch promotes operands of different types; the IR wants the casts written out."""

from __future__ import annotations

import math
from typing import Any

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .importer import Node, Unsupported, importer
from .tensors import ir_dtype

_UNARY = {
    "relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "hardswish": "hard_swish", "silu": "silu", "mish": "mish", "exp": "exp",
    "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal", "neg": "neg", "abs": "abs", "erf": "erf",
    "sin": "sin", "cos": "cos", "floor": "floor", "ceil": "ceil", "sign": "sign", "logical_not": "logical_not",
    "bitwise_not": "logical_not",
}  # fmt: skip
_COMPARE = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
_LOGIC = {
    "logical_and": "logical_and", "logical_or": "logical_or", "bitwise_and": "logical_and", "bitwise_or": "logical_or",
    "__and__": "logical_and", "__or__": "logical_or",
}  # fmt: skip
_SIZE_ORDER = (
    DType.BOOL,
    DType.U8,
    DType.I8,
    DType.I16,
    DType.I32,
    DType.I64,
    DType.F16,
    DType.BF16,
    DType.F32,
    DType.F64,
)


def _name(node: Node) -> str:
    return node.op.removeprefix("aten::")


def common_dtype(node: Node, *names: str) -> DType:
    """The type that operands are compared in: tensors count before numbers, floats before integers."""
    values = [node.arg(n) for n in names]
    tensors = [v for v in values if isinstance(v, Value)]
    with_axes = [v for v in tensors if v.type.rank] or tensors
    dtype = max((v.dtype for v in with_axes), key=_SIZE_ORDER.index)
    if not dtype.is_float and any(isinstance(v, float) for v in values):
        return DType.F32
    return dtype


@importer(*_UNARY)
def unary(node: Node) -> Value:
    """One operand; integers become floats where torch says so."""
    x = node.tensor("self")
    if _name(node) == "bitwise_not" and x.dtype is not DType.BOOL:
        raise Unsupported("bitwise arithmetic on integers")
    x = node.cast(x, DType.BOOL if node.dtype is DType.BOOL else node.dtype)
    return node.emit(_UNARY[_name(node)], x)


@importer("round.default")
def round_(node: Node) -> Value:
    """To the nearest integer, ties to even."""
    return node.emit("round", node.tensor("self"))


@importer("add", "sub", "rsub")
def add_sub(node: Node) -> Value:
    """`self + alpha * other` and its kin."""
    a, b = node.operand("self", node.dtype), node.operand("other", node.dtype)
    alpha = node.arg("alpha", 1)
    if _name(node) == "rsub":
        a, b = b, a
        if alpha != 1:
            b = node.emit("mul", b, node.const(alpha, node.dtype))
    elif alpha != 1:
        b = node.emit("mul", b, node.const(alpha, node.dtype))
    return node.emit("add" if _name(node) == "add" else "sub", a, b)


@importer("mul")
def mul(node: Node) -> Value:
    """Product; of truth values, conjunction."""
    a, b = node.operand("self", node.dtype), node.operand("other", node.dtype)
    return node.emit("logical_and" if node.dtype is DType.BOOL else "mul", a, b)


@importer("div")
def div(node: Node) -> Value:
    """Quotient; `rounding_mode` floors or truncates."""
    a, b = node.operand("self", node.dtype), node.operand("other", node.dtype)
    mode = node.arg("rounding_mode")
    if mode == "floor" and node.dtype.is_integer:
        # Truncating division of what is left when the remainder (with the divisor's sign) is taken off is exact.
        return node.emit("div", node.emit("sub", a, node.emit("mod", a, b)), b)
    quotient = node.emit("div", a, b)
    if mode == "floor":
        return node.emit("floor", quotient)
    if mode == "trunc" and node.dtype.is_float:
        return node.emit("mul", node.emit("sign", quotient), node.emit("floor", node.emit("abs", quotient)))
    return quotient


@importer("remainder")
def remainder(node: Node) -> Value:
    """Remainder with the divisor's sign."""
    return node.emit("mod", node.operand("self", node.dtype), node.operand("other", node.dtype))


@importer("pow")
def power(node: Node) -> Value:
    """Power of tensors or numbers."""
    base, exponent = node.arg("self"), node.arg("exponent")
    if isinstance(base, Value) and exponent == 1:
        return node.cast(base, node.dtype)
    return node.emit("pow", node.operand("self", node.dtype), node.operand("exponent", node.dtype))


@importer("minimum", "maximum")
def minimum_maximum(node: Node) -> Value:
    """Smaller or larger of two tensors."""
    name = "min" if _name(node) == "minimum" else "max"
    return node.emit(name, node.operand("self", node.dtype), node.operand("other", node.dtype))


@importer(*_COMPARE)
def compare(node: Node) -> Value:
    """Comparisons, in the common type of both sides."""
    dtype = common_dtype(node, "self", "other")
    return node.emit(_COMPARE[_name(node)], node.operand("self", dtype), node.operand("other", dtype))


@importer(*_LOGIC)
def logic(node: Node) -> Value:
    """Connectives of truth values."""
    if not _name(node).startswith("logical") and node.dtype is not DType.BOOL:
        raise Unsupported("bitwise arithmetic on integers")
    return node.emit(_LOGIC[_name(node)], node.operand("self", DType.BOOL), node.operand("other", DType.BOOL))


@importer("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(node: Node) -> Value:
    """`self` where the condition holds, else `other`."""
    return node.emit(
        "where",
        node.operand("condition", DType.BOOL),
        node.operand("self", node.dtype),
        node.operand("other", node.dtype),
    )


@importer("masked_fill")
def masked_fill(node: Node) -> Value:
    """`value` where the mask holds."""
    return node.emit("where", node.operand("mask", DType.BOOL), node.operand("value", node.dtype), node.tensor("self"))


def _clamp(node: Node, low: Any, high: Any) -> Value:
    x = node.cast(node.tensor("self"), node.dtype)
    numbers = [v for v in (low, high) if v is not None]
    if any(not isinstance(v, (int, float)) for v in numbers):
        for name, bound in (("max", low), ("min", high)):
            if bound is not None:
                limit = bound if isinstance(bound, Value) else node.const(bound, node.dtype)
                x = node.emit(name, x, node.cast(limit, node.dtype))
        return x
    if x.dtype.is_integer:
        least, most = x.dtype.range
        return node.emit(
            "clamp",
            x,
            lo=int(max(least, low if low is not None else least)),
            hi=int(min(most, high if high is not None else most)),
        )
    low, high = float(-math.inf if low is None else low), float(math.inf if high is None else high)
    return node.emit("relu", x) if (low, high) == (0.0, math.inf) else node.emit("clamp", x, lo=min(low, high), hi=high)


@importer("clamp", "clip")
def clamp(node: Node) -> Value:
    """Bounds are numbers or tensors; where they cross, the upper one wins."""
    return _clamp(node, node.arg("min"), node.arg("max"))


@importer("clamp_min", "clamp_max")
def clamp_one(node: Node) -> Value:
    """One bound only."""
    return _clamp(node, node.arg("min"), node.arg("max"))


@importer("hardtanh")
def hardtanh(node: Node) -> Value:
    """Clamp to `[min_val, max_val]`."""
    return _clamp(node, node.arg("min_val"), node.arg("max_val"))


@importer("relu6")
def relu6(node: Node) -> Value:
    """Clamp to [0, 6]."""
    return _clamp(node, 0, 6)


@importer("leaky_relu")
def leaky_relu(node: Node) -> Value:
    """x where positive, else a multiple of it."""
    return node.emit("leaky_relu", node.tensor("self"), alpha=float(node.arg("negative_slope")))


@importer("elu")
def elu(node: Node) -> Value:
    """ELU; SELU's scale multiplies the result."""
    if node.arg("input_scale") != 1:
        raise Unsupported("input_scale other than 1")
    y = node.emit("elu", node.tensor("self"), alpha=float(node.arg("alpha")))
    scale = node.arg("scale")
    return y if scale == 1 else node.emit("mul", y, node.const(scale, y.dtype))


@importer("celu")
def celu(node: Node) -> Value:
    """`alpha * elu(x / alpha)`, which is elu for alpha = 1."""
    x, alpha = node.tensor("self"), float(node.arg("alpha"))
    if alpha == 1:
        return node.emit("elu", x, alpha=1.0)
    inner = node.emit("elu", node.emit("div", x, node.const(alpha, x.dtype)), alpha=1.0)
    return node.emit("mul", inner, node.const(alpha, x.dtype))


@importer("hardsigmoid")
def hardsigmoid(node: Node) -> Value:
    """clip(x / 6 + 1 / 2, 0, 1)."""
    return node.emit("hard_sigmoid", node.tensor("self"), alpha=1 / 6, beta=0.5)


@importer("gelu")
def gelu(node: Node) -> Value:
    """Exact or by the tanh formula."""
    return node.emit("gelu", node.tensor("self"), approximate=node.arg("approximate"))


@importer("softplus")
def softplus(node: Node) -> Value:
    """`log(1 + exp(beta * x)) / beta`; above torch's threshold of 20 it equals x to f32 precision."""
    beta, x = node.arg("beta"), node.tensor("self")
    if node.arg("threshold") < 15:
        raise Unsupported("a threshold below 15")
    if beta == 1:
        return node.emit("softplus", x)
    return node.emit(
        "div", node.emit("softplus", node.emit("mul", x, node.const(beta, x.dtype))), node.const(beta, x.dtype)
    )


@importer("log_sigmoid")
def log_sigmoid(node: Node) -> Value:
    """`-softplus(-x)`."""
    return node.emit("neg", node.emit("softplus", node.emit("neg", node.tensor("self"))))


@importer("prelu", "_prelu_kernel")
def prelu(node: Node) -> Value:
    """One slope, or one per channel (axis 1)."""
    x, slope = node.tensor("self"), node.tensor("weight")
    if slope.type.rank == 1 and slope.shape[0] > 1:
        slope = node.reshape(slope, (slope.shape[0], *(1,) * (x.type.rank - 2)))
    return node.emit("prelu", x, slope)


@importer("square")
def square(node: Node) -> Value:
    """x * x."""
    return node.emit("mul", node.tensor("self"), node.tensor("self"))


@importer("log1p", "expm1")
def shifted(node: Node) -> Value:
    """log(1 + x) and exp(x) - 1 as written: near 0 they lose the precision that the fused forms keep."""
    x = node.cast(node.tensor("self"), node.dtype)
    one = node.const(1, node.dtype)
    if _name(node) == "log1p":
        return node.emit("log", node.emit("add", x, one))
    return node.emit("sub", node.emit("exp", x), one)


@importer("_to_copy", "to.dtype", "type_as")
def to_copy(node: Node) -> Value:
    """Change of element type; device and memory format mean nothing here."""
    x = node.tensor("self")
    wanted = node.arg("dtype")
    return (
        x if wanted is None and node.arg("other") is None else node.cast(x, ir_dtype(wanted) if wanted else node.dtype)
    )


@importer("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "lift_fresh", "dropout", "native_dropout", "feature_dropout",
          "alpha_dropout", "positive")  # fmt: skip
def identity(node: Node) -> Value | list[Value]:
    """The operand itself; dropout must be switched off."""
    training = node.arg("train")
    if training:
        raise Unsupported("dropout in training mode: call model.eval() before the export")
    x = node.tensor("input" if node.arg("input") is not None else "self")
    return [x] if _name(node) == "native_dropout" else x
