# SPDX-License-Identifier: Apache-2.0
"""The quantisation stage: float graph in, quantised graph out, with a report of every decision."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Graph, Stage, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import Array, DType, QuantParams

from .attention import fuse_attention
from .choose_params import choose_params, integer_ops, params_of_range, range_of_constant
from .convert import Conversion, IntegerConstant
from .equalize import equalize
from .fit_ranges import fit_ranges
from .fit_weights import WeightFit
from .masks import cut_masks, keep_masking_sums
from .norms import OVER_LAST_AXIS
from .observers import Range
from .qdq import has_own_scales, own_activation_type, read_annotations
from .ratios import unencodable
from .recipe import Coverage, Recipe
from .report import quant_report
from .samples import fitting
from .specs import QuantRules, QuantSpec
from .tables import without_flat_tails
from .weights import WEIGHTED

__all__ = [
    "Precision",
    "Quantized",
    "has_own_scales",
    "quantize_annotated",
    "quantize_graph",
    "rules_for",
    "to_half",
]


class Precision(enum.Enum):
    """Arithmetic of the compiled model."""

    INT8 = "int8"
    INT16 = "int16"
    FP16 = "fp16"
    FLOAT = "float"


@dataclass(frozen=True)
class Quantized:
    """A quantised graph and what was decided: `report` is `gadl.passes.quant.report.quant_report`."""

    graph: Graph
    report: Mapping[str, Any]


def rules_for(rules: QuantRules, precision: Precision, coverage: Coverage = Coverage.FULL) -> QuantRules:
    """A target's int8 rules, widened for 16-bit activations: symmetric, 48-bit accumulators, 15-bit multipliers."""
    if coverage is Coverage.CORE:
        rules = replace(rules, integer_ops=rules.integer_ops & {*WEIGHTED, "matmul"}, tables=False, attention_keys=0)
    if precision is not Precision.INT16:
        return rules
    return replace(
        rules, activations=QuantSpec(DType.I16, symmetric=True), multiplier_bits=15, accumulator_bits=48,
        integer_ops=rules.integer_ops - OVER_LAST_AXIS,
    )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A float graph with the ranges of its tensors: everything but weights is decided. `sqnr_db` is what activations alone leave, where it
    was measured.
    """

    graph: Graph
    ranges: Mapping[str, Range]
    verdict: Mapping[int, str]
    sqnr_db: float = 0.0


def prepare(
    graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, recipe: Recipe, feeds: Sequence[Mapping[str, Array]] = ()
) -> Prepared:
    """Equalise a float graph (a copy of it) and choose its ranges. Raises `GADL-Q003` (no range)."""
    if recipe.equalize:
        graph = graph.clone()
        ranges = equalize(graph, ranges, recipe.equalize)
    verdict = keep_masking_sums(graph, ranges, rules, integer_ops(graph, rules))
    cut = cut_masks(graph, without_flat_tails(graph, ranges, rules, verdict), rules, verdict)
    if not recipe.fit_ranges or not feeds:
        return Prepared(graph, cut, verdict)
    fitted, ratio = fit_ranges(graph, cut, rules, verdict, feeds)
    return Prepared(graph, fitted, verdict, ratio)


def quantize_prepared(
    prepared: Prepared, rules: QuantRules, recipe: Recipe, feeds: Sequence[Mapping[str, Array]] = (), most: int = 32
) -> Quantized:
    """Quantise by chosen ranges; weights are fitted to `feeds`, of which at most `most` are held at a time, as the recipe says.

    Raises `GADL-Q002` (accumulators).
    """
    graph, verdict = prepared.graph, dict(prepared.verdict)
    params = choose_params(graph, prepared.ranges, rules, verdict)
    while left := unencodable(graph, _scale_of(params, {}, rules), rules, verdict):
        verdict |= left
        params = choose_params(graph, prepared.ranges, rules, verdict)
    fit = None
    if recipe.rounding is not None and feeds:
        fit = WeightFit(recipe.rounding, feeds[: fitting(graph, most)], recipe.correct_bias)
    result = Conversion(graph, params, verdict, rules, fit=fit).run()
    if rules.attention_keys:
        fuse_attention(result, rules)
    return Quantized(result, quant_report(graph, verdict, result, rules, "calibrated") | ({"rounding_ways": dict(fit.chosen)} if fit else {}))


def quantize_graph(
    graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, recipe: Recipe | None = None, feeds: Sequence[Mapping[str, Array]] = ()
) -> Quantized:
    """Quantise a float graph by measured ranges, as a recipe says (None: as the rules do, weights to the nearest)."""
    chosen = recipe or Recipe(equalize=rules.equalize)
    return quantize_prepared(prepare(graph, ranges, rules, chosen, feeds), rules, chosen, feeds)


def quantize_annotated(graph: Graph, rules: QuantRules) -> Quantized:
    """Quantise a QDQ graph by its own scales; nothing is calibrated. `graph` is changed.

    The element type of activations is the model's. An op without a scale for each of its tensors stays float.
    """
    dtype = own_activation_type(graph)
    if dtype is DType.I16:
        rules = rules_for(rules, Precision.INT16)
    notes = read_annotations(graph, dtype)
    params = notes.params
    verdict = integer_ops(graph, rules, follow=False)
    for op in graph.ops:
        if verdict[id(op)]:
            continue
        missing = [v for v in (*op.inputs, op.result) if v.dtype.is_float and not v.is_constant and id(v) not in params]
        weights = notes.constants.get(id(op.inputs[1])) if len(op.inputs) > 1 else None
        if missing:
            verdict[id(op)] = f"the model gives no scale for '{missing[0].name}'"
        elif weights is not None and weights.quant.zero_point != 0 and op.name in ("conv", "conv_transpose", "linear"):
            verdict[id(op)] = "its weights have a zero point"
        elif rules.activations.symmetric and any(_zero_point(v, params, notes.constants) for v in (*op.inputs, op.result)):
            verdict[id(op)] = "a tensor has a zero point, which this target's numbers have not"
    brought = {key: held.quant for key, held in notes.constants.items()}
    verdict |= unencodable(graph, _scale_of(params, brought, rules), rules, verdict, brought)
    result = Conversion(graph, params, verdict, rules, notes.constants, own_scales=True).run()
    return Quantized(result, quant_report(graph, verdict, result, rules, "model"))


def _scale_of(params: Mapping[int, QuantParams], brought: Mapping[int, QuantParams], rules: QuantRules) -> Callable[[Value], float]:
    """The scale that conversion gives a tensor or a constant; `brought`: parameters of constants that the model brought."""

    def scale(value: Value) -> float:
        found = brought.get(id(value), params.get(id(value)))
        return (found or params_of_range(range_of_constant(value), rules.activations)).scale[0]

    return scale


def _zero_point(value: Value, params: Mapping[int, QuantParams], constants: Mapping[int, IntegerConstant]) -> int:
    held = constants.get(id(value))
    found = params.get(id(value)) if held is None else held.quant
    return 0 if found is None else found.zero_point


def to_half(graph: Graph) -> Graph:
    """The graph in half precision: f32 tensors become f16, biases stay f32, inputs and outputs are cast.

    `y = f(x)  -->  y = f32(f(f16(x)))` with every tensor between rounded to f16 (`docs/numerics.md` section 5).
    """
    half = Graph(graph.name, Stage.QUANTIZED)
    build = Builder(half)
    known: dict[int, Value] = {}
    for value in graph.inputs:
        given = half.add_input(value.name, value.type)
        known[id(value)] = build("cast", given, dtype=DType.F16) if value.dtype is DType.F32 else given

    def operand(value: Value, is_bias: bool) -> Value:
        if value.data is None:
            return known[id(value)]
        key = id(value) + is_bias
        if key not in known:
            data = value.data
            if data.dtype == np.float32 and not is_bias:
                data = np.clip(data, -65504, 65504).astype(np.float16)
            known[key] = half.constant(data, value.name)
        return known[key]

    for op in graph.ops:
        build.loc = op.loc
        weighted = op.name in ("conv", "conv_transpose", "linear")
        operands = [None if v is None else operand(v, weighted and i == 2) for i, v in enumerate(op.operands)]
        attrs = dict(op.attrs)
        if op.name == "cast" and attrs["dtype"] is DType.F32:
            attrs["dtype"] = DType.F16
        made = build.create(op.name, operands, attrs, result=op.result.name)
        for old, new in zip(op.results, made.results):
            known[id(old)] = new
    build.loc = type(build.loc)()
    outputs = []
    for value in graph.outputs:
        found = operand(value, False)
        outputs.append(build("cast", found, dtype=DType.F32) if found.dtype is DType.F16 else found)
    half.set_outputs(outputs, graph.output_names)
    return half
