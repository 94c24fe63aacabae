# SPDX-License-Identifier: Apache-2.0
"""zb1 weight streams against a decoder written from the specification's text, and `LD decode` in programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gadl.targets.npu import _sim

from .programs import simulate


def decoded(stream: bytes, size: int) -> np.ndarray:
    """The bytes of a stream, one bit at a time."""
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
    at, out = 0, []

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(sum(int(b) << i for i, b in enumerate(bits[at - count : at])))

    while len(out) < size:
        length, code = min(64, size - len(out)), take(3)
        if code == 0:
            out += [take(8) for _ in range(length)]
            continue
        mask, width = take(64), code + 1
        values = [take(width) if mask >> i & 1 else 0 for i in range(length)]
        out += [v - (1 << width) if v >> (width - 1) else v for v in values]
    assert len(bits) - at < 8
    return np.array(out).astype(np.uint8).view(np.int8)


def tensors() -> st.SearchStrategy[np.ndarray]:
    """Blocks of every width, sparse and dense."""
    sizes = st.integers(1, 200)
    wide = st.integers(1, 7).flatmap(lambda w: hnp.arrays(np.int8, sizes, elements=st.integers(-(1 << w), (1 << w) - 1)))
    return st.tuples(wide, st.floats(0, 1), st.integers(0, 99)).map(lambda t: _thinned(*t))


def _thinned(values: np.ndarray, share: float, seed: int) -> np.ndarray:
    return values * (np.random.default_rng(seed).random(values.size) >= share).astype(np.int8)


@given(tensors())
def test_streams_decode_to_what_was_encoded(values: np.ndarray) -> None:
    stream = _sim.encode_zb1(values.tobytes())
    np.testing.assert_array_equal(decoded(stream, values.size), values)
    assert len(stream) * 8 < values.size * 8 + -(-values.size // 64) * 3 + 8, "raw blocks are the worst case"


@given(tensors(), st.lists(st.integers(0, 200), max_size=4))
def test_no_cuts_hold_less_than_the_bound(values: np.ndarray, cuts: list[int]) -> None:
    """Nor does any cut where each byte counts for itself."""
    assert len(_sim.encode_zb1(values.tobytes())) == _sim.zb1_bytes(values.tobytes())
    parts = [p.tobytes() for p in np.split(values, sorted(min(c, values.size) for c in cuts)) if p.size]
    held = sum(min(len(p), _sim.zb1_bytes(p)) for p in parts)
    assert _sim.least_zb1_bits(values.tobytes()) <= 8 * held


@settings(deadline=None)
@given(tensors())
def test_the_bound_is_that_of_the_best_blocks(values: np.ndarray) -> None:
    """The same by trying every block, in the specification's words."""
    least = [0.0]
    for end in range(1, values.size + 1):
        options = [least[end - 1] + 8]
        count, width = 0, 2
        for start in range(end - 1, max(-1, end - 65), -1):
            value = int(values[start])
            count, width = count + (value != 0), max(width, (value if value >= 0 else ~value).bit_length() + 1)
            options.append(least[start] + 3 + 64 + count * width)
        least.append(min(options))
    assert _sim.least_zb1_bits(values.tobytes()) == least[-1]


def load(stream: bytes, size: int) -> np.ndarray:
    """What the machine makes of a stream."""
    out = np.zeros(size, np.uint8)
    text = f"LD@LD0 src_region=1 row_bytes={len(stream)} decode=1 decoded_bytes={size} post(0,1)\nST@ST dst_region=2 row_bytes={size} wait(0,1)\nEND@CTL"
    report = simulate(text, {1: np.frombuffer(stream, np.uint8).copy(), 2: out})
    assert report["dram_read_bytes"] == len(stream)
    return out.view(np.int8)


@given(tensors())
def test_the_machine_expands_streams(values: np.ndarray) -> None:
    np.testing.assert_array_equal(load(_sim.encode_zb1(values.tobytes()), values.size), values)


@given(st.binary(min_size=1, max_size=200), st.integers(1, 300))
def test_any_bytes_expand_or_end_in_a_clean_error(stream: bytes, size: int) -> None:
    try:
        load(stream, size)
    except _sim.SimError as error:
        assert "stream" in str(error)


@pytest.mark.parametrize("extra", ["n1=2", "transpose=1 elem_bytes=1", "decoded_bytes=0"])
def test_a_stream_is_one_row(extra: str) -> None:
    with pytest.raises(_sim.SimError, match="one row"):
        simulate(f"LD@LD0 src_region=1 row_bytes=16 decode=1 decoded_bytes=16 {extra}\nEND@CTL", {1: np.zeros(64, np.uint8)})
