# SPDX-License-Identifier: Apache-2.0
"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..graph import Op
from ..opdef import Attr, AttrKind, OpDef, OpError, Trait, register
from ..types import Array, DType, TensorType
from .common import REQUANT, array, axis_of, centred, finish_integer, given, requant_of, requantised, wide

AXES = Attr("axes", AttrKind.INTS)
KEEPDIMS = Attr("keepdims", AttrKind.BOOL, True)


class Reduction(OpDef):
    """Base of reductions: `axes` go, or stay with extent 1 when `keepdims`."""

    attrs: ClassVar[tuple[Attr, ...]] = (AXES, KEEPDIMS)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        axes = {axis_of(a, x.rank) for a in attrs["axes"]}
        kept = [(1 if i in axes else d) for i, d in enumerate(x.shape) if attrs["keepdims"] or i not in axes]
        return [TensorType(x.dtype, tuple(kept), x.quant if Trait.KEEPS_QUANT in cls.traits else None)]

    @classmethod
    def compute(cls, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        """The reduction of one array."""
        raise NotImplementedError

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = wide(array(inputs, 0))
        axes = tuple(a % x.ndim for a in op.attrs["axes"])
        result = cls.compute(x, axes, op.attrs["keepdims"])
        return [np.asarray(result).astype(op.results[0].dtype.numpy)]


class IntegerSum(Reduction):
    """Base of sum and mean, whose integer form is a requantised sum."""

    attrs = (AXES, KEEPDIMS, REQUANT)

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        if requant_of(op) is None:
            return super().evaluate(op, inputs)
        x = centred(op, inputs, 0)
        total = x.sum(tuple(a % x.ndim for a in op.attrs["axes"]), keepdims=op.attrs["keepdims"])
        return [finish_integer(op, requantised(op, total, None))]


def _float_mean(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    if np.issubdtype(x.dtype, np.integer):
        count = int(np.prod([x.shape[a] for a in axes]))
        return np.asarray(np.trunc(x.sum(axes, keepdims=keepdims, dtype=np.float64) / count))
    return np.asarray(x.mean(axes, keepdims=keepdims, dtype=np.float64))


def _declare(
    name: str, onnx: str, function: Callable[[Array, tuple[int, ...], bool], Any], doc: str, base: type[Reduction],
    traits: Trait = Trait.NONE,
) -> None:  # fmt: skip
    members = {
        "__doc__": doc,
        "name": name,
        "onnx": (onnx,),
        "traits": traits,
        "compute": classmethod(lambda cls, x, axes, keepdims: function(x, axes, keepdims)),
    }
    register(type(name.title().replace("_", ""), (base,), members))


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return x.sum(axes, keepdims=keepdims, dtype=np.float64 if np.issubdtype(x.dtype, np.floating) else None)


_declare("reduce_sum", "ReduceSum", _sum, "Sum over axes.", IntegerSum)
_declare("reduce_mean", "ReduceMean", _float_mean, "Mean over axes.", IntegerSum)
_declare("reduce_max", "ReduceMax", lambda x, a, k: x.max(a, keepdims=k), "Maximum over axes.", Reduction, Trait.KEEPS_QUANT)
_declare("reduce_min", "ReduceMin", lambda x, a, k: x.min(a, keepdims=k), "Minimum over axes.", Reduction, Trait.KEEPS_QUANT)
_declare("reduce_prod", "ReduceProd", lambda x, a, k: x.prod(a, keepdims=k), "Product over axes.", Reduction)
_declare(
    "reduce_l2", "ReduceL2", lambda x, a, k: np.sqrt(np.square(x, dtype=np.float64).sum(a, keepdims=k)),
    "Square root of the sum of squares over axes.", Reduction,
)  # fmt: skip


@register
class ArgMax(OpDef):
    """Index of the first maximum along `axis`, i64."""

    name = "argmax"
    attrs = (Attr("axis", AttrKind.INT), KEEPDIMS)
    onnx = ("ArgMax",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        axis = axis_of(attrs["axis"], x.rank)
        tail = (1,) if attrs["keepdims"] else ()
        return [TensorType(DType.I64, (*x.shape[:axis], *tail, *x.shape[axis + 1 :]))]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        found = array(inputs, 0).argmax(op.attrs["axis"]).astype(np.int64)
        return [np.expand_dims(found, op.attrs["axis"]) if op.attrs["keepdims"] else found]


@register
class CumSum(OpDef):
    """Running sum along `axis`."""

    name = "cumsum"
    attrs = (Attr("axis", AttrKind.INT),)
    onnx = ("CumSum",)

    @classmethod
    def infer(cls, types: Sequence[TensorType | None], attrs: dict[str, Any]) -> list[TensorType]:
        x = given(types, 0)
        if x.rank == 0:
            raise OpError("a scalar has no axis")
        axis_of(attrs["axis"], x.rank)
        return [TensorType(x.dtype, x.shape)]

    @classmethod
    def evaluate(cls, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = array(inputs, 0)
        return [np.cumsum(x, op.attrs["axis"], dtype=x.dtype)]
