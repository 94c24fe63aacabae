# SPDX-License-Identifier: Apache-2.0
"""Scales for averages with small factors: `y = clamp((sum * factor + 2^(s-1)) >> s)`, the factor an unsigned integer of a few bits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Graph, Op
from gadl.compiler.ir.ops.pooling import AvgPool
from gadl.compiler.ir.requant import quantize_multiplier
from gadl.compiler.ir.types import Requant, Rounding

from .ratios import SharedScales
from .specs import QuantRules

#: How far a ratio may be from that of the factor which stands for it: the rounding of scales to f32.
CLOSE = 1e-6
#: The largest shift.
MOST_SHIFT = 31


def count_of(op: Op) -> int | None:
    """Elements of an average; None where windows at the border have fewer."""
    if op.name == "reduce_mean":
        return op.inputs[0].type.element_count // op.result.type.element_count
    counts = np.unique(AvgPool.counts(op)) if op.name == "avg_pool" else np.zeros(2)
    return int(counts[0]) if len(counts) == 1 else None


def fit_means(graph: Graph, scales: SharedScales, rules: QuantRules, verdict: Mapping[int, str]) -> None:
    """Raise the results' scales, by less than one part in `2^(bits - 1)`, to where the ratio is that of a factor."""
    for op in graph.ops:
        count = None if verdict[id(op)] else count_of(op)
        if count is None:
            continue
        ratio = scales.of(op.inputs[0]) / (count * scales.of(op.result))
        mantissa, exponent = math.frexp(ratio)
        factor = math.floor(math.ldexp(mantissa, rules.mean_bits) * (1 + CLOSE))
        scales.set(op.result, scales.of(op.result) * math.ldexp(mantissa, rules.mean_bits) / factor)


def mean_factor(ratio: float, bits: int) -> Requant | None:
    """The requantisation by a factor of `bits` bits, half up; None where the ratio is none of a factor's."""
    mantissa, exponent = math.frexp(ratio)
    scaled, shift = math.ldexp(mantissa, bits), bits - exponent
    factor = round(scaled)
    if abs(scaled / factor - 1) > CLOSE or factor >> bits or not 0 <= shift <= MOST_SHIFT:
        return None
    multiplier, by = quantize_multiplier(math.ldexp(factor, -shift))
    return Requant(np.array([multiplier], np.int32), np.array([by], np.int8), Rounding.UP)
