# SPDX-License-Identifier: Apache-2.0
"""Functions of one tensor, which become look-up tables: which they are, their values, and where they stop changing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Trait, op_def
from gadl.compiler.ir.pattern import scalar
from gadl.compiler.ir.types import Array

from .observers import Range
from .specs import QuantRules

#: Points at which a function is looked at to find where it is flat.
SAMPLES = 4096
#: A tail may be cut where it changes the result by less than this part of one step.
FLAT_PART = 0.25
#: A tail shorter than this part of the range is not worth cutting.
LEAST_CUT = 0.02


def table_source(op: Op) -> Value | None:
    """The one tensor that an elementwise op is a function of (its other operands are scalar constants), or None."""
    if Trait.ELEMENTWISE not in op_def(op.name).traits or op.name in ("quantize", "dequantize", "requantize", "lut", "cast"):
        return None
    varying = {id(v): v for v in op.inputs if not v.is_constant}
    constants = [v for v in op.inputs if v.is_constant]
    if len(varying) != 1 or any(scalar(v) is None for v in constants) or not op.result.dtype.is_float:
        return None
    (source,) = varying.values()
    return source if source.type.shape == op.result.type.shape and source.dtype.is_float else None


def evaluate_on(op: Op, values: Array) -> Array:
    """An elementwise op of one tensor on a vector of samples, its constants taken as scalars."""
    inputs = [None if v is None else values if v.data is None else v.data.reshape(-1)[0] for v in op.operands]
    with np.errstate(all="ignore"):
        (result,) = op_def(op.name).evaluate(op, [None if v is None else np.asarray(v) for v in inputs])
    return np.asarray(np.broadcast_to(result, values.shape))


def without_flat_tails(graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str]) -> dict[str, Range]:
    """The ranges, those of tensors that only tables read cut to where some table still changes.

    Left of -3 hard-swish is zero, far out a sigmoid is one: codes spent there carry nothing, and a finer step inside does.
    """
    changed = dict(ranges)
    low, high = rules.activations.dtype.range
    outputs = {id(v) for v in graph.outputs}
    for value in graph.values():
        known = ranges.get(value.name)
        if known is None or not value.users or id(value) in outputs or not rules.tables or known.high <= known.low:
            continue
        if any(verdict[id(user)] or table_source(user) is not value for user in value.users):
            continue
        samples = np.linspace(known.low, known.high, SAMPLES, dtype=np.float32)
        kept = []
        for user in value.users:
            whole = ranges[user.result.name]
            first, last = _changing(evaluate_on(user, samples), FLAT_PART * (whole.high - whole.low) / (high - low))
            kept.append(Range.of(samples[first], samples[last]))
        union = kept[0]
        for other in kept[1:]:
            union = union.union(other)
        changed[value.name] = union
    return changed


def _changing(values: Array, tolerance: float) -> tuple[int, int]:
    """First and last index between which values change: all before (behind) are within `tolerance` of it."""

    def flat(run: Array) -> int:
        # A pole is no number, and so no flat place.
        with np.errstate(invalid="ignore"):
            spread = np.maximum(np.maximum.accumulate(run) - run, run - np.minimum.accumulate(run))
        steps = np.flatnonzero(~(spread <= tolerance))
        return int(steps[0]) - 1 if len(steps) else len(run) - 1

    left, right = (n if n > LEAST_CUT * len(values) else 0 for n in (flat(values), flat(values[::-1])))
    return (left, len(values) - 1 - right) if left + right < len(values) - 1 else (0, len(values) - 1)
