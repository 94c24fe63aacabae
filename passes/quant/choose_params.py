# SPDX-License-Identifier: Apache-2.0
"""Scale choice: which ops become integer, which tensors share a scale, and the scale of each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.types import DType, QuantParams

from .fit_means import fit_means
from .fit_sums import fit_sums
from .norms import OVER_LAST_AXIS, no_integer_form
from .observers import Range
from .ratios import SharedScales, raise_scales
from .specs import SHARED_SCALE, QuantRules, QuantSpec
from .tables import table_source
from .weights import WEIGHTED

#: A concat operand whose range is below this part of the result's keeps a scale of its own.
LEAST_SHARED_PART = 0.5
#: Probabilities may reach this many times what calibration saw.
PROBABILITY_MARGIN = 2.0
#: A range below this counts as constant zero. Its scale is arbitrary, but must leave a multiplier that has an encoding.
LEAST_RANGE = 1e-9


def params_of_range(found: Range, spec: QuantSpec) -> QuantParams:
    """Scale and zero point that represent a range."""
    low, high = spec.dtype.range
    if spec.symmetric:
        return QuantParams((float(np.float32(_extent(max(-found.low, found.high)) / high)),), 0)
    scale = float(np.float32(_extent(found.high - found.low) / (high - low)))
    zero = int(np.clip(np.rint(low - found.low / scale), low, high))
    return QuantParams((scale,), zero)


def _width(found: Range, spec: QuantSpec) -> float:
    """What the integers of a type must span to hold a range."""
    return 2 * max(-found.low, found.high) if spec.symmetric else found.high - found.low


def _extent(size: float) -> float:
    return size if size >= LEAST_RANGE else 1.0


class _Groups:
    """Union-find over values."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def root(self, key: int) -> int:
        while self._parent.setdefault(key, key) != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, a: int, b: int) -> None:
        self._parent[self.root(a)] = self.root(b)


def integer_ops(graph: Graph, rules: QuantRules, follow: bool = True) -> dict[int, str]:
    """Reason per op (by id) why it stays float; ops that become integer have the empty string.

    Cheap ops follow their operands: they become integer only behind an integer op or a graph input, since converting
    twice costs more than the op. Without `follow` they do not (the model says itself which tensors are integers).
    """
    verdict: dict[int, str] = {}
    inputs, outputs = ({id(v) for v in values} for values in (graph.inputs, graph.outputs))
    for op in graph.ops:
        heavy = op.name in (*WEIGHTED, "matmul")
        sources = [v for v in op.inputs if not v.is_constant]
        behind = not follow or any(
            id(v) in inputs if v.producer is None else not verdict[id(v.producer)] for v in sources if v.dtype.is_float
        )
        if not op.result.dtype.is_float:
            verdict[id(op)] = "works on integers or truth values already"
        elif table_source(op) is not None and rules.tables:
            verdict[id(op)] = "" if behind else "its operand is a float tensor"
        elif op.name not in rules.integer_ops:
            verdict[id(op)] = f"'{op.name}' has no integer form on this target"
        elif heavy and op.name != "matmul" and not op.inputs[1].is_constant:
            verdict[id(op)] = "its weights are not constant"
        elif op.name == "pad" and (op.attrs["mode"] != "constant" or op.attrs["value"] != 0):
            verdict[id(op)] = "only padding with zeros has an integer form"
        elif op.name == "resize" and op.attrs["mode"] == "cubic":
            verdict[id(op)] = "cubic interpolation has no integer form"
        elif op.name == "softmax" and id(op.result) in outputs:
            verdict[id(op)] = "the model returns its probabilities, for which 8 bits are few"
        elif op.name in OVER_LAST_AXIS and no_integer_form(op):
            verdict[id(op)] = no_integer_form(op)
        elif op.name in SHARED_SCALE and any(v.is_constant and v.dtype.is_float for v in op.inputs):
            verdict[id(op)] = "a constant operand would have to share the scale"
        else:
            verdict[id(op)] = "" if heavy or behind else "its operands are float tensors"
    return verdict


def scale_groups(
    graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str]
) -> tuple[dict[str, Range], dict[int, int]]:
    """Ranges by name, cut to what is known of them, and the group of every real tensor that has one scale with others, by `id`.

    `GADL-Q003` where a tensor has no range.
    """
    groups, found = _Groups(), dict(ranges)
    values = [v for v in graph.values() if v.dtype.is_float and not v.is_constant]
    absent = [v.name for v in values if v.name not in found]
    if absent:
        raise GadlError.of("GADL-Q003", count=len(absent), names=absent[:8])
    for op in graph.ops:
        if op.name in rules.fixed_ranges and id(op) in verdict:
            limits = Range.of(*rules.fixed_ranges[op.name])
            if op.name == "softmax" and op.result.name in found:
                # Probabilities of long rows are small, and one step of 1/255 would hold all of them.
                limits = Range.of(0.0, min(limits.high, PROBABILITY_MARGIN * found[op.result.name].high))
            found[op.result.name] = limits
        bounds = op.attrs.get("clamp")
        if bounds is not None and op.result.name in found:
            known = found[op.result.name]
            found[op.result.name] = Range.of(max(known.low, bounds[0]), min(known.high, bounds[1]))
        shares = op.name in SHARED_SCALE or op.name == "resize"
        if verdict[id(op)] or not shares or table_source(op) is not None:
            continue
        width = _width(found[op.result.name], rules.activations)
        for value in op.inputs:
            if value.is_constant or not value.dtype.is_float:
                continue
            if op.name != "concat" or _width(found[value.name], rules.activations) >= LEAST_SHARED_PART * width:
                groups.join(id(value), id(op.result))
    return found, {id(v): groups.root(id(v)) for v in graph.values() if v.dtype.is_float}


def choose_params(
    graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str]
) -> dict[int, QuantParams]:
    """Scale and zero point of every real tensor, by `id(value)`; `GADL-Q003` where one has no range.

    Where the target cannot write every ratio of scales, scales are larger than their ranges ask, and constants have one too.
    """
    found, root_of = scale_groups(graph, ranges, rules, verdict)
    values = [v for v in graph.values() if v.dtype.is_float and not v.is_constant]
    # Constants have a range of their own, unless one was chosen for them.
    fits = rules.only_shrinks or rules.sum_bits > 0
    constants = [v for v in graph.values() if v.is_constant and v.dtype.is_float and (fits or v.name in ranges)]
    found |= {v.name: range_of_constant(v) for v in constants if v.name not in found}
    values += constants
    merged: dict[int, Range] = {}
    for value in values:
        root = root_of[id(value)]
        merged[root] = merged[root].union(found[value.name]) if root in merged else found[value.name]
    offset = replace(rules.activations, symmetric=False)
    plain = _without_offset(graph, values, root_of, rules, verdict)
    chosen = {
        root: params_of_range(whole, rules.activations if root in plain else offset) for root, whole in merged.items()
    }
    scales = SharedScales({id(v): root_of[id(v)] for v in values}, chosen)
    if fits:
        raise_scales(graph, scales, rules, verdict)
        if rules.sum_bits:
            fit_sums(graph, scales, rules, verdict)
            raise_scales(graph, scales, rules, verdict)
        if rules.mean_bits:
            fit_means(graph, scales, rules, verdict)
            raise_scales(graph, scales, rules, verdict)
    return scales.by_value()


def _without_offset(
    graph: Graph, values: Sequence[Value], groups: Mapping[int, int], rules: QuantRules, verdict: Mapping[int, str]
) -> set[int]:
    """The groups that must have the zero point of the rules: all, or those with an op that knows no other.

    Inputs and outputs have it too: whoever runs the model knows one scale.
    """
    if not rules.offset_operands:
        return {groups[id(v)] for v in values}

    def free(op: Op | None, among: frozenset[str]) -> bool:
        shares = op is not None and (op.name in SHARED_SCALE or op.name == "resize" or op.name in among)
        return op is None or bool(verdict[id(op)]) or shares or (table_source(op) is not None and rules.tables)

    bound = {groups[id(v)] for v in (*graph.inputs, *graph.outputs)}
    for value in values:
        if value.is_constant or not free(value.producer, frozenset()) or not all(free(u, rules.offset_operands) for u in value.users):
            bound.add(groups[id(value)])
    return bound


def range_of_constant(value: Value) -> Range:
    """The range of a constant's finite elements."""
    if value.data is None:
        raise ValueError(f"'{value.name}' is not constant")
    finite = value.data[np.isfinite(value.data)]
    return Range.of(finite.min(initial=0.0), finite.max(initial=0.0))


def activation_type(rules: QuantRules) -> DType:
    """Element type of quantised activations."""
    return rules.activations.dtype
