# SPDX-License-Identifier: Apache-2.0
"""Masked softmaxes in integers."""

from __future__ import annotations

import numpy as np
import pytest

from .test_convert import Case


@pytest.mark.parametrize("number", [-1e4, -1e30])
def test_masked_scores_keep_their_step(number: float) -> None:
    """Probabilities of scores are as near as without a mask, those of masked ones nothing; scales follow the scores."""
    case = Case((2, 4, 16), (2, 16, 16))
    seen = np.tril(np.ones((16, 16), np.float32))
    mask = case.graph.constant(np.where(seen > 0, np.float32(0), np.float32(number)), "mask")
    scores = case.build("matmul", case.build("linear", case.build("transpose", case.inputs[0], perm=(0, 2, 1)), case.const(16, 4)), case.inputs[1])
    probabilities = case.build("softmax", case.build("add", scores, mask), axis=-1, result="p")
    case.quantise(case.build("linear", probabilities, case.const(4, 16)))
    assert not case.made.report["float_op_counts"]
    op = case.op("softmax")
    assert op.result.quant is not None and op.inputs[0].quant is not None
    found = (case.values[op.result.name].astype(float) - op.result.quant.zero_point) * op.result.quant.scale[0]
    assert np.abs(found * (1 - seen)).max() == 0
    spread = np.ptp(case.real[scores.name])
    assert op.inputs[0].quant.scale[0] < 1.1 * (spread + 9) / 255
    assert np.abs(found - case.real["p"]).max() < 0.1


def test_a_mask_that_others_read_leaves_the_softmax_float() -> None:
    case = Case((4, 8), (4, 8))
    case.feeds["x1"] = np.where(case.feeds["x1"] > 0, np.float32(0), np.float32(-10000))
    scores = case.build("linear", case.inputs[0], case.const(8, 8))
    y = case.build("linear", case.build("softmax", case.build("add", scores, case.inputs[1]), axis=1), case.const(8, 8))
    made = case.quantise(y, case.build("relu", case.inputs[1]))
    assert set(made.report["float_op_counts"]) == {"add", "softmax"}


@pytest.mark.parametrize(("gain", "most"), [(0.01, 2 / 16), (60.0, 1.0)])
def test_probabilities_reach_twice_what_was_seen(gain: float, most: float) -> None:
    """Nearly even rows get a range of their own, peaks at most that from 0 to 1."""
    case = Case((8, 16))
    scores = case.build("linear", case.inputs[0], case.const(16, 16, scale=gain))
    case.quantise(case.build("linear", case.build("softmax", scores, axis=-1), case.const(4, 16)))
    (quant,) = {op.result.quant for op in case.made.graph.ops if op.name == "softmax"}
    assert quant is not None and quant.zero_point == -128
    assert 255 * quant.scale[0] == pytest.approx(most, rel=0.1)


def test_a_softmax_that_is_returned_stays_float() -> None:
    case = Case((8, 16))
    made = case.quantise(case.build("softmax", case.build("linear", case.inputs[0], case.const(16, 16)), axis=-1))
    assert made.report["float_op_counts"] == {"softmax": 1}
