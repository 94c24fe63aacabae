# SPDX-License-Identifier: Apache-2.0
"""Row-wise computation needs no reshape around it."""

from __future__ import annotations

from gadl.compiler.ir.graph import Graph, Op
from gadl.compiler.ir.opdef import Trait, op_def
from gadl.compiler.ir.pattern import only_user


def remove_row_reshapes(graph: Graph) -> bool:
    """`reshape(f(reshape(x: [*S, K], [M, K])), [*S, N])  -->  f(x)` for f of linear layers and functions of one tensor.

    Such f maps every row (the last axis) by itself, and both reshapes keep the rows and their order, so rows may as well
    be counted by S. Exporters write these reshapes because ONNX's Gemm takes matrices only.
    """
    changed = False
    for outer in [o for o in graph.ops if o.name == "reshape"]:
        chain = _chain(graph, outer)
        if not chain:
            continue
        inner = chain[0].inputs[0].producer
        if inner is None or inner.name != "reshape":
            continue
        x, matrix = inner.inputs[0].shape, inner.result.shape
        last = chain[-1].result
        if x[-1:] != matrix[-1:] or not x or outer.result.shape != (*x[:-1], *last.shape[-1:]):
            continue
        chain[0].set_operand(0, inner.inputs[0])
        for op in chain:
            op.result.type = op.result.type.with_(shape=(*x[:-1], *op.result.shape[-1:]))
        graph.replace_uses(outer.result, last)
        last.name, outer.result.name = outer.result.name, last.name
        changed = True
    return bool(graph.remove_dead_ops()) or changed


def _chain(graph: Graph, outer: Op) -> list[Op]:
    """Row-wise ops that feed `outer`, each read by the next alone; in execution order."""
    chain: list[Op] = []
    reader = outer
    while True:
        op = reader.inputs[0].producer
        if op is None or only_user(op.result, graph) is not reader or not _is_row_wise(op):
            return chain[::-1]
        chain.append(op)
        reader = op


def _is_row_wise(op: Op) -> bool:
    if op.name == "linear":
        return op.operand(3) is None and op.inputs[1].is_constant
    return Trait.UNARY in op_def(op.name).traits
