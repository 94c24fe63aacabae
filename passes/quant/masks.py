# SPDX-License-Identifier: Apache-2.0
"""Sums that mask scores in front of a softmax: what their integers must tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value

from .observers import Range
from .specs import QuantRules

#: How far below the least score a masked one is kept: e^-8 of it at most remains, and the step grows little.
DEPTH = 8.0
#: A sum masks where its step leaves fewer than this many of them to one operand.
FEWEST_STEPS = 16


@dataclass(frozen=True)
class MaskingSum:
    """`scores + mask`, where the mask's range leaves few steps to the scores; `lost`: not even one."""

    op: Op
    scores: Value
    mask: Value
    lost: bool


def masking_sums(graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str]) -> list[MaskingSum]:
    """The sums whose result in integers would leave next to nothing of an operand."""
    found = []
    low, high = rules.activations.dtype.range
    for op in graph.ops:
        if op.name not in ("add", "sub") or verdict[id(op)] or op.result.name not in ranges or not op.result.users:
            continue
        whole = ranges[op.result.name]
        step = (whole.high - whole.low) / (high - low)
        for scores, mask in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
            part = ranges.get(scores.name)
            if part is not None and 0 < part.high - part.low < FEWEST_STEPS * step:
                found.append(MaskingSum(op, scores, mask, part.high - part.low < step))
                break
    return found


def keep_masking_sums(graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str]) -> dict[int, str]:
    """The verdict with masking sums kept float where only float ops read them.

    A mask of -10000 makes the step of the result wider than all that the other operand holds. In front of integer softmaxes
    `cut_masks` helps; elsewhere the sum stays float beside its readers.
    """
    changed = dict(verdict)
    for found in masking_sums(graph, ranges, rules, verdict):
        if found.lost and all(verdict[id(user)] for user in found.op.result.users):
            changed[id(found.op)] = "the ranges of its operands differ too much for its integers"
        elif not _is_cut(found, verdict) and all(verdict[id(user)] or user.name == "softmax" for user in found.op.result.users):
            for op in (found.op, *found.op.result.users):
                changed[id(op)] = verdict[id(op)] or "its mask is read elsewhere, so that its integers cannot be cut"
    return changed


def cut_masks(graph: Graph, ranges: Mapping[str, Range], rules: QuantRules, verdict: Mapping[int, str]) -> dict[str, Range]:
    """The ranges, those of masks and masked scores cut to what a softmax tells apart.

    Masked scores end at `DEPTH` below the least score, whatever they were: their integers are the lowest, their powers next to
    nothing beside any score's.
    """
    changed = dict(ranges)
    for found in masking_sums(graph, ranges, rules, verdict):
        if not _is_cut(found, verdict):
            continue
        scores, mask = ranges[found.scores.name], _range(found.mask, ranges)
        low = mask.high - (scores.high - scores.low) - DEPTH
        known = changed.get(found.mask.name)
        cut = Range.of(max(low, mask.low), mask.high)
        changed[found.mask.name] = cut if known is None or known == ranges.get(found.mask.name) else cut.union(known)
        changed[found.op.result.name] = Range.of(scores.low + mask.high - DEPTH, scores.high + mask.high)
    return changed


def _is_cut(found: MaskingSum, verdict: Mapping[int, str]) -> bool:
    """True where integer softmaxes alone read the sum, and such sums alone the mask."""
    if found.op.name != "add" or any(verdict[id(user)] or user.name != "softmax" for user in found.op.result.users):
        return False
    readers = found.mask.users
    return all(u.name == "add" and not verdict[id(u)] and all(v.name == "softmax" for v in u.result.users) for u in readers)


def _range(value: Value, ranges: Mapping[str, Range]) -> Range:
    if value.data is None:
        return ranges[value.name]
    finite = value.data[np.isfinite(value.data)]
    return Range.of(finite.min(initial=0.0), finite.max(initial=0.0))
