# SPDX-License-Identifier: Apache-2.0
"""One form for each product and power: linear for constant weights, mul for squares and constant divisors."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.pattern import with_scalar


def normalize_products(graph: Graph) -> bool:
    """Each rule is an identity of real numbers, exact in floating point except for the last.

    `matmul(x, c[K, N])  -->  linear(x, c^T)`; `pow(x, 2)  -->  mul(x, x)`; `pow(x, 0.5)  -->  sqrt(x)`; `x - c  -->  x + (-c)`;
    `x / c  -->  x * (1 / c)` for a scalar c (one rounding more, unless c is a power of two).
    """
    changed = False
    for op in list(graph.ops):
        build = Builder.before(graph, op)
        made = None
        power = with_scalar(op, "pow")
        quotient = with_scalar(op, "div")
        difference = with_scalar(op, "sub")
        if op.name == "matmul" and op.inputs[1].data is not None and op.inputs[1].type.rank == 2 and "requant" not in op.attrs:
            made = build("linear", op.inputs[0], graph.constant(op.inputs[1].data.T, op.inputs[1].name))
        elif power is not None and power[1] == 2:
            made = build("mul", power[0], power[0])
        elif power is not None and power[1] == 0.5:
            made = build("sqrt", power[0])
        elif quotient is not None and op.result.dtype.is_float and quotient[1] != 0:
            inverse = np.asarray(1 / np.float64(quotient[1]), op.result.dtype.numpy)
            made = build("mul", quotient[0], graph.constant(inverse, "inverse"))
        elif difference is not None and op.result.dtype.is_float:
            negated = np.asarray(-difference[1], op.result.dtype.numpy)
            made = build("add", difference[0], graph.constant(negated, "negated"))
        if made is not None and made.type.shape == op.result.type.shape:
            for key, value in op.attrs.items():
                if made.producer is not None and key == "clamp":
                    made.producer.attrs[key] = value
            made.name, op.result.name = op.result.name, made.name
            graph.replace_uses(op.result, made)
            graph.erase(op)
            changed = True
        elif made is not None and made.producer is not None:
            graph.erase(made.producer)
    return changed
