# SPDX-License-Identifier: Apache-2.0
"""Scales for sums with small factors: raised a little, so that the ratios are those of factors, not merely near them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value

from .ratios import SharedScales
from .specs import QuantRules
from .sums import most_factors, sum_factors
from .tables import table_source

#: The most that a result's scale is raised, and in how many steps. One over the least factor that uses all bits is 1/128.
REACH, STEPS = 0.016, 65
#: A typical square of an operand's integers: what an error of its ratio is weighed with, against roundings of 1/12.
MEAN_SQUARE = 32.0**2
#: Variance of a rounding, in steps.
ROUNDING = 1 / 12


def fit_sums(graph: Graph, scales: SharedScales, rules: QuantRules, verdict: Mapping[int, str]) -> None:
    """Raise scales for the sums of `graph`, in its order, and never one that an earlier sum has settled.

    The result's scale follows the operands that are settled (a residual chain has one), and then each free operand's scale
    follows the result's.
    """
    settled: set[int] = set()
    for op in graph.ops:
        if op.name not in ("add", "sub") or verdict[id(op)] or (table_source(op) is not None and rules.tables):
            continue
        result = scales.group[id(op.result)]
        if result not in settled:
            _fit_result(op, scales, rules, settled)
        settled.add(result)
        subtracts = op.name == "sub"
        shift = sum_factors(_ratios(op, scales, scales.of(op.result)), rules.sum_bits, subtracts).shift
        for value, limit in zip(op.inputs, most_factors(rules.sum_bits, subtracts)):
            if scales.group[id(value)] not in settled:
                _fit_operand(value, scales, scales.of(op.result), shift, limit)
            settled.add(scales.group[id(value)])


def _ratios(op: Op, scales: SharedScales, result: float) -> tuple[float, float]:
    return scales.of(op.inputs[0]) / result, scales.of(op.inputs[1]) / result


def _fit_result(op: Op, scales: SharedScales, rules: QuantRules, settled: set[int]) -> None:
    """The scale whose own rounding and settled operands' errors of ratio are the least together."""
    known, own = scales.of(op.result), scales.group[id(op.result)]
    fixed = [scales.group[id(v)] in settled and scales.group[id(v)] != own for v in op.inputs]
    if not any(fixed):
        return

    def noise(scale: float) -> float:
        ratios = _ratios(op, scales, scale)
        exact = sum_factors(ratios, rules.sum_bits, op.name == "sub").ratios
        errors = sum((a - b) ** 2 for a, b, counts in zip(ratios, exact, fixed) if counts)
        return scale**2 * (ROUNDING + errors * MEAN_SQUARE)

    candidates = [known * t for t in np.linspace(1, 1 + REACH, STEPS)]
    for value, counts in zip(op.inputs, fixed):
        if counts:
            candidates += _exact_scales(scales.of(value), known, rules.sum_bits)
    scales.set(op.result, min(candidates, key=noise))


def _exact_scales(operand: float, result: float, bits: int) -> list[float]:
    """Scales within reach above `result` whose ratio is a factor's: `operand * 2^s / factor`."""
    shift = bits - math.frexp(operand / result)[1]
    most = math.ldexp(operand / result, shift)
    return [math.ldexp(operand, shift) / c for c in range(math.ceil(most / (1 + REACH)), math.floor(most) + 1) if c > 0]


def _fit_operand(value: Value, scales: SharedScales, result: float, shift: int, limit: int) -> None:
    """The scale at the next factor, where its coarser steps cost less than the error of the nearest factor."""
    known = scales.of(value)
    wanted = math.ldexp(known / result, shift)
    factor = max(1, math.ceil(wanted - 1e-6))
    exact = math.ldexp(factor * result, -shift)
    coarser = (exact**2 - known**2) * ROUNDING
    error = math.ldexp((wanted - round(wanted)) * result, -shift) ** 2 * MEAN_SQUARE
    if factor <= limit and coarser < error:
        scales.set(value, exact)
