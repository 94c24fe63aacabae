# SPDX-License-Identifier: Apache-2.0
"""Softmax and normalisations written out in small ops become one op again."""

from __future__ import annotations

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.pattern import producer, scalar, split_operands, with_scalar
from gadl.compiler.ir.types import Array

from .rewrite import Composite, apply_rules


def _axes(op: Op | None) -> tuple[int, ...] | None:
    """The axes that a reduction keeps with extent 1, or None."""
    if op is None or not op.attrs["keepdims"]:
        return None
    return tuple(sorted(a % op.inputs[0].type.rank for a in op.attrs["axes"]))


def _trailing(axes: tuple[int, ...] | None, rank: int) -> int | None:
    """The (negative) first axis where the axes are all from there to the last, or None."""
    return -len(axes) if axes and axes == tuple(range(rank - len(axes), rank)) else None


def _softmax(op: Op) -> Composite | None:
    """`exp(x - max(x)) / sum(exp(x - max(x)))  -->  softmax(x)`, also without the shift.

    Numerator and denominator share the factor `exp(-max(x))`, so the quotient does not depend on the shift.
    """
    if op.name != "div":
        return None
    total, power = producer(op.inputs[1], "reduce_sum"), producer(op.inputs[0], "exp")
    axes = _axes(total)
    if total is None or power is None or axes is None or len(axes) != 1 or total.inputs[0] is not power.result:
        return None
    x = power.inputs[0]
    shifted = producer(x, "sub")
    peak = producer(shifted.inputs[1], "reduce_max") if shifted is not None else None
    if shifted is not None and peak is not None and peak.inputs[0] is shifted.inputs[0] and _axes(peak) == axes:
        x = shifted.inputs[0]
    return "softmax", [x], {"axis": axes[0] - x.type.rank}


def _root_of(op: Op) -> tuple[Value, Value] | None:
    """`(a, b)` for `a / sqrt(b)`, `a * rsqrt(b)` and `a * (1 / sqrt(b))`."""
    if op.name == "div":
        root = producer(op.inputs[1], "sqrt")
        return (op.inputs[0], root.inputs[0]) if root is not None else None
    if op.name != "mul":
        return None
    for a, factor in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
        inverse = producer(factor, "rsqrt", "reciprocal", "div")
        if inverse is None:
            continue
        if inverse.name == "rsqrt":
            return a, inverse.inputs[0]
        below = inverse.inputs[0]
        if inverse.name == "div":
            if inverse.inputs[0].data is None or not (inverse.inputs[0].data == 1).all():
                continue
            below = inverse.inputs[1]
        root = producer(below, "sqrt")
        if root is not None:
            return a, root.inputs[0]
    return None


def _mean_square(value: Value) -> tuple[Value, tuple[int, ...], float] | None:
    """`(x, axes, eps)` for `mean(x * x) + eps`."""
    shifted = with_scalar(producer(value, "add"), "add")
    mean = producer(shifted[0], "reduce_mean") if shifted is not None else None
    square = producer(mean.inputs[0], "mul") if mean is not None else None
    axes = _axes(mean)
    if shifted is None or square is None or axes is None or square.inputs[0] is not square.inputs[1]:
        return None
    return square.inputs[0], axes, shifted[1]


def _layer_norm(op: Op) -> Composite | None:
    """`(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)  -->  layer_norm(x)`: the definition."""
    found = _root_of(op)
    below = _mean_square(found[1]) if found is not None else None
    centred = producer(found[0], "sub") if found is not None else None
    if below is None or centred is None or below[0] is not centred.result:
        return None
    mean, x = producer(centred.inputs[1], "reduce_mean"), centred.inputs[0]
    axis = _trailing(below[1], x.type.rank)
    if axis is None or mean is None or mean.inputs[0] is not x or _axes(mean) != below[1]:
        return None
    return "layer_norm", [x, None, None], {"axis": axis, "epsilon": below[2]}


def _rms_norm(op: Op) -> Composite | None:
    """`x / sqrt(mean(x^2) + eps)  -->  rms_norm(x)`: the definition."""
    found = _root_of(op)
    below = _mean_square(found[1]) if found is not None else None
    axis = _trailing(below[1], below[0].type.rank) if below is not None else None
    if found is None or below is None or axis is None or below[0] is not found[0]:
        return None
    return "rms_norm", [found[0], None], {"axis": axis, "epsilon": below[2]}


def _affine(op: Op) -> Composite | None:
    """`norm(x) * g  -->  norm(x, g)` and `norm(x, g) + b  -->  norm(x, g, b)` for g, b of the normalised axes' shape.

    Both are the definition of the op's scale and bias.
    """
    if op.name not in ("mul", "add"):
        return None
    found = split_operands(op, lambda v: producer(v, "layer_norm", "rms_norm") is not None)
    norm = producer(found[0], "layer_norm", "rms_norm") if found is not None else None
    if norm is None or found is None or found[1].data is None or len(norm.result.users) != 1:
        return None
    position = 1 if op.name == "mul" else 2
    taken = any(norm.operand(i) is not None for i in range(position, 3))
    axis = norm.attrs["axis"] % norm.result.type.rank
    if taken or (norm.name == "rms_norm" and position == 2) or found[1].shape != norm.result.shape[axis:]:
        return None
    operands: list[Value | None] = [norm.inputs[0], norm.operand(1), None]
    operands[position] = found[1]
    return norm.name, operands[: 2 if norm.name == "rms_norm" else 3], dict(norm.attrs)


def _regroup(graph: Graph) -> bool:
    """`instance_norm(reshape(x, [N, G, -1]), 1, 0)  -->  reshape(group_norm(x, groups = G), [N, G, -1])`.

    A group's channels and pixels lie together, so its statistics are those of one channel of the folded tensor. Readers
    that reshape the result read the group norm itself.
    """
    changed = False
    for op in [o for o in graph.ops if o.name == "instance_norm"]:
        folded = producer(op.inputs[0], "reshape")
        plain = scalar(op.inputs[1]) == 1 and scalar(op.inputs[2]) == 0
        if folded is None or not plain or op.result.type.rank != 3 or folded.inputs[0].type.rank < 3:
            continue
        x, groups = folded.inputs[0], op.result.shape[1]
        if x.shape[0] != op.result.shape[0] or groups < 1 or x.shape[1] % groups:
            continue
        build = Builder.before(graph, op)
        norm = build("group_norm", x, groups=groups, epsilon=op.attrs["epsilon"], result=op.result.name)
        for user in [u for u in op.result.users if u.name == "reshape"]:
            user.set_operand(0, norm)
            if user.result.type.shape == norm.type.shape:
                graph.replace_uses(user.result, norm)
                norm.name, user.result.name = user.result.name, norm.name
        if op.result.users or any(op.result is o for o in graph.outputs):
            graph.replace_uses(op.result, build("reshape", norm, shape=op.result.shape))
        changed = True
    return bool(graph.remove_dead_ops()) or changed


def _group_affine(op: Op) -> Composite | None:
    """`group_norm(x) * g + b  -->  group_norm(x, g, b)` for g, b with one value per channel: the op's definition."""
    found = split_operands(op, lambda v: producer(v, "group_norm") is not None) if op.name in ("mul", "add") else None
    norm = producer(found[0], "group_norm") if found is not None else None
    if norm is None or found is None or found[1].data is None or len(norm.result.users) != 1:
        return None
    position, rank = 1 if op.name == "mul" else 2, norm.result.type.rank
    taken = any(norm.operand(i) is not None for i in range(position, 3))
    shape = (1,) * (rank - found[1].type.rank) + found[1].shape
    if taken or len(shape) != rank or shape != (1, norm.result.shape[1], *(1,) * (rank - 2)):
        return None
    operands: list[Value | Array | None] = [norm.inputs[0], norm.operand(1), None]
    operands[position] = found[1].data.reshape(-1)
    return "group_norm", operands, dict(norm.attrs)


def recognize_norms(graph: Graph) -> bool:
    """Replace every written-out softmax, layer_norm, rms_norm and group_norm; results agree within float rounding."""
    changed = _regroup(graph)
    return apply_rules(graph, (_softmax, _layer_norm, _rms_norm, _affine, _group_affine)) or changed
