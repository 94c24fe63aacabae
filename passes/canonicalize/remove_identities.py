# SPDX-License-Identifier: Apache-2.0
"""Ops that change nothing, and pairs that make one."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.pattern import producer, scalar, with_scalar


def remove_identities(graph: Graph) -> bool:
    """Each rule replaces a value by an equal one.

    `reshape(x: s, s) --> x`; `transpose(x, identity) --> x`; `cast(x: t, t) --> x`; `slice` of everything, `pad` by
    nothing, `expand` and `resize` to the same shape `--> x`; `concat(x) --> x`; `clamp` to all numbers `--> x`;
    `x * 1`, `x / 1`, `x + 0`, `x - 0 --> x` where the shape stays; `reshape(reshape(x)) --> reshape(x)`,
    `transpose(transpose(x, p), q) --> transpose(x, p[q])`; `relu(relu(x)) --> relu(x)`; a bias of zeros and a norm's
    scale of ones go; `avg_pool` without padding does not count it.
    """
    changed = _drop_neutral_operands(graph)
    for op in list(graph.ops):
        same = _equal_value(op)
        if same is not None and same.type.shape == op.result.type.shape and same.type.dtype is op.result.type.dtype:
            graph.replace_uses(op.result, same)
            changed = True
        else:
            changed |= _merge(op)
    return bool(graph.remove_dead_ops()) or changed


def _equal_value(op: Op) -> Value | None:
    """The operand that the op's result equals, or None."""
    x = op.inputs[0] if op.inputs else None
    match op.name:
        case "reshape" | "cast" | "expand":
            return x
        case "transpose":
            return x if op.attrs["perm"] == tuple(range(len(op.attrs["perm"]))) else None
        case "slice":
            return x if all(s == 0 for s in op.attrs["starts"]) and all(s == 1 for s in op.attrs["steps"]) else None
        case "pad":
            return x if not any(op.attrs["pads"]) else None
        case "clamp":
            return x if (op.attrs["lo"], op.attrs["hi"]) == (-math.inf, math.inf) else None
        case "resize":
            return x if all(s == 1 for s in op.attrs["scales"]) else None
        case "concat":
            return x if len(op.inputs) == 1 else None
        case "relu":
            return x if producer(x, "relu") else None
        case "mul" | "add" | "div" | "sub" if op.attrs.get("clamp") is None:
            found = with_scalar(op, op.name)
            neutral = 1.0 if op.name in ("mul", "div") else 0.0
            return found[0] if found is not None and found[1] == neutral else None
        case _:
            return None


#: Optional operands that do nothing when they are all this number: operand index and number, by op.
_NEUTRAL: dict[str, tuple[tuple[int, float], ...]] = {
    "conv": ((2, 0.0),),
    "conv_transpose": ((2, 0.0),),
    "linear": ((2, 0.0),),
    "layer_norm": ((1, 1.0), (2, 0.0)),
    "group_norm": ((1, 1.0), (2, 0.0)),
    "rms_norm": ((1, 1.0),),
}


def _drop_neutral_operands(graph: Graph) -> bool:
    """Remove constant scales of 1 and biases of 0 from float ops, and a count of padding where there is none."""
    changed = False
    for op in graph.ops:
        for index, number in _NEUTRAL.get(op.name, ()):
            value = op.operand(index)
            if value is not None and value.dtype.is_float and scalar(value) == number:
                op.set_operand(index, None)
                changed = True
        while op.operands and op.operands[-1] is None:
            op.operands.pop()
        if op.name == "avg_pool" and op.attrs["count_include_pad"] and not any(op.attrs["pads"]):
            op.attrs["count_include_pad"] = False
            changed = True
    return changed


def _merge(op: Op) -> bool:
    """Read through a producer of the same kind."""
    before = producer(op.inputs[0] if op.inputs else None, op.name)
    if before is None or op.name not in ("reshape", "transpose"):
        return False
    if op.name == "transpose":
        op.attrs["perm"] = tuple(before.attrs["perm"][axis] for axis in op.attrs["perm"])
    op.set_operand(0, before.inputs[0])
    return True
