# SPDX-License-Identifier: Apache-2.0
"""Activations written out in small ops become one op again."""

from __future__ import annotations

import math

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.pattern import producer, scalar, split_operands, with_scalar

from .rewrite import Composite, apply_rules, near


def _hard_sigmoid_of(value: Value) -> tuple[Value, float] | None:
    """`(x, 6 * scale)` for `clip(x + 3, 0, 6) * scale` or `hard_sigmoid(x, 1/6, 1/2)`."""
    op = value.producer
    scale = 1.0
    scaled = with_scalar(op, "mul")
    if scaled is not None:
        op, scale = scaled[0].producer, scaled[1]
    if op is None:
        return None
    if op.name == "hard_sigmoid" and near(op.attrs["alpha"], 1 / 6) and near(op.attrs["beta"], 0.5):
        return op.inputs[0], scale
    bounds = _clamp_bounds(op)
    if bounds is None or not (near(bounds[1], 0) and near(bounds[2], 6)):
        return None
    shifted = with_scalar(producer(bounds[0], "add"), "add")
    return (shifted[0], 6 * scale) if shifted is not None and near(shifted[1], 3) else None


def _limit(op: Op | None) -> tuple[Value, float, float] | None:
    """`(x, lo, hi)` of one clamp, relu, or min or max with a number."""
    if op is None or op.attrs.get("clamp") is not None:
        return None
    if op.name in ("clamp", "relu"):
        return op.inputs[0], op.attrs.get("lo", 0.0), op.attrs.get("hi", math.inf)
    for name in ("min", "max"):
        found = with_scalar(op, name)
        if found is not None and not math.isnan(found[1]):
            return (found[0], -math.inf, found[1]) if name == "min" else (found[0], found[1], math.inf)
    return None


def _clamp_bounds(op: Op) -> tuple[Value, float, float] | None:
    """`(x, lo, hi)` of a chain of limits. Limiting to [a, b] and then to [c, d] is limiting to their intersection.

    Disjoint intervals end the chain: the outer one alone decides there.
    """
    chain = _limit(op)
    while chain is not None:
        below = _limit(chain[0].producer)
        if below is None or max(chain[1], below[1]) > min(chain[2], below[2]):
            break
        chain = below[0], max(chain[1], below[1]), min(chain[2], below[2])
    return chain


def _clamp(op: Op) -> Composite | None:
    """`min(max(x, lo), hi)`, `clamp(clamp(x))` and their kin `-->  clamp(x)`; `clamp(x, 0, inf)  -->  relu(x)`."""
    bounds = _clamp_bounds(op)
    if bounds is None:
        return None
    x, low, high = bounds
    name = "relu" if (low, high) == (0.0, math.inf) else "clamp"
    if x is op.inputs[0] and op.name == name:
        return None
    return (name, [x], {}) if name == "relu" else (name, [x], {"lo": low, "hi": high})


def _hard_sigmoid(op: Op) -> Composite | None:
    """`clip(x + 3, 0, 6) / 6  -->  hard_sigmoid(x, 1/6, 1/2)`."""
    if with_scalar(op, "mul") is None:
        return None
    found = _hard_sigmoid_of(op.result)
    inner = with_scalar(op, "mul")
    if found is None or inner is None or producer(inner[0], "hard_sigmoid") or not near(found[1], 1):
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
        if found is not None and found[0] is x and near(found[1] * outer, 1):
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
    """`max(x, x * a)  -->  leaky_relu(x, a)` for 0 <= a <= 1: then x * a is the larger one exactly where x < 0."""
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
    if len(factors) != 2 or not near(half, 0.5):
        return None
    for x, gate in ((factors[0], factors[1]), (factors[1], factors[0])):
        shifted = with_scalar(producer(gate, "add"), "add")
        if shifted is None or not near(shifted[1], 1):
            continue
        erf, tanh = producer(shifted[0], "erf"), producer(shifted[0], "tanh")
        if erf is not None:
            inner = with_scalar(producer(erf.inputs[0], "mul"), "mul")
            if inner is not None and inner[0] is x and near(inner[1], math.sqrt(0.5)):
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
    inner = producer(outer[0], "add") if outer is not None and near(outer[1], math.sqrt(2 / math.pi)) else None
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
    return cube and near(number, 0.044715)


def recognize_composites(graph: Graph) -> bool:
    """Replace every activation that is written out; results agree within float rounding."""
    rules = (_clamp, _hard_swish, _hard_sigmoid, _silu, _mish, _leaky_relu, _gelu)
    return apply_rules(graph, rules)
