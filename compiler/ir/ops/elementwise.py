# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops. Operands broadcast as in numpy; float results are rounded once to the result's type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, Operand, OpError, Trait, register
from ..requant import apply_requant
from ..types import Array, DType, TensorType
from .common import CLAMP, REQUANT, array, broadcast, centred, finish_float, finish_integer, given, requantised, wide

AB = (Operand("a"), Operand("b"))
Evaluate = Callable[..., Array]


class Binary(OpDef):
    """Base of two-operand ops."""

    operands = AB
    traits = Trait.ELEMENTWISE
    result_type: ClassVar[DType | None] = None

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        a, b = given(types, 0), given(types, 1)
        if a.dtype is not b.dtype and "requant" not in attrs:
            raise OpError(f"operand types {a.dtype.value} and {b.dtype.value} differ")
        return [TensorType(cls.result_type or a.dtype, broadcast(a.static_shape, b.static_shape))]

    @classmethod
    def compute(cls, a: Array, b: Array) -> Array:
        """The function on two arrays of one type."""
        raise NotImplementedError

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        a, b = wide(array(inputs, 0)), wide(array(inputs, 1))
        return [finish_float(op, cls.compute(a, b))]


class SumLike(Binary):
    """Base of add and sub, whose integer form rescales both operands and the sum."""

    attrs = (CLAMP, Attr("requant", AttrKind.REQUANTS, None, length=3))

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        requant = op.attrs.get("requant")
        if requant is None:
            return super().evaluate(op, inputs)
        a = apply_requant(centred(op, inputs, 0), requant[0])
        b = apply_requant(centred(op, inputs, 1), requant[1])
        return [finish_integer(op, apply_requant(cls.compute(a, b), requant[2]))]


@register
class Add(SumLike):
    """Sum of two tensors."""

    name = "add"
    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE
    onnx = ("Add",)

    @classmethod
    def compute(cls, a: Array, b: Array) -> Array:
        return a + b


@register
class Sub(SumLike):
    """Difference of two tensors."""

    name = "sub"
    onnx = ("Sub",)

    @classmethod
    def compute(cls, a: Array, b: Array) -> Array:
        return a - b


@register
class Mul(Binary):
    """Product of two tensors."""

    name = "mul"
    attrs = (CLAMP, REQUANT)
    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE
    onnx = ("Mul",)

    @classmethod
    def compute(cls, a: Array, b: Array) -> Array:
        return a * b

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        if "requant" not in op.attrs:
            return super().evaluate(op, inputs)
        return [finish_integer(op, requantised(op, centred(op, inputs, 0) * centred(op, inputs, 1), None))]


def truncated_division(a: Array, b: Array) -> Array:
    """Integer division towards zero; 0 where the divisor is 0."""
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, np.sign(a) * np.sign(safe) * (np.abs(a) // np.abs(safe))).astype(a.dtype)


@register
class Div(Binary):
    """Quotient of two tensors; integers divide towards zero."""

    name = "div"
    attrs = (CLAMP,)
    onnx = ("Div",)

    @classmethod
    def compute(cls, a: Array, b: Array) -> Array:
        return truncated_division(a, b) if np.issubdtype(a.dtype, np.integer) else a / b


def _declare_binary(
    name: str, onnx: tuple[str, ...], function: Evaluate, doc: str, traits: Trait = Trait.NONE, result: DType | None = None
) -> None:
    """Declare a two-operand op that is a plain function of two arrays."""
    members = {
        "__doc__": doc,
        "name": name,
        "onnx": onnx,
        "traits": Trait.ELEMENTWISE | traits,
        "result_type": result,
        "compute": classmethod(lambda cls, a, b: function(a, b)),
    }
    register(type(name.title().replace("_", ""), (Binary,), members))


_SHARED = Trait.KEEPS_QUANT | Trait.COMMUTATIVE
_declare_binary("pow", ("Pow",), np.power, "First operand to the power of the second.")
_declare_binary("mod", ("Mod",), np.mod, "Remainder with the sign of the divisor.")
_declare_binary("min", ("Min",), np.minimum, "Smaller of two tensors.", _SHARED)
_declare_binary("max", ("Max",), np.maximum, "Larger of two tensors.", _SHARED)
for _name, _onnx, _function in (
    ("equal", "Equal", np.equal),
    ("not_equal", "", np.not_equal),
    ("less", "Less", np.less),
    ("less_equal", "LessOrEqual", np.less_equal),
    ("greater", "Greater", np.greater),
    ("greater_equal", "GreaterOrEqual", np.greater_equal),
    ("logical_and", "And", np.logical_and),
    ("logical_or", "Or", np.logical_or),
):
    _declare_binary(
        _name, (_onnx,) if _onnx else (), _function, f"True where {_name.replace('_', ' ')} holds.", result=DType.BOOL
    )


@register
class Where(OpDef):
    """`a` where the condition holds, else `b`. cond: bool."""

    name = "where"
    operands = (Operand("cond"), *AB)
    traits = Trait.ELEMENTWISE
    onnx = ("Where",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        shapes = [given(types, i).static_shape for i in range(3)]
        return [TensorType(given(types, 1).dtype, broadcast(*shapes))]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.where(array(inputs, 0), array(inputs, 1), array(inputs, 2))]


@register
class Prelu(Binary):
    """x where positive, else slope * x."""

    name = "prelu"
    operands = (Operand("x"), Operand("slope"))
    onnx = ("PRelu",)

    @classmethod
    def compute(cls, a: Array, b: Array) -> Array:
        return np.where(a >= 0, a, a * b)


class Unary(OpDef):
    """Base of functions of one tensor. `compute` works on f32 (or the wide type) arrays."""

    traits = Trait.ELEMENTWISE | Trait.UNARY

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        return [TensorType(x.dtype, x.shape, x.quant if Trait.KEEPS_QUANT in cls.traits else None)]

    @classmethod
    def compute(cls, x: Array, attrs: dict[str, Any]) -> Array:
        """The function on one array."""
        raise NotImplementedError

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = wide(array(inputs, 0))
        return [np.asarray(cls.compute(x, op.attrs)).astype(op.results[0].dtype.numpy)]


@register
class Relu(Unary):
    """max(x, 0); on integers max(q, zero point)."""

    name = "relu"
    traits = Unary.traits | Trait.KEEPS_QUANT
    onnx = ("Relu",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        quant = op.inputs[0].quant
        return [np.maximum(x, np.asarray(quant.zero_point if quant else 0, x.dtype))]


@register
class Clamp(Unary):
    """x limited to [lo, hi]; on integers the bounds are integers."""

    name = "clamp"
    attrs = (Attr("lo", AttrKind.FLOAT), Attr("hi", AttrKind.FLOAT))
    traits = Unary.traits | Trait.KEEPS_QUANT
    onnx = ("Clip",)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        low, high = op.attrs["lo"], op.attrs["hi"]
        if op.inputs[0].dtype.is_integer:
            bounds = op.inputs[0].dtype.range
            low, high = (int(min(max(v, bounds[0]), bounds[1])) for v in (low, high))
        return [np.clip(x, np.asarray(low, x.dtype), np.asarray(high, x.dtype)).astype(x.dtype, copy=False)]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    """clip(alpha * x + beta, 0, 1) in the type of x."""
    return np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), 0, 1)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Array) -> Array:
    """The error function, in double precision, rounded to the type of x."""
    return np.asarray(_erf(x) if x.size else x).astype(x.dtype)


def gelu(x: Array, attrs: dict[str, Any]) -> Array:
    """x * Phi(x), exact or by the tanh formula."""
    wide_x = x.astype(np.float64)
    if attrs["approximate"] == "tanh":
        inner = math.sqrt(2 / math.pi) * (wide_x + 0.044715 * wide_x**3)
        return (0.5 * wide_x * (1 + np.tanh(inner))).astype(x.dtype)
    return (0.5 * wide_x * (1 + erf(wide_x / math.sqrt(2)))).astype(x.dtype)


def _declare_unary(
    name: str, onnx: tuple[str, ...], function: Callable[[Array, dict[str, Any]], Array], doc: str, *attrs: Attr,
    result: DType | None = None,
) -> None:  # fmt: skip
    """Declare a function of one tensor."""
    members: dict[str, Any] = {
        "__doc__": doc,
        "name": name,
        "onnx": onnx,
        "attrs": attrs,
        "compute": classmethod(lambda cls, x, attrs: function(x, attrs)),
    }
    if result is not None:
        members["infer"] = classmethod(lambda cls, types, attrs: [TensorType(result, given(types, 0).shape)])
    register(type(name.title().replace("_", ""), (Unary,), members))


def _float_attr(name: str, default: float) -> Attr:
    return Attr(name, AttrKind.FLOAT, default)


_declare_unary("leaky_relu", ("LeakyRelu",), lambda x, a: np.where(x >= 0, x, x * x.dtype.type(a["alpha"])),
               "x where positive, else alpha * x.", _float_attr("alpha", 0.01))
_declare_unary("elu", ("Elu",), lambda x, a: np.where(x >= 0, x, x.dtype.type(a["alpha"]) * np.expm1(np.minimum(x, 0))),
               "x where positive, else alpha * (exp(x) - 1).", _float_attr("alpha", 1.0))
_declare_unary("sigmoid", ("Sigmoid",), lambda x, a: sigmoid(x), "1 / (1 + exp(-x)).")
_declare_unary("tanh", ("Tanh",), lambda x, a: np.tanh(x), "Hyperbolic tangent.")
_declare_unary("hard_sigmoid", ("HardSigmoid",), lambda x, a: hard_sigmoid(x, a["alpha"], a["beta"]),
               "clip(alpha * x + beta, 0, 1).", _float_attr("alpha", 0.2), _float_attr("beta", 0.5))
_declare_unary("hard_swish", ("HardSwish",), lambda x, a: x * hard_sigmoid(x, 1 / 6, 0.5), "x * clip(x / 6 + 1 / 2, 0, 1).")
_declare_unary("silu", (), lambda x, a: x * sigmoid(x), "x * sigmoid(x).")
_declare_unary("gelu", ("Gelu",), gelu, "x * Phi(x), Phi the normal distribution.",
               Attr("approximate", AttrKind.STR, "none", ("none", "tanh")))
_declare_unary("mish", ("Mish",), lambda x, a: x * np.tanh(softplus(x)), "x * tanh(softplus(x)).")
_declare_unary("softplus", ("Softplus",), lambda x, a: softplus(x), "log(1 + exp(x)).")
_declare_unary("exp", ("Exp",), lambda x, a: np.exp(x), "Exponential.")
_declare_unary("log", ("Log",), lambda x, a: np.log(x), "Natural logarithm.")
_declare_unary("sqrt", ("Sqrt",), lambda x, a: np.sqrt(x), "Square root.")
_declare_unary("rsqrt", (), lambda x, a: 1 / np.sqrt(x), "1 / sqrt(x).")
_declare_unary("reciprocal", ("Reciprocal",), lambda x, a: 1 / x, "1 / x.")
_declare_unary("neg", ("Neg",), lambda x, a: -x, "-x.")
_declare_unary("abs", ("Abs",), lambda x, a: np.abs(x), "Absolute value.")
_declare_unary("erf", ("Erf",), lambda x, a: erf(x), "Error function.")
_declare_unary("sin", ("Sin",), lambda x, a: np.sin(x), "Sine.")
_declare_unary("cos", ("Cos",), lambda x, a: np.cos(x), "Cosine.")
_declare_unary("floor", ("Floor",), lambda x, a: np.floor(x), "Largest integer not above x.")
_declare_unary("ceil", ("Ceil",), lambda x, a: np.ceil(x), "Smallest integer not below x.")
_declare_unary("round", ("Round",), lambda x, a: np.rint(x), "Nearest integer, ties to even.")
_declare_unary("sign", ("Sign",), lambda x, a: np.sign(x), "-1, 0 or 1.")
_declare_unary("logical_not", ("Not",), lambda x, a: ~x, "True where x is false.", result=DType.BOOL)


@register
class Cast(OpDef):
    """Conversion to another element type; floats become integers by truncation."""

    name = "cast"
    attrs = (Attr("dtype", AttrKind.DTYPE),)
    traits = Trait.ELEMENTWISE
    onnx = ("Cast",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        return [TensorType(attrs["dtype"], given(types, 0).shape)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        with np.errstate(invalid="ignore"):
            return [array(inputs, 0).astype(op.attrs["dtype"].numpy)]
