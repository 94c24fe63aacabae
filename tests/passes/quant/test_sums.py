# SPDX-License-Identifier: Apache-2.0
"""Sums with 8-bit factors: their integers, and the scales that make ratios exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.graph import Graph, Op
from gadl.compiler.ir.interpret import interpret_values
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, QuantParams, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.quantize import quantize_graph
from gadl.passes.quant.sums import most_factors, sum_factors
from gadl.targets.cv18xx.quant_rules import QUANT_RULES

RATIO = st.floats(1e-6, 120.0)
CODES = np.arange(-128, 128, dtype=np.int8)


def factors_of(op: Op) -> tuple[int, int, int]:
    """ca, cb and s of an `add` or `sub`, from its numbers."""
    first, second, last = op.attrs["requant"]
    ca, cb = (int(r.multiplier[0]) >> int(r.shift[0]) for r in (first, second))
    assert (ca << int(first.shift[0]), cb << int(second.shift[0])) == (first.multiplier[0], second.multiplier[0])
    assert last.multiplier[0] == 1 << 30
    return ca, cb, int(last.shift[0]) - 30


def sum_graph(name: str, ratios: tuple[float, float]) -> Graph:
    """One sum of two i8 vectors over all pairs of integers, its operands' scales `ratios` times the result's."""
    graph = Graph()
    a, b = (graph.add_input(n, TensorType(DType.I8, s, QuantParams((r,)))) for n, s, r in zip("ab", ((256, 1), (256,)), ratios))
    requant = sum_factors(ratios, 8, name == "sub").requant
    kind = TensorType(DType.I8, (256, 256), QuantParams((1.0,)))
    graph.set_outputs([Builder(graph)(name, a, b, requant=requant, result="y", type=kind)])
    return graph


@pytest.mark.parametrize("name", ["add", "sub"])
@given(first=RATIO, second=RATIO)
@settings(max_examples=60, deadline=None)
def test_all_pairs_of_integers_equal_the_shifted_sum(name: str, first: float, second: float) -> None:
    graph = sum_graph(name, (first, second))
    (op,) = graph.ops
    ca, cb, shift = factors_of(op)
    assert 0 <= ca <= 255 and 0 <= cb <= (127 if name == "sub" else 255) and 0 <= shift <= 31
    a, b = CODES.astype(np.int64)[:, None], CODES.astype(np.int64)
    total = a * ca + (b * cb if name == "add" else b * -cb)
    wanted = np.clip((total + ((1 << shift) >> 1)) >> shift, -128, 127)
    np.testing.assert_array_equal(interpret_values(graph, {"a": CODES[:, None], "b": CODES})["y"], wanted)


@given(ratios=st.tuples(RATIO, RATIO), subtracts=st.booleans())
def test_no_other_factors_are_nearer_to_the_larger_ratio(ratios: tuple[float, float], subtracts: bool) -> None:
    found, limits = sum_factors(ratios, 8, subtracts), most_factors(8, subtracts)
    errors = [abs(a - b) for a, b in zip(found.ratios, ratios)]
    for shift in range(32):
        other = [round(math.ldexp(r, shift)) for r in ratios]
        if all(c <= limit for c, limit in zip(other, limits)):
            assert all(mine <= abs(math.ldexp(c, -shift) - r) + 1e-12 for mine, c, r in zip(errors, other, ratios))


def test_a_ratio_past_the_factors_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        sum_factors((300.0, 1.0), 8)
    with pytest.raises(ValueError, match="too large"):
        sum_factors((1.0, 130.0), 8, subtracts=True)


def test_scales_of_a_residual_chain_make_ratios_exact() -> None:
    """Convolutions' results are free: their scales follow the sum's, and the sum's follows the chain's."""
    rng = np.random.default_rng(3)
    graph = Graph()
    build = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, (1, 4, 6, 6)))
    attrs = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    chain = x
    for _ in range(4):
        branch = build("conv", chain, graph.constant(rng.normal(0, 0.4, (4, 4, 1, 1)).astype(np.float32)), groups=1, **attrs)
        chain = build("add", chain, branch)
    graph.set_outputs([chain])
    feeds = [{"x": rng.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)} for _ in range(4)]
    made = quantize_graph(graph, calibrate(graph, feeds), QUANT_RULES)
    verify(made.graph)
    sums = [op for op in made.graph.ops if op.name == "add"]
    assert len(sums) == 4
    for op in sums:
        *factors, shift = factors_of(op)
        for value, factor in zip(op.inputs, factors):
            assert value.quant is not None and op.result.quant is not None
            ratio = value.quant.scale[0] / op.result.quant.scale[0]
            # The nearest factors alone are off by up to half of one, 1/256 of a ratio; a step of the sum is worth 2e-4 of it.
            assert math.ldexp(factor, -shift) == pytest.approx(ratio, abs=3e-4)
