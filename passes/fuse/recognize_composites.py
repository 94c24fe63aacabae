# SPDX-License-Identifier: Apache-2.0
"""Composites written out in small ops become one op again."""

from __future__ import annotations

import math
from collections.abc import Callable

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.pattern import producer, scalar, split_operands, with_scalar

#: A composite: op name, operands and attributes.
Composite = tuple[str, list[Value | None], dict[str, object]]


def _near(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, rel_tol=1e-4, abs_tol=1e-6)


def _hard_sigmoid_of(value: Value) -> tuple[Value, float] | None:
    """`(x, 6 * scale)` for `clip(x + 3, 0, 6) * scale` or `hard_sigmoid(x, 1/6, 1/2)`."""
    op = value.producer
    scale = 1.0
    scaled = with_scalar(op, "mul")
    if scaled is not None:
        op, scale = scaled[0].producer, scaled[1]
    if op is None:
        return None
    if op.name == "hard_sigmoid" and _near(op.attrs["alpha"], 1 / 6) and _near(op.attrs["beta"], 0.5):
        return op.inputs[0], scale
    bounds = _clamp_bounds(op)
    if bounds is None or not (_near(bounds[1], 0) and _near(bounds[2], 6)):
        return None
    shifted = with_scalar(producer(bounds[0], "add"), "add")
    return (shifted[0], 6 * scale) if shifted is not None and _near(shifted[1], 3) else None


def _clamp_bounds(op: Op) -> tuple[Value, float, float] | None:
    """`(x, lo, hi)` of a clamp, also when written as min and max."""
    if op.name == "clamp":
        return op.inputs[0], op.attrs["lo"], op.attrs["hi"]
    for outer, inner in (("min", "max"), ("max", "min")):
        first = with_scalar(op, outer)
        if first is None:
            continue
        below = first[0].producer
        second = with_scalar(below, inner)
        if second is None and below is not None and below.name == "relu" and inner == "max":
            second = (below.inputs[0], 0.0)
        if second is not None:
            low, high = (second[1], first[1]) if outer == "min" else (first[1], second[1])
            return (second[0], low, high) if low <= high else None
    return None


def _clamp(op: Op) -> Composite | None:
    """`min(max(x, lo), hi)  -->  clamp(x)`."""
    bounds = None if op.name == "clamp" else _clamp_bounds(op)
    return None if bounds is None else ("clamp", [bounds[0]], {"lo": bounds[1], "hi": bounds[2]})


def _hard_sigmoid(op: Op) -> Composite | None:
    """`clip(x + 3, 0, 6) / 6  -->  hard_sigmoid(x, 1/6, 1/2)`."""
    if with_scalar(op, "mul") is None:
        return None
    found = _hard_sigmoid_of(op.result)
    inner = with_scalar(op, "mul")
    if found is None or inner is None or producer(inner[0], "hard_sigmoid") or not _near(found[1], 1):
        return None
    return "hard_sigmoid", [found[0]], {"alpha": 1 / 6, "beta": 0.5}


def _hard_swish(op: Op) -> Composite | None:
    """`x * clip(x + 3, 0, 6) / 6  -->  hard_swish(x)`, the division before or after the product."""
    scaled, outer = with_scalar(op, "mul"), 1.0
    target: Op | None = op
    if scaled is not None:
        target, outer = scaled[0].producer, scaled[1]
    if target is None or target.name != "mul" or scalar(target.inputs[0]) is not None:
        return None
    for x, gate in ((target.inputs[0], target.inputs[1]), (target.inputs[1], target.inputs[0])):
        found = _hard_sigmoid_of(gate)
        if found is not None and found[0] is x and _near(found[1] * outer, 1):
            return "hard_swish", [x], {}
    return None


def _silu(op: Op) -> Composite | None:
    """`x * sigmoid(x)  -->  silu(x)`."""
    if op.name != "mul":
        return None
    found = split_operands(op, lambda v: producer(v, "sigmoid") is not None)
    gate = producer(found[0], "sigmoid") if found else None
    return ("silu", [gate.inputs[0]], {}) if gate is not None and found is not None and gate.inputs[0] is found[1] else None


def _mish(op: Op) -> Composite | None:
    """`x * tanh(softplus(x))  -->  mish(x)`."""
    if op.name != "mul":
        return None
    for gate, x in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
        tanh = producer(gate, "tanh")
        plus = producer(tanh.inputs[0], "softplus") if tanh else None
        if plus is not None and plus.inputs[0] is x:
            return "mish", [x], {}
    return None


def _leaky_relu(op: Op) -> Composite | None:
    """`max(x, x * a)  -->  leaky_relu(x, a)` for 0 <= a <= 1."""
    if op.name != "max":
        return None
    for x, scaled in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
        found = with_scalar(producer(scaled, "mul"), "mul")
        if found is not None and found[0] is x and 0 <= found[1] <= 1:
            return "leaky_relu", [x], {"alpha": found[1]}
    return None


def _gelu(op: Op) -> Composite | None:
    """`x * (1 + erf(x / sqrt 2)) / 2` and the tanh form `-->  gelu(x)`; the half may stand at any factor."""
    factors, half = _factors(op)
    if len(factors) != 2 or not _near(half, 0.5):
        return None
    for x, gate in ((factors[0], factors[1]), (factors[1], factors[0])):
        shifted = with_scalar(producer(gate, "add"), "add")
        if shifted is None or not _near(shifted[1], 1):
            continue
        erf, tanh = producer(shifted[0], "erf"), producer(shifted[0], "tanh")
        if erf is not None:
            inner = with_scalar(producer(erf.inputs[0], "mul"), "mul")
            if inner is not None and inner[0] is x and _near(inner[1], math.sqrt(0.5)):
                return "gelu", [x], {"approximate": "none"}
        if tanh is not None and _tanh_argument(tanh.inputs[0], x):
            return "gelu", [x], {"approximate": "tanh"}
    return None


def _factors(op: Op) -> tuple[list[Value], float]:
    """The non-constant factors of a tree of products (at most three deep) and the product of its constants."""
    if op.name != "mul":
        return [], 1.0
    values, number = [op.result], 1.0
    for _ in range(3):
        expanded: list[Value] = []
        for value in values:
            product = producer(value, "mul")
            if product is None or (value is not op.result and len(value.users) != 1):
                expanded.append(value)
                continue
            for factor in product.inputs:
                constant = scalar(factor)
                if constant is None:
                    expanded.append(factor)
                else:
                    number *= constant
        if expanded == values:
            break
        values = expanded
    return values, number


def _tanh_argument(value: Value, x: Value) -> bool:
    """True for `sqrt(2 / pi) * (x + 0.044715 * x^3)`."""
    outer = with_scalar(producer(value, "mul"), "mul")
    inner = producer(outer[0], "add") if outer is not None and _near(outer[1], math.sqrt(2 / math.pi)) else None
    if inner is None:
        return False
    found = split_operands(inner, lambda v: v is x)
    cubic = found[1].producer if found is not None else None
    if cubic is None:
        return False
    factors, number = _factors(cubic)
    if len(factors) == 2 and any(f.producer is not None and f.producer.name == "pow" for f in factors):
        return False
    power = with_scalar(producer(factors[0], "pow"), "pow") if len(factors) == 1 else None
    cube = (len(factors) == 3 and all(f is x for f in factors)) or (power is not None and power == (x, 3.0))
    return cube and _near(number, 0.044715)


def _layer_norm(op: Op) -> Composite | None:
    """`(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)  -->  layer_norm(x)` over the last axis."""
    if op.name != "div":
        return None
    root, centred = producer(op.inputs[1], "sqrt"), producer(op.inputs[0], "sub")
    shifted = with_scalar(producer(root.inputs[0], "add"), "add") if root is not None else None
    variance = producer(shifted[0], "reduce_mean") if shifted is not None else None
    square = producer(variance.inputs[0], "mul") if variance is not None else None
    if centred is None or variance is None or square is None or shifted is None:
        return None
    mean = producer(centred.inputs[1], "reduce_mean")
    x = centred.inputs[0]
    last = (x.type.rank - 1,)
    matches = mean is not None and mean.inputs[0] is x and square.inputs == [centred.result, centred.result]
    if not matches or mean is None or mean.attrs["axes"] != last or variance.attrs["axes"] != last:
        return None
    return "layer_norm", [x, None, None], {"axis": -1, "epsilon": shifted[1]}


def _layer_norm_affine(op: Op) -> Composite | None:
    """`layer_norm(x) * g + b  -->  layer_norm(x, g, b)` for vectors g, b of the last axis."""
    position = {"mul": 1, "add": 2}.get(op.name)
    if position is None:
        return None
    found = split_operands(op, lambda v: producer(v, "layer_norm") is not None)
    norm = producer(found[0], "layer_norm") if found is not None else None
    if norm is None or found is None or found[1].data is None or len(norm.result.users) != 1:
        return None
    if norm.operand(2) is not None or (position == 1 and norm.operand(1) is not None) or norm.attrs["axis"] != -1:
        return None
    if found[1].shape != norm.result.shape[-1:]:
        return None
    operands: list[Value | None] = [norm.inputs[0], norm.operand(1), None]
    operands[position] = found[1]
    return "layer_norm", operands, dict(norm.attrs)


_RULES: tuple[Callable[[Op], Composite | None], ...] = (
    _clamp, _hard_swish, _hard_sigmoid, _silu, _mish, _leaky_relu, _gelu, _layer_norm, _layer_norm_affine,
)  # fmt: skip


def recognize_composites(graph: Graph) -> bool:
    """Replace every written-out composite. Each rule's docstring states the identity; results agree within float rounding."""
    changed = False
    for op in list(graph.ops):
        for rule in _RULES:
            found = rule(op) if op.attrs.get("clamp") is None else None
            if found is None:
                continue
            name, operands, attrs = found
            made = Builder.before(graph, op).create(name, operands, dict(attrs)).result
            if made.type.shape != op.result.type.shape:
                graph.erase(made.producer)  # type: ignore[arg-type]
                continue
            made.name, op.result.name = op.result.name, made.name
            graph.replace_uses(op.result, made)
            changed = True
            break
    return bool(graph.remove_dead_ops()) or changed
