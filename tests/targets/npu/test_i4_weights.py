# SPDX-License-Identifier: Apache-2.0
"""Products with 4-bit weights against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Container
from gadl.targets.npu.instruction import encode
from gadl.targets.npu.machine import PARAMETERS

from .programs import EDGE, simulate

RNG = np.random.default_rng(4)


def packed(weights: np.ndarray) -> np.ndarray:
    """Rows of i4, two to a byte, the first in the low half, each row on a byte of its own."""
    rows = weights.reshape(-1, weights.shape[-1]).astype(np.uint8) & 15
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return rows[:, ::2] | rows[:, 1::2] << 4


def run(product: str, a: np.ndarray, b: np.ndarray, outputs: int) -> np.ndarray:
    """Load both operands (b at byte 1024), multiply, drain as i32 with multiplier 1, store."""
    memory = np.zeros(2048, np.uint8)
    memory[: a.size] = a.reshape(-1).view(np.uint8)
    memory[1024 : 1024 + b.size] = b.reshape(-1)
    out = np.zeros(outputs, np.int32)
    text = f"""
    LD@LD0 src_region=1 row_bytes=2048 post(0,1)
    {product} wait(0,1)
    EPI@MMA oh=1 ow=1 oc={outputs} out_addr=4096 out_type=I32 lo=-1000000 hi=1000000 post(1,1)
    ST@ST src=4096 dst_region=2 row_bytes={outputs * 4} wait(1,1)
    END@CTL
    """
    simulate(text, {1: memory, 2: out.view(np.uint8)})
    return out


@pytest.mark.parametrize("k", [1, 7, 16, 33])
@pytest.mark.parametrize("b_kn", [0, 1])
def test_matrix_product(k: int, b_kn: int) -> None:
    m, n = 3, 5
    a, b = RNG.integers(-128, 128, (m, k)).astype(np.int8), RNG.integers(-8, 8, (n, k))
    stored = packed(b.T if b_kn else b)
    text = f"MMA_MATMUL@MMA a_addr=0 b_addr=1024 m={m} n={n} k={k} a_stride={k} b_stride={stored.shape[1]} b_kn={b_kn} a_zp=3 b_zp=-2 w_type=I4"
    np.testing.assert_array_equal(run(text, a, stored, m * n).reshape(m, n), (a.astype(int) - 3) @ (b.T + 2))


def test_convolution() -> None:
    x, w = RNG.integers(-128, 128, (2, 2, 3)).astype(np.int8), RNG.integers(-8, 8, (5, 2, 2, 3))
    stored = packed(w.reshape(5, 12))
    text = (
        "MMA_CONV@MMA x_row_stride=6 x_pix_stride=3 ih=2 iw=2 ic=3 kh=2 kw=2 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=1 ow=1 oc=5 "
        "x_zp=1 w_addr=1024 w_type=I4"
    )
    np.testing.assert_array_equal(run(text, x, stored, 5), ((x.astype(int) - 1)[None] * w).sum((1, 2, 3)))


def test_depthwise() -> None:
    x, w = RNG.integers(-128, 128, (2, 2, 5)).astype(np.int8), RNG.integers(-8, 8, (4, 5))
    text = (
        "MMA_DW@MMA x_row_stride=10 x_pix_stride=5 ih=2 iw=2 ic=5 kh=2 kw=2 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=1 ow=1 "
        "w_addr=1024 w_tap_stride=3 w_type=I4"
    )
    np.testing.assert_array_equal(run(text, x, packed(w), 5), (x.reshape(4, 5).astype(int) * w).sum(0))


def test_the_rate_is_its_own() -> None:
    """i8 with i4 weights runs at `mma.rate.i8w4`."""
    text = "MMA_MATMUL@MMA a_addr=0 b_addr=131072 m=64 n=64 k=16 a_stride=16 b_stride=16 {}\nEND@CTL"
    values = tuple(0.5 if p.path == "mma.rate.i8w4" else v for p, v in zip(PARAMETERS, EDGE.values))
    slow = replace(EDGE, values=values)
    cycles = [
        _sim.simulate(Container(slow, [encode(assemble(text.format(w)))], b"", {}, [], []).to_bytes(), {})["cycles"]
        for w in ("w_type=I8", "w_type=I4")
    ]
    assert cycles[1] - cycles[0] == 64


@pytest.mark.parametrize("types", ["x_type=I16 w_type=I4", "x_type=F16 w_type=I8", "x_type=I8 w_type=9"])
def test_types_that_no_product_takes(types: str) -> None:
    with pytest.raises(_sim.SimError):
        simulate(f"MMA_MATMUL@MMA a_addr=0 b_addr=1024 m=1 n=1 k=1 a_stride=4 b_stride=4 {types}\nEND@CTL", {})
