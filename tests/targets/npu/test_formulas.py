# SPDX-License-Identifier: Apache-2.0
"""Timing formulas: occupancy of the array, ONNXim's start rule (gate V2), transfers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.targets.npu import _sim
from gadl.targets.npu.bounds import systolic_total
from gadl.targets.npu.isa import Type
from gadl.targets.npu.machine import load_machine

from .programs import container


@pytest.mark.parametrize("flow", ["ws", "os"])
def test_the_engine_keeps_the_array_as_long_as_the_formula_says(flow: str) -> None:
    m, n, k = 19, 40, 50
    text = f"MMA_MATMUL@MMA b_addr=4096 m={m} n={n} k={k} a_stride={k} b_stride={k}\nEND@CTL"
    machine = load_machine(f"scalesim-{flow}-16")
    report = _sim.simulate(container(text, {}, machine), {}, functional=False, trace=True)
    ((*_, start, end),) = report["trace"]
    assert end - start - 1 == systolic_total(machine, [(m, n, k)])


@dataclass(frozen=True)
class Step:
    """One product of a scripted sequence: rows, and which weights."""

    rows: int
    weights: int


SCRIPTS = [
    [Step(128, 0), Step(128, 0), Step(128, 1)],
    [Step(16, 0), Step(16, 1), Step(16, 2), Step(16, 2)],
    [Step(64, 0), Step(3, 0), Step(1, 0), Step(100, 1), Step(200, 1), Step(2, 2)],
]


STEPS = st.builds(Step, st.integers(1, 300), st.integers(0, 3))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(STEPS, min_size=1, max_size=12))
def test_random_sequences_equal_onnxims_rule(script: list[Step]) -> None:
    check_onnxim(script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shadow_loading_equals_onnxims_rule(script: list[Step]) -> None:
    check_onnxim(script)


def check_onnxim(script: list[Step]) -> None:
    """start += max(rows before, 4, R if the weights change); result after R + C - 2 + max(rows, 4); first preload 2R - 1."""
    size = 128
    starts, at = [], 0
    for index, step in enumerate(script):
        if index == 0:
            at = 2 * size - 1
        else:
            before = script[index - 1]
            at += max(before.rows, 4, size if step.weights != before.weights else 0)
        starts.append(at)
    line = "MMA_MATMUL@MMA b_addr={w} m={m} n=128 k=128 a_stride=128 b_stride=128"
    text = "\n".join([*(line.format(w=65536 * (1 + s.weights), m=s.rows) for s in script), "END@CTL"])
    machine = load_machine("onnxim-ws-128")
    report = _sim.simulate(container(text, {}, machine), {}, functional=False, trace=True)
    got = [end - max(step.rows, 4) for (*_, end), step in zip(report["trace"], script)]
    first = got[0] - starts[0]  # fetching the first instruction
    assert 0 <= first < 1
    np.testing.assert_allclose(np.array(got) - first, starts)
    results = starts[-1] + first + 2 * size - 2 + max(script[-1].rows, 4)
    assert report["cycles"] == pytest.approx(results)


def test_stream_products_round_every_extent_up() -> None:
    native = _sim.Machine(list(load_machine("edge").values))
    i8, i16 = int(Type.I8), int(Type.I16)
    assert _sim.conv_cycles(native, 5, 17, 17, 1, 1, i8) == 2 * 2 * 2
    assert _sim.conv_cycles(native, 4, 16, 3, 3, 3, i8) == 3  # shallow inputs: a kernel row at a time
    assert _sim.conv_cycles(native, 4, 16, 16, 3, 3, i16) == 2 * 9
    assert _sim.depthwise_cycles(native, 4, 16, 9, i8) == 3
    assert _sim.drain_cycles(native, 65) == 2


def test_formulas_broadcast_like_numpy() -> None:
    native = _sim.Machine(list(load_machine("mid").values))
    pixels, channels = np.arange(1, 50)[:, None], np.array([8, 32, 40])[None, :]
    got = _sim.conv_cycles(native, pixels, channels, 64, 3, 3, int(Type.I8))
    want = np.ceil(pixels / 4) * np.ceil(channels / 32) * 9 * 2
    np.testing.assert_array_equal(got, want)


def test_a_transfer_costs_issue_latency_and_bursts() -> None:
    """issue + latency + whole bursts at the reachable rate + page misses (edge)."""
    native = _sim.Machine(list(load_machine("edge").values))
    bursts = 10 * math.ceil(100 / 64) * 64
    assert _sim.burst_bytes(native, 10, 100) == bursts
    assert _sim.dma_cycles(native, 10, 100, 1, False) == pytest.approx(16 + 120 + bursts / (8 * 0.8))
    assert _sim.dma_cycles(native, 10, 100, 4, True) == pytest.approx(16 + 60 + bursts / (8 * 0.8 / 4))
