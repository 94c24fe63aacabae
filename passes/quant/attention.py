# SPDX-License-Identifier: Apache-2.0
"""Attention: products, softmax and products of a quantised graph become one op that normalises results instead of probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.ops.attention import MOST_KEYS, MOST_SHIFT
from gadl.compiler.ir.pattern import only_user, producer
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, Requant, Rounding

from .specs import QuantRules


def powers_of(scale: float) -> Array:
    """255 times the powers of differences of scores from -255 to 0 steps, less 128."""
    return np.asarray(np.rint(255 * np.exp(-scale * np.arange(255.0, -1.0, -1.0))) - 128, np.float64).astype(np.int8)


@dataclass(frozen=True)
class _Scores:
    """Scores that a softmax reads: the product they come from, what the sum behind it adds, and integers of a score per unit of the
    product's real value.
    """

    product: Op
    result: Value
    mask: Value | None
    factor: float


def fuse_attention(graph: Graph, rules: QuantRules) -> bool:
    """`softmax(q . k (+ mask)) . v  -->  attention(q, k^T, v, mask)` in i8, where nobody else reads scores and probabilities.

    Both are the definition within rounding: powers have 8 bits below their row's largest instead of 8 bits below 1, and sums of
    products are divided by the sum of powers instead of every power. The mask is constant, one row for each row of scores.
    """
    changed = False
    for op in list(graph.ops):
        found = _scores_of(op, graph, rules.attention_keys) if op.name == "matmul" else None
        if found is None:
            continue
        product, result = found.product, _requant(_scale(op.inputs[1]) / _scale(op.result), rules)
        if result is None or result.shift[0] > MOST_SHIFT or found.result.quant is None:
            continue
        requants = [make_requant(_scale(product.inputs[0]) * _scale(product.inputs[1]) * found.factor, rules.rounding)]
        if found.mask is not None:
            requants.append(make_requant(_scale(found.mask) / _scale(found.result), rules.rounding))
        build = Builder.before(graph, op)
        operands = [product.inputs[0], _swapped(build, product.inputs[1]), op.inputs[1], *([] if found.mask is None else [found.mask])]
        attrs = {"table": powers_of(_scale(found.result)), "zero": found.result.quant.zero_point, "requant": (*requants, result)}
        made = build.create("attention", operands, attrs, type=op.result.type)
        made.result.name, op.result.name = op.result.name, made.result.name
        graph.replace_uses(op.result, made.result)
        changed = True
    graph.remove_dead_ops()
    return changed


def _scores_of(op: Op, graph: Graph, least: int) -> _Scores | None:
    """What lies behind a product with probabilities, where all of it is i8 that nobody else reads."""
    softmax = producer(op.inputs[0], "softmax")
    if softmax is None or "table" not in softmax.attrs or only_user(softmax.result, graph) is not op or not _is_product(op):
        return None
    scores = softmax.inputs[0]
    if softmax.attrs["axis"] % scores.type.rank != scores.type.rank - 1 or not least <= scores.shape[-1] <= MOST_KEYS:
        return None
    made = _maker(scores, softmax, graph)
    if made is not None and made.name == "matmul":
        return _Scores(made, scores, None, 1 / _scale(made.result)) if _is_product(made) else None
    if made is None or made.name != "add" or made.attrs.get("clamp") is not None:
        return None
    for mask, value in (made.inputs, made.inputs[::-1]):
        product = _maker(value, made, graph)
        whole = mask.data is not None and mask.shape[-2:] == scores.shape[-2:] and math.prod(mask.shape[:-2]) == 1
        if whole and product is not None and value.shape == scores.shape and _is_product(product):
            # Between product and sum, and behind the sum, equal integers may have other scales.
            return _Scores(product, scores, mask, _scale(value) / _scale(product.result) / _scale(made.result))
    return None


def _maker(value: Value, reader: Op, graph: Graph) -> Op | None:
    """The op that makes the integers of `value` for `reader` alone, past tables that leave integers as they are."""
    while only_user(value, graph) is reader and value.producer is not None:
        reader = value.producer
        if reader.name != "lut" or not np.array_equal(reader.attrs["table"], np.arange(-128, 128)):
            return reader
        value = reader.inputs[0]
    return None


def _is_product(op: Op) -> bool:
    """True for a product of two activations in i8, as it is; all batch items share the second, or none."""
    a, b = op.inputs
    alike = a.shape[:-2] == op.result.shape[:-2] and (b.shape[:-2] == op.result.shape[:-2] or math.prod(b.shape[:-2]) == 1)
    plain = op.name == "matmul" and op.attrs.get("clamp") is None and alike and not a.is_constant and not b.is_constant
    return plain and all(v.dtype is DType.I8 and v.quant is not None for v in (*op.inputs, op.result))


def _scale(value: Value) -> float:
    if value.quant is None:
        raise ValueError(f"'{value.name}' has no scale")
    return value.quant.scale[0]


def _requant(ratio: float, rules: QuantRules) -> Requant | None:
    """The requantisation by a ratio; None where its multiplier is none of 31 bits."""
    if rules.rounding in (Rounding.F32, Rounding.TFL2) or rules.multiplier_bits != 31:
        return None
    found = make_requant(ratio, rules.rounding)
    return found if found.multiplier[0] >= 1 << 30 else None


def _swapped(build: Builder, value: Value) -> Value:
    """The value with its last two axes swapped: another order of a transposition behind it, which may be none."""
    rank = value.type.rank
    order = (*range(rank - 2), rank - 1, rank - 2)
    before = producer(value, "transpose")
    source = value if before is None else before.inputs[0]
    perm = order if before is None else tuple(before.attrs["perm"][axis] for axis in order)
    return source if perm == tuple(range(rank)) else build("transpose", source, perm=perm)
