# SPDX-License-Identifier: Apache-2.0
"""Constant folding."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import op_def

#: Folding never makes a constant larger than this many elements.
MOST_ELEMENTS = 1 << 24


def fold_constants(graph: Graph) -> bool:
    """`f(c1, c2)  -->  c`, where c is what the interpreter computes.

    Quantisation ops stay: their operands carry scales that passes still need.
    """
    changed = False
    for op in list(graph.ops):
        foldable = bool(op.inputs) and all(v.is_constant for v in op.inputs) and op.name not in ("quantize", "dequantize")
        if not foldable or any(r.type.element_count > MOST_ELEMENTS for r in op.results):
            continue
        with np.errstate(all="ignore"):
            arrays = op_def(op.name).evaluate(op, [None if v is None else v.data for v in op.operands])
        for value, data in zip(op.results, arrays):
            graph.replace_uses(value, graph.constant(data, value.name, value.quant))
        graph.erase(op)
        changed = True
    return changed
