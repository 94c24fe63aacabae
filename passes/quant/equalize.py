# SPDX-License-Identifier: Apache-2.0
"""Range equalisation: channels of a tensor are scaled towards one range, so that one scale suits them all.

    conv(relu(conv(x, w1, b1)), w2)  -->  conv(relu(conv(x, f * w1, f * b1)), w2 / f)    with f > 0 per channel between

holds because relu, pooling, interpolation, sums and joins of channels commute with a positive factor (Nagel et al., Data-Free
Quantization through Weight Equalization, section 4.1). A bound above a channel's range, like that of relu6, stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.types import Array

from .observers import ChannelRange, Range
from .weights import WEIGHTED, weight_axis

#: The largest factor.
MOST_FACTOR = 64.0
#: Ops that commute with a positive factor per channel of their first operand.
_COMMUTES = frozenset({"max_pool", "avg_pool", "resize", "relu", "pad"})


class _Classes:
    """Union-find over channels: those of one class have one factor; class 0 has factor 1."""

    def __init__(self) -> None:
        self.parent = [0]
        self.of: dict[int, list[int]] = {}

    def fresh(self, count: int) -> list[int]:
        """New classes."""
        first = len(self.parent)
        self.parent += range(first, first + count)
        return list(range(first, first + count))

    def root(self, key: int) -> int:
        """The representative of a class."""
        while self.parent[key] != key:
            self.parent[key] = self.parent[self.parent[key]]
            key = self.parent[key]
        return key

    def join(self, first: list[int], second: list[int]) -> list[int]:
        """One class for each pair; the lower number stays, so that class 0 does."""
        for a, b in zip(first, second, strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self.parent[high] = low
        return first

    def fix(self, value: Value) -> None:
        """Factor 1 for every channel of a tensor."""
        for key in self.of.get(id(value), []):
            self.join([0], [key])


def equalize(graph: Graph, ranges: Mapping[str, Range], part: float) -> dict[str, Range]:
    """Scale channels of `graph` in place; returns the ranges of its tensors, of which those that changed have new names.

    `part`: how far (as a power) a channel goes towards the largest range beside it. All of the way would leave small weights
    behind. Tensors whose range knows no channels stay as they are.
    """
    classes = _classify(graph)
    factors = _factors(graph, classes, ranges, part)

    def factor(value: Value) -> Array | None:
        found = classes.of.get(id(value))
        return None if found is None else np.array([factors[classes.root(key)] for key in found])

    changed = dict(ranges)
    for op in graph.ops:
        scale, known = factor(op.result), ranges.get(op.result.name)
        if op.name in WEIGHTED and op.inputs[1].data is not None:
            _scale_weights(graph, op, factor(op.inputs[0]), scale)
        if scale is None or not isinstance(known, ChannelRange) or bool((scale == 1).all()):
            continue
        op.result.name = graph.unique_name(f"{op.result.name}.equalized")
        changed[op.result.name] = Range.of((known.lows * scale).min(), (known.highs * scale).max())
    return changed


def _classify(graph: Graph) -> _Classes:
    classes = _Classes()
    for op in graph.ops:
        made = _through(op, classes)
        if made is not None:
            classes.of[id(op.result)] = made
        elif not _absorbs(op):
            for value in op.inputs:
                classes.fix(value)
    for value in graph.outputs:
        classes.fix(value)
    return classes


def _absorbs(op: Op) -> bool:
    """True where the op's weights can take in factors of its operand."""
    plain = op.name in WEIGHTED and op.inputs[1].data is not None and op.operand(3) is None
    return plain and (op.name != "linear" or op.inputs[0].type.rank == 2)


def _bound(op: Op) -> float | None:
    """The upper bound of a result that is cut at zero or not at all; None where other bounds stand."""
    low, high = op.attrs.get("clamp") or (-math.inf, math.inf)
    return float(high) if low == 0 or (low, high) == (-math.inf, math.inf) else None


def _through(op: Op, classes: _Classes) -> list[int] | None:
    """The classes of the result's channels; None where the result has none."""
    result, operands = op.result, [v for v in op.inputs if not v.is_constant]
    if len(op.results) != 1 or result.type.rank < 2 or not result.dtype.is_float or _bound(op) is None:
        return None
    if _absorbs(op):
        return classes.fresh(result.shape[1])
    known = [classes.of.get(id(v)) for v in operands]
    if not known or any(k is None for k in known) or _bound(op) != math.inf:
        return None
    lists = [k for k in known if k is not None]
    count = result.shape[1]
    match op.name:
        case "add" | "sub" if len(lists) == 2 and len(op.inputs) == 2 and operands[0].shape == operands[1].shape:
            return classes.join(*lists)
        case "concat" if op.attrs["axis"] % result.type.rank == 1 and len(lists) == len(op.inputs):
            return [key for found in lists for key in found]
        case "pad" if op.attrs["mode"] == "constant" and op.attrs["value"] != 0:
            return None
        case "reduce_mean" | "reduce_sum" | "reduce_max" if all(a % operands[0].type.rank > 1 for a in op.attrs["axes"]):
            return lists[0]
        case "reshape" if operands[0].shape[:2] == result.shape[:2]:
            return lists[0]
        case name if name in _COMMUTES and operands[0].shape[1] == count:
            return lists[0]
    return None


def _factors(graph: Graph, classes: _Classes, ranges: Mapping[str, Range], part: float) -> Array:
    """The factor of every class: the largest range beside it over its own, to the power `part`."""
    reach, target = np.zeros(len(classes.parent)), np.zeros(len(classes.parent))
    limit = np.full(len(classes.parent), math.inf)
    for op in graph.ops:
        found = classes.of.get(id(op.result))
        if found is None:
            continue
        keys = [classes.root(key) for key in found]
        known = ranges.get(op.result.name)
        if not isinstance(known, ChannelRange) or len(known.lows) != len(keys):
            limit[keys] = 0.0
            continue
        own = np.maximum(-known.lows, known.highs)
        np.maximum.at(reach, keys, own)
        np.maximum.at(target, keys, own.max())
        bound = _bound(op)
        np.minimum.at(limit, keys, math.inf if bound is None else bound)
    with np.errstate(all="ignore"):
        factors = np.clip((target / reach) ** part, 1.0, MOST_FACTOR)
        factors = np.maximum(1.0, np.minimum(factors, limit / reach))
    factors[~np.isfinite(factors) | (reach <= target * 1e-6)] = 1.0
    factors[0] = 1.0
    return factors


def _scale_weights(graph: Graph, op: Op, before: Array | None, behind: Array | None) -> None:
    """Divide an op's weights by the factors of its operand and multiply weights and bias by those of its result."""
    weights = op.inputs[1].data
    if weights is None or (before is None and behind is None):
        return
    groups = op.attrs.get("groups", 1)
    scaled = weights.astype(np.float64)
    outer = weight_axis(op)
    for index, factors in ((1 - outer, None if before is None else 1 / before), (outer, behind)):
        if factors is None:
            continue
        # The first axis of weights counts the channels of all groups, the second those of one.
        if index == 0:
            table = factors.reshape(-1, 1)
        else:
            table = np.repeat(factors.reshape(groups, -1), scaled.shape[0] // groups, 0)
        scaled = scaled * table.reshape(*table.shape, *(1,) * (scaled.ndim - 2))
    op.set_operand(1, graph.constant(scaled.astype(weights.dtype), op.inputs[1].name))
    bias = op.operand(2)
    if bias is not None and bias.data is not None and behind is not None:
        op.set_operand(2, graph.constant((bias.data * behind).astype(bias.data.dtype), bias.name))
