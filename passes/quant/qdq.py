# SPDX-License-Identifier: Apache-2.0
"""Models that bring their own scales: quantise/dequantise pairs become annotations of the tensors between."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder, Trait, op_def
from gadl.compiler.ir.ops.quant import dequantize_array
from gadl.compiler.ir.pattern import only_user
from gadl.compiler.ir.types import DType, QuantParams

from .convert import IntegerConstant


def has_own_scales(graph: Graph) -> bool:
    """True for a graph that comes with quantisation (QDQ)."""
    return any(op.name in ("quantize", "dequantize") for op in graph.ops)


def own_activation_type(graph: Graph) -> DType:
    """The element type that most tensors of a QDQ graph are quantised to."""
    counts = Counter(op.result.dtype for op in graph.ops if op.name == "quantize")
    return counts.most_common(1)[0][0] if counts else DType.I8


@dataclass
class Annotations:
    """What a QDQ graph said: scales of tensors and integers of constants, both by `id(value)`.

    `values` keeps the constants alive that `constants` speaks of.
    """

    params: dict[int, QuantParams] = field(default_factory=dict)
    constants: dict[int, IntegerConstant] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)

    def add_constant(self, graph: Graph, held: IntegerConstant, name: str) -> Value:
        """A real constant that remembers its integers."""
        real = graph.constant(dequantize_array(held.data, held.quant), name)
        self.constants[id(real)] = held
        self.values.append(real)
        return real


def read_annotations(graph: Graph, dtype: DType) -> Annotations:
    """Remove every pair of element type `dtype` and return what it said.

    `f(dequantize(quantize(g(x))))  -->  f(g(x))` with g(x) annotated: conversion to integers restores the pair's effect on
    exactly these tensors. `dequantize(constant)` becomes a real constant that remembers its integers. Pairs of other types
    stay where they are.
    """
    notes = Annotations()
    for op in [o for o in graph.ops if o.name == "dequantize"]:
        held = op.inputs[0]
        if held.data is not None and held.quant is not None:
            graph.replace_uses(op.result, notes.add_constant(graph, IntegerConstant(held.data, held.quant), held.name))
            graph.erase(op)
    for op in [o for o in graph.ops if o.name == "quantize"]:
        quant = op.result.quant
        readers = op.result.users
        returned = any(op.result is o for o in graph.outputs)
        if quant is None or quant.axis is not None or op.result.dtype is not dtype or returned:
            continue
        if all(user.name == "dequantize" for user in readers):
            _annotate(graph, op, quant, notes)
    _absorb_constant_products(graph, notes)
    _spread(graph, notes.params)
    return notes


def _annotate(graph: Graph, op: Op, quant: QuantParams, notes: Annotations) -> None:
    """Drop one quantise with its dequantises and annotate the tensor between.

    A source that is also read unquantised, or with other scales, stays as it is; a reshape to its own shape carries the note.
    """
    source = op.inputs[0]
    output_names = any(source is o for o in graph.outputs)
    alone = len(source.users) == 1 and not output_names and id(source) not in notes.params
    if source.is_constant:
        alone = False
    carrier = source if alone else Builder.before(graph, op)("reshape", source, shape=source.shape, result=f"{source.name}.q")
    for user in list(op.result.users):
        graph.replace_uses(user.result, carrier)
        graph.erase(user)
    graph.erase(op)
    notes.params[id(carrier)] = quant


def _absorb_constant_products(graph: Graph, notes: Annotations) -> None:
    """The forms that weights take in QDQ files, on constants with integers.

    `transpose(c)  -->  c^T`; `matmul(x, c[K, N])  -->  linear(x, c^T)`; `linear(x, w) + c[N]  -->  linear(x, w, c)` where nobody
    else reads the product and it has no scale of its own. Equal, because the same products are summed.
    """
    for op in list(graph.ops):
        held = notes.constants.get(id(op.inputs[-1])) if op.inputs else None
        if held is None:
            continue
        build = Builder.before(graph, op)
        if op.name == "transpose":
            _replace(graph, op, notes.add_constant(graph, _transposed(held, op.attrs["perm"]), op.result.name), notes)
        elif op.name == "matmul" and held.data.ndim == 2:
            weights = notes.add_constant(graph, _transposed(held, (1, 0)), op.inputs[1].name)
            attrs = {k: v for k, v in op.attrs.items() if k == "clamp"}
            _replace(graph, op, build("linear", op.inputs[0], weights, result=op.result.name, **attrs), notes)
        elif op.name == "add" and held.data.ndim == 1:
            product = op.inputs[0].producer
            if product is None or product.name != "linear" or only_user(product.result, graph) is not op:
                continue
            annotated = id(product.result) in notes.params or "clamp" in product.attrs
            if annotated or len(product.inputs) != 2 or held.data.shape != product.result.shape[-1:]:
                continue
            attrs = {k: v for k, v in op.attrs.items() if k == "clamp"}
            made = build("linear", *product.inputs, op.inputs[1], result=op.result.name, **attrs)
            _replace(graph, op, made, notes)
            graph.erase(product)


def _transposed(held: IntegerConstant, perm: tuple[int, ...]) -> IntegerConstant:
    quant = held.quant
    axis = None if quant.axis is None else perm.index(quant.axis)
    return IntegerConstant(np.ascontiguousarray(held.data.transpose(perm)), QuantParams(quant.scale, quant.zero_point, axis))


def _replace(graph: Graph, op: Op, by: Value, notes: Annotations) -> None:
    """Let `by` take the place and the note of the result of `op`."""
    if id(op.result) in notes.params:
        notes.params[id(by)] = notes.params[id(op.result)]
        notes.values.append(by)
    graph.replace_uses(op.result, by)
    graph.erase(op)


def _spread(graph: Graph, params: dict[int, QuantParams]) -> None:
    """Give tensors without a note the scale of the tensor that they copy.

    `y = move(x)`: the elements of y are elements of x, so they lie on the same grid; and where only y is read, rounding x
    first gives the same y. The latter holds for relu and clamp too: rounding keeps order, so it commutes with cutting.
    """

    def moves(op: Op) -> bool:
        return Trait.MOVES_DATA in op_def(op.name).traits and op.name not in ("pad", "concat") and op.result.dtype.is_float

    for op in graph.ops:
        if moves(op) and id(op.inputs[0]) in params:
            params.setdefault(id(op.result), params[id(op.inputs[0])])
    for op in reversed(graph.ops):
        if (moves(op) or op.name in ("relu", "clamp")) and id(op.result) in params:
            source = op.inputs[0]
            if not source.is_constant and only_user(source, graph) is op:
                params.setdefault(id(source), params[id(op.result)])
