# SPDX-License-Identifier: Apache-2.0
"""Models that bring their own scales: quantise/dequantise pairs become annotations of the tensors between."""

from __future__ import annotations

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.ops.quant import dequantize_array
from gadl.compiler.ir.types import QuantParams

from .convert import IntegerConstant


def read_annotations(graph: Graph) -> tuple[dict[int, QuantParams], dict[int, IntegerConstant]]:
    """Remove every pair and return what it said: scales by `id(value)`, integers of constants by `id(value)`.

    `f(dequantize(quantize(g(x))))  -->  f(g(x))` with g(x) annotated: conversion to integers restores the pair's effect on
    exactly these tensors. `dequantize(constant)` becomes a real constant that remembers its integers.
    """
    params: dict[int, QuantParams] = {}
    constants: dict[int, IntegerConstant] = {}
    for op in [o for o in graph.ops if o.name == "dequantize"]:
        held = op.inputs[0]
        if held.data is not None and held.quant is not None:
            real = graph.constant(dequantize_array(held.data, held.quant), held.name)
            constants[id(real)] = IntegerConstant(held.data, held.quant)
            graph.replace_uses(op.result, real)
            graph.erase(op)
    for op in [o for o in graph.ops if o.name == "quantize"]:
        source, quant = op.inputs[0], op.result.quant
        if quant is None or quant.axis is not None:
            continue
        for user in list(op.result.users):
            if user.name == "dequantize":
                graph.replace_uses(user.result, source)
                graph.erase(user)
        if not op.result.users and not any(op.result is o for o in graph.outputs):
            graph.erase(op)
            params[id(source)] = quant
    return params, constants
