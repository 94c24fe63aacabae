# SPDX-License-Identifier: Apache-2.0
"""Scales whose ratios a target can write: requantisations that only shrink, sums with small factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.ops.pooling import AvgPool
from gadl.compiler.ir.types import QuantParams

from .specs import QuantRules
from .sums import most_factors
from .tables import table_source
from .weights import WEIGHTED, weight_params

#: How far a scale is raised above the least one: more than its rounding to f32.
MARGIN = 1e-6
#: Raising one scale may make that of a reader too small. So many rounds reach a fixed point, unless scales chase each other.
ROUNDS = 8
#: The largest ratio that may be written as a requantisation which only shrinks.
MOST_RATIO = 1 / (1 + MARGIN / 4)
#: The scale of a value.
ScaleOf = Callable[[Value], float]


@dataclass
class SharedScales:
    """Parameters of groups of tensors, one scale each: `group` gives the group by `id(value)`."""

    group: Mapping[int, int]
    params: dict[int, QuantParams]

    def of(self, value: Value) -> float:
        """The scale of a value's group."""
        return self.params[self.group[id(value)]].scale[0]

    def set(self, value: Value, scale: float) -> None:
        """Another scale for the whole group of `value`, rounded to f32; a larger one represents what the old one did."""
        key = self.group[id(value)]
        self.params[key] = replace(self.params[key], scale=(float(np.float32(scale)),))

    def by_value(self) -> dict[int, QuantParams]:
        """The parameters of every value, by id."""
        return {key: self.params[group] for key, group in self.group.items()}


def least_scale(op: Op, scale_of: ScaleOf, rules: QuantRules, weights: QuantParams | None = None) -> float:
    """The result's scale that an integer op needs more than, so that every ratio has an encoding; 0 where any will do.

    `weights`: the parameters that the model brought for an op's weights.
    """
    if table_source(op) is not None and rules.tables:
        return 0.0
    match op.name:
        case "add" | "sub":
            if not rules.sum_bits:
                return 0.0
            limits = most_factors(rules.sum_bits, op.name == "sub")
            return max(scale_of(v) / limit for v, limit in zip(op.inputs, limits))
        case _ if not rules.only_shrinks:
            return 0.0
        case name if name in WEIGHTED:
            found = weights if weights is not None else weight_params(op, scale_of(op.inputs[0]), rules, op.inputs[1].data)
            return scale_of(op.inputs[0]) * float(found.scales.max())
        case "mul" | "matmul":
            return scale_of(op.inputs[0]) * scale_of(op.inputs[1])
        case "reduce_sum":
            return scale_of(op.inputs[0])
        case "reduce_mean":
            return scale_of(op.inputs[0]) * op.result.type.element_count / op.inputs[0].type.element_count
        case "avg_pool":
            return scale_of(op.inputs[0]) / float(AvgPool.counts(op).min())
        case _:
            return 0.0


def raise_scales(graph: Graph, scales: SharedScales, rules: QuantRules, verdict: Mapping[int, str]) -> None:
    """Raise scales of results until every ratio has an encoding, or `ROUNDS` are over."""
    for _ in range(ROUNDS):
        settled = True
        for op in graph.ops:
            least = 0.0 if verdict[id(op)] else least_scale(op, scales.of, rules)
            if least and scales.of(op.result) < least * (1 + MARGIN / 2):
                scales.set(op.result, least * (1 + MARGIN))
                settled = False
        if settled:
            return


def unencodable(
    graph: Graph, scale_of: ScaleOf, rules: QuantRules, verdict: Mapping[int, str], weights: Mapping[int, QuantParams] | None = None
) -> dict[int, str]:
    """The reason of every integer op whose ratio has no encoding, by id. `weights`: the model's own, by id of the constant."""
    known = {} if weights is None else weights
    found = {}
    for op in graph.ops:
        own = known.get(id(op.inputs[1])) if len(op.inputs) > 1 else None
        if not verdict[id(op)] and scale_of(op.result) < least_scale(op, scale_of, rules, own) / MOST_RATIO:
            found[id(op)] = "its scales' ratio has no encoding on this target"
    return found
