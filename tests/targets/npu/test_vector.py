# SPDX-License-Identifier: Apache-2.0
"""Vector instructions that the compiler does not use yet, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from .programs import simulate

RNG = np.random.default_rng(12)


def run(instruction: str, memory: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Load the memory to SRAM 0, run one vector instruction that writes to SRAM 262144, store."""
    text = f"""
    LD@LD0 src_region=1 row_bytes={memory.nbytes} post(0,1)
    {instruction} out_addr=262144 wait(0,1) post(1,1)
    ST@ST src=262144 dst_region=2 row_bytes={out.nbytes} wait(1,1)
    END@CTL
    """
    simulate(text, {1: memory.reshape(-1).view(np.uint8), 2: out.reshape(-1).view(np.uint8)})
    return out


@pytest.mark.parametrize("rescale", [0, 1])
def test_select_broadcasts_each_operand(rescale: int) -> None:
    """cond [3, 1, 4] of bytes, a [1, 2, 4], b one number; every operand with its own scale."""
    cond = RNG.integers(0, 3, (3, 1, 4)).astype(np.int8)
    a, b = RNG.integers(-128, 128, (1, 2, 4)).astype(np.int8), np.array([-77], np.int8)
    memory = np.zeros(48, np.int8)
    memory[:12], memory[16:24], memory[32:33] = cond.reshape(-1), a.reshape(-1), b
    fields = f"rescale={rescale} a_zp=3 b_zp=-5 out_zp=9" + "".join(
        f" {side}_multiplier={2**30} {side}_shift={shift}" for side, shift in (("a", 29), ("b", 30), ("out", 31))
    )
    found = run(
        f"VBIN@VEC function=SELECT a_addr=16 b_addr=32 cond_addr=0 n0=4 n1=2 n2=3 a_s0=1 a_s1=4 cond_s0=1 cond_s2=4 "
        f"out_s0=1 out_s1=4 out_s2=8 lo=-128 hi=127 {fields}",
        memory,
        np.zeros((3, 2, 4), np.int8),
    )
    if rescale:
        scaled_a, scaled_b = 2 * (a.astype(int) - 3), b.astype(int) + 5
        expected = np.clip(9 + np.floor(np.where(cond != 0, scaled_a, scaled_b) / 2 + 0.5), -128, 127)
    else:
        expected = np.where(cond != 0, a, b)
    np.testing.assert_array_equal(found, expected)


def test_select_of_floats() -> None:
    cond, a, b = RNG.integers(0, 2, 16).astype(np.int8), RNG.standard_normal(16).astype(np.float16), RNG.standard_normal(16).astype(np.float16)
    memory = np.concatenate([cond.view(np.uint8), a.view(np.uint8), b.view(np.uint8)])
    low, high = (int(np.float32(v).view(np.int32)) for v in (-1, np.inf))
    found = run(
        f"VBIN@VEC function=SELECT a_addr=16 b_addr=48 cond_addr=0 n0=16 a_s0=1 b_s0=1 cond_s0=1 out_s0=1 "
        f"a_type=F16 b_type=F16 out_type=F16 lo={low} hi={high}",
        memory,
        np.zeros(16, np.float16),
    )
    np.testing.assert_array_equal(found, np.maximum(np.where(cond, a, b), np.float16(-1)))


def ulps(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest distance in units of the last place of the exact result (subnormals included)."""
    with np.errstate(over="ignore"):
        unit = np.spacing(np.abs(exact).astype(np.float32)).astype(float)
    return float(np.max(np.abs(found.astype(float) - exact) / unit))


@pytest.mark.parametrize(
    ("function", "exact", "low", "high"),
    [("EXP2", np.exp2, -148, 127.9), ("RCP", np.reciprocal, -126, 126), ("RSQRT", lambda x: 1 / np.sqrt(x), -148, 127.9)],
)
def test_f32_functions_are_within_one_ulp(function: str, exact: np.ufunc, low: float, high: float) -> None:
    values = RNG.uniform(low, high, 60000)
    if function != "EXP2":
        values = np.exp2(values)  # all exponents alike
    x = values.astype(np.float32)
    found = run(f"VUN@VEC function={function} a_addr=0 a_type=F32 out_type=F32 count={x.size}", x, np.zeros_like(x))
    assert ulps(found, exact(x.astype(float))) <= 1


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        ("EXP2", [-np.inf, np.inf, np.nan, 128, -151, 0, 10], [0, np.inf, np.nan, np.inf, 0, 1, 1024]),
        ("RCP", [-np.inf, np.inf, np.nan, 0, -0.0, 4, -0.5], [-0.0, 0, np.nan, np.inf, -np.inf, 0.25, -2]),
        ("RSQRT", [-1, np.inf, np.nan, 0, 4, 0.25, 1], [np.nan, 0, np.nan, np.inf, 0.5, 2, 1]),
    ],
)
def test_f32_functions_at_their_edges(function: str, x: list[float], expected: list[float]) -> None:
    given = np.array(x, np.float32)
    found = run(f"VUN@VEC function={function} a_addr=0 a_type=F32 out_type=F32 count={given.size}", given, np.zeros_like(given))
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    np.testing.assert_array_equal(np.signbit(found[~np.isnan(found)]), np.signbit(np.array(expected)[~np.isnan(expected)]))
