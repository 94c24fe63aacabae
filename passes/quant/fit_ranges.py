# SPDX-License-Identifier: Apache-2.0
"""Ranges of activations that cost the model's outputs least.

A range trades two errors: what lies outside is cut, and what lies inside is rounded to its steps. Both are weighed by what they do to the
outputs, to first order: with derivatives `g` of random sums of the outputs (Hutchinson's estimator), a change `d` of a tensor changes them
by `(g . d)^2` in the mean. Rounding errors are independent of each other, `step^2 / 12` each; elements that are zero have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret, run_graph
from gadl.compiler.ir.opdef import op_def
from gadl.compiler.ir.ops.quant import dequantize_array, quantize_array
from gadl.compiler.ir.types import Array, QuantParams

from .adjoint import derivatives
from .choose_params import choose_params, scale_groups
from .measure import sqnr_db
from .observers import Range
from .specs import SHARED_SCALE, QuantRules
from .tables import table_source

#: Ends of ranges that are tried, as parts of the extremes.
PARTS = 0.9 ** np.arange(22)
#: Random sums of the outputs for each sample.
PROBES = 2
#: Elements of tensors that are looked at in all, and the fewest and most samples.
MOST_ELEMENTS, FEWEST, MOST = 128 << 20, 4, 16
#: How much of the error must go for a range to change.
WORTH = 0.98
#: How much more than to first order a cut is taken to cost; which of them is right for a model is measured, on so many samples.
CAUTIONS, MEASURED = (1.0, 8.0, 64.0), 4


@dataclass
class Probe:
    """What a scale group does to one random sum: for each tensor the products with what a low and a high end cut, and rounding by steps of 1."""

    cut: list[tuple[Array, Array]] = field(default_factory=list)
    rounding: float = 0.0


@dataclass
class Cost:
    """What a scale group costs the outputs, probe by probe, for every end that is tried."""

    whole: Range
    probes: list[Probe] = field(default_factory=list)

    def table(self, rules: QuantRules, weights: Array, caution: float = 1.0) -> Array:
        """Expected squared relative errors of the outputs for each low end and each high end, as a weighted sum of probes; f64[PARTS, PARTS].

        A cut costs `caution` times what it does to first order.
        """
        ends = -self.whole.low * PARTS[:, None], self.whole.high * PARTS[None, :]
        kind = rules.activations
        span = 2 * np.maximum(*ends) if kind.symmetric else ends[0] + ends[1]
        steps = kind.dtype.range[1] - kind.dtype.range[0]
        total = np.square(span / steps) / 12 * float(weights @ [probe.rounding for probe in self.probes])
        for weight, probe in zip(weights, self.probes, strict=True):
            for low, high in probe.cut:
                total = total + caution * weight * np.square(low[:, None] + high[None, :])
        return np.asarray(total)


def samples_for(graph: Graph) -> int:
    """How many samples are worth their time."""
    elements = sum(v.type.element_count for v in graph.values() if not v.is_constant)
    return int(np.clip(MOST_ELEMENTS // max(1, elements), FEWEST, MOST))


def output_costs(
    graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str], feeds: Iterable[Mapping[str, Array]]
) -> dict[int, tuple[Cost, list[Value]]]:
    """The cost of every scale group by its number, and the tensors in it. Outputs of the model are left out."""
    found, root = scale_groups(graph, ranges, rules, verdict)
    members: dict[int, list[Value]] = {}
    for value in graph.values():
        if value.dtype.is_float and not value.is_constant:
            members.setdefault(root[id(value)], []).append(value)
    returned = {id(v) for v in graph.outputs}
    costs: dict[int, tuple[Cost, list[Value]]] = {}
    for number, values in members.items():
        whole = found[values[0].name]
        for value in values[1:]:
            whole = whole.union(found[value.name])
        if whole.high > whole.low and not any(id(v) in returned for v in values):
            costs[number] = Cost(whole), values
    for sample, feed in enumerate(feeds):
        rng = np.random.default_rng(sample)
        values_of = run_graph(graph, feed)
        for _ in range(PROBES):
            for cost, _ in costs.values():
                cost.probes.append(Probe())
            for value, grad in derivatives(graph, values_of, _seeds(graph, values_of, rng)):
                if root.get(id(value)) in costs and _rounds(value, root, verdict):
                    _add(costs[root[id(value)]][0], values_of[id(value)], grad)
    return costs


def fit_ranges(
    graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str], feeds: Sequence[Mapping[str, Array]]
) -> tuple[dict[str, Range], float]:
    """The ranges, those of costly tensors replaced by those of least cost, and the signal to noise ratio in dB that activations alone leave.

    First order says little of large cuts. So each of `CAUTIONS` gives ranges of its own, and those stay, or the ones given, with which the
    float graph rounded to their integers comes nearest to itself.
    """
    count = samples_for(graph)
    costs = output_costs(graph, ranges, rules, verdict, feeds[:count])
    last = feeds[count : count + MEASURED] or feeds[:MEASURED]
    wanted = [interpret(graph, feed) for feed in last]

    def ratio(chosen: Mapping[str, Range]) -> float:
        params = choose_params(graph, chosen, rules, verdict)
        return float(np.mean([sqnr_db(want, rounded(graph, params, rules, verdict, feed)) for want, feed in zip(wanted, last)]))

    chosen = [dict(ranges), *(least_cost(costs, ranges, rules, caution) for caution in CAUTIONS)]
    ratios = [ratio(each) for each in chosen]
    best = int(np.argmax(ratios))
    return chosen[best], ratios[best]


def rounded(
    graph: Graph, params: Mapping[int, QuantParams], rules: QuantRules, verdict: Mapping[int, str], feed: Mapping[str, Array]
) -> dict[str, Array]:
    """The outputs of the float graph with every tensor of integer ops rounded to what its integers hold; weights stay as they are."""
    dtype = rules.activations.dtype

    def held(value: Value, data: Array) -> Array:
        known = params.get(id(value))
        integer = any(not verdict[id(op)] for op in (*value.users, *((value.producer,) if value.producer else ())))
        return data if known is None or not integer else dequantize_array(quantize_array(data, known, dtype), known)

    values = {id(v): held(v, feed[v.name]) for v in graph.inputs}
    with np.errstate(all="ignore"):
        for op in graph.ops:
            inputs = [None if v is None else v.data if v.data is not None else values[id(v)] for v in op.operands]
            values |= {id(v): held(v, made) for v, made in zip(op.results, op_def(op.name).evaluate(op, inputs))}
    return {name: v.data if v.data is not None else values[id(v)] for name, v in zip(graph.output_names, graph.outputs)}


def least_cost(
    costs: Mapping[int, tuple[Cost, Sequence[Value]]], ranges: Mapping[str, Range], rules: QuantRules, caution: float = 1.0
) -> dict[str, Range]:
    """The ranges of least cost.

    All probes count alike, however large an error they expect: where outputs are about to flip, derivatives are huge, and tell little.
    """
    known = [cost for cost, _ in costs.values()]
    if not known:
        return dict(ranges)
    single = np.eye(len(known[0].probes))
    whole = np.array([sum(float(cost.table(rules, one)[0, 0]) for cost in known) for one in single])
    weights = np.where(whole > 0, 1 / np.where(whole > 0, whole, 1), 0) / max(1, np.count_nonzero(whole))
    changed = dict(ranges)
    for cost, values in costs.values():
        table = cost.table(rules, weights, caution)
        low, high = np.unravel_index(int(np.argmin(table)), table.shape)
        if table[low, high] < WORTH * table[0, 0]:
            for value in values:
                changed[value.name] = Range.of(cost.whole.low * PARTS[low], cost.whole.high * PARTS[high])
    return changed


def _seeds(graph: Graph, values: Mapping[int, Array], rng: np.random.Generator) -> dict[int, Array]:
    """Random signs for every real output, over its norm: the square of their sum is in the mean the squared relative error.

    Of probabilities the scores behind them are taken, which do not saturate.
    """
    seeds = {}
    for value in graph.outputs:
        if value.producer is not None and value.producer.name in ("softmax", "log_softmax"):
            value = value.producer.inputs[0]
        if value.dtype.is_float and not value.is_constant:
            norm = float(np.linalg.norm(values[id(value)].astype(np.float64)))
            seeds[id(value)] = rng.choice(np.array([-1, 1], np.float32), value.shape) / np.float32(norm or 1)
    return seeds


def _rounds(value: Value, root: Mapping[int, int], verdict: Mapping[int, str]) -> bool:
    """False where a tensor takes over integers as they are."""
    op = value.producer
    if op is None or verdict[id(op)] or table_source(op) is not None:
        return True
    moves = op.name in SHARED_SCALE or (op.name == "resize" and op.attrs["mode"] == "nearest")
    return not moves or any(root[id(v)] != root[id(value)] for v in op.inputs if v.dtype.is_float and not v.is_constant)


def _add(cost: Cost, values: Array, grad: Array) -> None:
    """One tensor of the newest probe."""
    flat, slope, probe = values.reshape(-1), grad.reshape(-1), cost.probes[-1]
    probe.rounding += float(np.square(slope[flat != 0], dtype=np.float64).sum())
    probe.cut.append((_beyond(-flat, -slope, -cost.whole.low), _beyond(flat, slope, cost.whole.high)))


def _beyond(values: Array, slopes: Array, end: float) -> Array:
    """The sum of slope times what a cut at each part of `end` takes away from the values beyond; f64[PARTS]."""
    limits = end * PARTS[::-1]
    outside = values > limits[0]
    if end <= 0 or not outside.any():
        return np.zeros(len(PARTS))
    beyond, slope = values[outside].astype(np.float64), slopes[outside].astype(np.float64)
    place = np.searchsorted(limits, beyond, "left") - 1
    # Sums over all that lie beyond a limit: those of its own interval and of all farther out.
    slope_sum, product = (np.cumsum(np.bincount(place, w, len(limits))[::-1])[::-1] for w in (slope, slope * beyond))
    return np.asarray((limits * slope_sum - product)[::-1])
