# SPDX-License-Identifier: Apache-2.0
"""Pixels that no strided pointwise convolution reads are dropped once, in front of all of them."""

from __future__ import annotations

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder


def subsample_first(graph: Graph) -> bool:
    """`conv1x1(x, strides = s), conv1x1(x, strides = s)  -->  y = slice(x, steps = s), conv1x1(y), conv1x1(y)`.

    Exact: a 1x1 window in steps of s reads every s-th pixel only. Where all readers of x do so, a part of x is all that must
    lie in memory (the first block of a ResNet's stage).
    """
    changed = False
    for op in list(graph.ops):
        x = op.inputs[0] if op.name == "conv" else None
        steps = _steps(op)
        if x is None or steps is None or any(_steps(user) != steps or user.inputs[0] is not x for user in x.users):
            continue
        sizes = tuple(-(-extent // step) for extent, step in zip(x.shape[2:], steps))
        y = Builder.before(graph, op)("slice", x, starts=(0,) * x.type.rank, sizes=(*x.shape[:2], *sizes), steps=(1, 1, *steps))
        for user in list(x.users):
            if user is not y.producer:
                user.set_operand(0, y)
                user.attrs["strides"] = (1,) * len(steps)
        changed = True
    return changed


def _steps(op: Op) -> tuple[int, ...] | None:
    """The strides of a pointwise convolution that has some, and no padding; None for any other op."""
    if op.name != "conv":
        return None
    weights: Value = op.inputs[1]
    strides = tuple(op.attrs["strides"])
    plain = all(k == 1 for k in weights.shape[2:]) and not any(op.attrs["pads"])
    return strides if plain and any(s > 1 for s in strides) else None
