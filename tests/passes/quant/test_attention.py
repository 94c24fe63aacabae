# SPDX-License-Identifier: Apache-2.0
"""Where products, a softmax and products become attention, and where they stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gadl.compiler.ir.graph import Value
from gadl.passes.quant.quantize import Precision
from gadl.targets.npu.quant_rules import QUANT_RULES

from .test_convert import Case

#: What a case builds from queries, keys and values: the outputs.
Build = Callable[[Case, Value, Value, Value], list[Value]]


def transposed(case: Case, value: Value) -> Value:
    return case.build("transpose", value, perm=(0, 1, 3, 2))


def probabilities(case: Case, q: Value, k: Value) -> Value:
    return case.build("softmax", case.build("matmul", q, transposed(case, k)), axis=-1)


def plain(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    return [case.build("matmul", probabilities(case, q, k), v, result="y")]


def scaled(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    scores = case.build("mul", case.build("matmul", q, transposed(case, k)), case.graph.constant(np.float32(0.3)))
    return [case.build("matmul", case.build("softmax", scores, axis=-1), v, result="y")]


def masked(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    seen = np.tril(np.ones((12, 12), np.bool_))
    mask = case.graph.constant(np.where(seen, np.float32(0), np.float32(-1e9)))
    scores = case.build("add", mask, scores_of(case, q, k))
    return [case.build("matmul", case.build("softmax", scores, axis=-1), v, result="y")]


def scores_of(case: Case, q: Value, k: Value) -> Value:
    return case.build("mul", case.build("matmul", q, transposed(case, k)), case.graph.constant(np.float32(0.5)))


def scores_read_twice(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    scores = case.build("matmul", q, transposed(case, k))
    return [case.build("matmul", case.build("softmax", scores, axis=-1), v, result="y"), case.build("relu", scores)]


def probabilities_read_twice(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    found = probabilities(case, q, k)
    return [case.build("matmul", found, v, result="y"), case.build("linear", found, case.const(4, 12))]


def other_axis(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    scores = case.build("softmax", case.build("matmul", q, transposed(case, k)), axis=1)
    return [case.build("matmul", scores, v, result="y")]


def computed_mask(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    mask = case.build("matmul", k, transposed(case, q))
    scores = case.build("add", case.build("matmul", q, transposed(case, k)), case.build("relu", mask))
    return [case.build("matmul", case.build("softmax", scores, axis=-1), v, result="y")]


def clamped(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    scores = case.build("matmul", q, transposed(case, k), clamp=(-0.5, 0.5))
    return [case.build("matmul", case.build("softmax", scores, axis=-1), v, result="y")]


def shared_by_some(case: Case, q: Value, k: Value, v: Value) -> list[Value]:
    q, k, v = (case.build("reshape", x, shape=(1, 3, 2, x.shape[-2] // 2, x.shape[-1])) for x in (q, k, v))
    k, v = (case.build("slice", x, starts=(0,) * 5, sizes=(*x.shape[:2], 1, *x.shape[3:]), steps=(1,) * 5) for x in (k, v))
    scores = case.build("matmul", q, case.build("transpose", k, perm=(0, 1, 2, 4, 3)))
    return [case.build("matmul", case.build("softmax", scores, axis=-1), v, result="y")]


def quantised(build: Build, precision: Precision = Precision.INT8, least: int = 12) -> Case:
    case = Case((1, 3, 12, 8), (1, 3, 12, 8), (1, 3, 12, 5))
    case.rules = replace(QUANT_RULES, attention_keys=least)
    outputs = build(case, *case.inputs)
    case.quantise(*outputs, precision=precision)
    return case


@pytest.mark.parametrize("build", [plain, scaled, masked])
def test_attention_is_recognised(build: Build) -> None:
    """It reads keys as they are, not transposed, and no scores are left; the result is within rounding of the real one."""
    case = quantised(build)
    op = case.op("attention")
    assert op.result.shape == (1, 3, 12, 5)
    assert not {o.name for o in case.made.graph.ops} & {"matmul", "softmax", "add", "lut", "transpose"}
    assert [v.shape for v in op.inputs[:3]] == [v.shape for v in case.inputs]
    assert len(op.attrs["requant"]) == (3 if build is masked else 2) == len(op.inputs) - 1
    case.close("y", 4)


@pytest.mark.parametrize("build", [scores_read_twice, probabilities_read_twice, other_axis, computed_mask, clamped, shared_by_some])
def test_what_others_read_or_cut_stays(build: Build) -> None:
    names = [op.name for op in quantised(build).made.graph.ops]
    assert "attention" not in names and names.count("matmul") >= 2


@pytest.mark.parametrize("least", [0, 13])
def test_shorter_rows_stay(least: int) -> None:
    assert "attention" not in [op.name for op in quantised(plain, least=least).made.graph.ops]


def test_wide_activations_stay() -> None:
    assert "attention" not in [op.name for op in quantised(plain, Precision.INT16).made.graph.ops]
