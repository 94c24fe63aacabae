# SPDX-License-Identifier: Apache-2.0
"""Runs ops and graphs on the C++ host kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from gadl.compiler.artifact.format import DTYPES, LAYOUTS, ROUNDINGS, AttrCode
from gadl.compiler.ir.graph import Graph, Op
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import Array, DType, Layout, QuantParams, Requant, TensorType

kernels = pytest.importorskip("gadl.runtime._kernels", reason="the extension modules are not built")


def _tensor(type: TensorType) -> tuple[Any, ...]:
    quant = type.quant
    scales = list(quant.scale) if quant else []
    axis = -1 if quant is None or quant.axis is None else quant.axis
    zero = quant.zero_point if quant else 0
    return (DTYPES.index(type.dtype.value), LAYOUTS.index(type.layout.value), list(type.static_shape), scales, zero, axis)


def _requant(r: Requant) -> tuple[int, list[int], list[int]]:
    return (ROUNDINGS.index(r.rounding.value), r.multiplier.tolist(), r.shift.tolist())


def _attr(value: Any) -> tuple[int, Any]:
    match value:
        case bool() | int():
            return (AttrCode.INT, int(value))
        case float():
            return (AttrCode.FLOAT, value)
        case str():
            return (AttrCode.STR, value)
        case DType() | Layout():
            return (AttrCode.STR, value.value)
        case Requant():
            return (AttrCode.REQUANTS, [_requant(value)])
        case np.ndarray():
            return (AttrCode.TENSOR, (DTYPES.index(DType.of(value.dtype).value), np.ascontiguousarray(value).tobytes()))
        case tuple() if value and isinstance(value[0], Requant):
            return (AttrCode.REQUANTS, [_requant(r) for r in value])
        case tuple() if all(isinstance(v, int) for v in value):
            return (AttrCode.INTS, list(value))
    return (AttrCode.FLOATS, [float(v) for v in value])


def _memory(array: Array, type: TensorType) -> bytes:
    """The bytes of a tensor in its layout."""
    return np.ascontiguousarray(array.transpose(type.layout.permutation(type.rank))).tobytes()


def run_op(op: Op, inputs: Sequence[Array | None], repeats: int = 1) -> list[Array]:
    """The results of one op from its kernel."""
    operands = [
        None if value is None or array is None else (_tensor(value.type), _memory(array, value.type))
        for value, array in zip(op.operands, inputs, strict=True)
    ]
    attrs = {name: _attr(value) for name, value in op.attrs.items()}
    found = kernels.run_kernel(op.name, attrs, operands, [_tensor(r.type) for r in op.results], repeats)
    arrays = []
    for value, data in zip(op.results, found, strict=True):
        order = value.layout.permutation(value.type.rank)
        flat = np.frombuffer(data, value.dtype.numpy).reshape([value.shape[a] for a in order])
        arrays.append(flat.transpose(np.argsort(order)))
    return arrays


def run_graph(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a graph, every op on its kernel."""
    arrays: dict[int, Array] = {id(v): np.asarray(feeds[v.name], v.dtype.numpy) for v in graph.inputs}
    for op in graph.ops:
        inputs = [None if v is None else v.data if v.data is not None else arrays[id(v)] for v in op.operands]
        for value, array in zip(op.results, run_op(op, inputs), strict=True):
            arrays[id(value)] = array
    return {n: v.data if v.data is not None else arrays[id(v)] for n, v in zip(graph.output_names, graph.outputs, strict=True)}


def quantised(dtype: DType, shape: Sequence[int], zero_point: int = 0) -> TensorType:
    """A quantised tensor type; its scale does not enter integer arithmetic."""
    return TensorType(dtype, tuple(shape), QuantParams((0.1,), zero_point))


def both(
    name: str, operands: Sequence[tuple[Array, TensorType | None] | Array | None], result: TensorType | None = None, **attrs: Any
) -> tuple[Array, Array]:
    """Results of one op: from its kernel and from its declaration.

    operands: arrays, arrays with a (quantised) type, or None where an optional operand is absent.
    """
    graph = Graph()
    feeds: dict[str, Array] = {}
    values = []
    for index, operand in enumerate(operands):
        if operand is None:
            values.append(None)
            continue
        array, type = operand if isinstance(operand, tuple) else (operand, None)
        type = type or TensorType(DType.of(array.dtype), array.shape)
        values.append(graph.add_input(f"x{index}", type))
        feeds[f"x{index}"] = array
    value = Builder(graph)(name, *values, type=result, **attrs)
    graph.set_outputs([value], ["y"])
    return run_graph(graph, feeds)["y"], interpret(graph, feeds)["y"]


def assert_same(found: Array, wanted: Array) -> None:
    """Equal bit for bit, type and shape included."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(found, wanted)


def assert_near(found: Array, wanted: Array, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Within the tolerances of `docs/numerics.md`; half precision within two units of its last place."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    unit = {np.dtype(np.float16): 2.0**-9, DType.BF16.numpy: 2.0**-6}.get(found.dtype, 0.0)
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=max(rtol, unit), atol=max(atol, unit / 64))
