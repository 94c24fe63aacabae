# SPDX-License-Identifier: Apache-2.0
"""Activation and residual fusion: what a device does while it drains its accumulators."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import op_def
from gadl.compiler.ir.pattern import only_user, producer


def _bounds(op: Op) -> tuple[float, float] | None:
    if op.name == "relu":
        return 0.0, math.inf
    return (op.attrs["lo"], op.attrs["hi"]) if op.name == "clamp" else None


def fuse_activation(graph: Graph) -> bool:
    """`clamp(f(x), lo, hi)  -->  f(x){clamp = (lo, hi)}` for ops f with that attribute; two clamps intersect.

    The attribute means just that: limit the result. `relu` is `clamp(0, inf)`.
    """
    changed = False
    for op in list(graph.ops):
        bounds = _bounds(op)
        before = op.inputs[0].producer if bounds is not None else None
        if bounds is None or before is None or only_user(before.result, graph) is not op:
            continue
        if not before.result.dtype.is_float or not any(a.name == "clamp" for a in op_def(before.name).attrs):
            continue
        low, high = before.attrs.get("clamp", (-math.inf, math.inf))
        merged = (max(low, bounds[0]), min(high, bounds[1]))
        if merged[0] > merged[1]:
            continue
        before.attrs["clamp"] = merged
        before.attrs = op_def(before.name).complete(before.attrs)
        graph.replace_uses(op.result, before.result)
        before.result.name, op.result.name = op.result.name, before.result.name
        graph.erase(op)
        changed = True
    return changed


def fuse_residual(graph: Graph) -> bool:
    """`conv(x, w, b) + r  -->  conv(x, w, b, r)` (also `linear`), where only the sum reads the convolution.

    The residual operand is added to the result before the clamp: the definition. The convolution moves to the place of
    the sum, where r is already computed; nothing between can read it.
    """
    changed = False
    for op in list(graph.ops):
        if op.name != "add" or op.inputs[0].type.shape != op.inputs[1].type.shape:
            continue
        chosen = _later_product(graph, op)
        if chosen is None:
            continue
        conv, residual = chosen
        conv.set_operand(3, residual)
        if "clamp" in op.attrs:
            conv.attrs["clamp"] = op.attrs["clamp"]
        graph.ops.remove(conv)
        graph.ops.insert(graph.ops.index(op), conv)
        graph.replace_uses(op.result, conv.result)
        conv.result.name, op.result.name = op.result.name, conv.result.name
        graph.erase(op)
        changed = True
    return changed


def _later_product(graph: Graph, op: Op) -> tuple[Op, Value] | None:
    """The operand's producer that can take the other operand as residual; the later one when both can."""
    position = {id(o): i for i, o in enumerate(graph.ops)}
    found = []
    for value, other in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
        conv = producer(value, "conv", "linear")
        free = conv is not None and conv.operand(3) is None and "clamp" not in conv.attrs
        if conv is not None and free and value is not other and only_user(value, graph) is op:
            if not other.is_constant and conv.inputs[1].is_constant:
                found.append((position[id(conv)], conv, other))
    if not found:
        return None
    _, conv, other = max(found, key=lambda f: f[0])
    return conv, other
