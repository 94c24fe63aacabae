# SPDX-License-Identifier: Apache-2.0
"""Row flow: every row is made once, before it is read; reserves hold what is still read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gadl.passes.plan.rows import RowFlow, RowLayer, RowMap


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[RowLayer], dict[int, int]]:
    """A chain of windows with some skips (a result of the same height read again later); some layers lag behind those before them."""
    heights = {0: draw(st.integers(1, 40))}
    layers: list[RowLayer] = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        operand = draw(st.integers(max(0, number - 2), number - 1))
        stride, reach = draw(st.integers(1, 3)), draw(st.integers(1, 5))
        pad = draw(st.integers(0, reach - 1))
        rows = max(1, (heights[operand] + 2 * pad - reach) // stride + 1)
        reads = [(operand, RowMap.window(rows, heights[operand], stride, reach, pad))]
        reads += [(v, RowMap.same(rows)) for v, h in heights.items() if h == rows and draw(st.booleans())]
        if draw(st.integers(0, 9)) == 0:
            reads.append((0, RowMap.whole(rows, heights[0])))
        heights[number] = rows
        lag = max((layers[v - 1].lag for v, _ in reads if v), default=0) + draw(st.sampled_from((0, 0, 1)))
        layers.append(RowLayer(number, tuple(reads), lag))
    return layers, heights


@given(chains(), st.integers(1, 12), st.integers(0, 2))
def test_rows_are_there_when_they_are_read_and_fit_their_reserve(
    group: tuple[list[RowLayer], dict[int, int]], iterations: int, ahead: int
) -> None:
    layers, heights = group
    flow = RowFlow(layers, heights, iterations)
    base = dict.fromkeys(heights, 0)
    made = dict.fromkeys(heights, 0)
    room = {v: flow.capacity(v, ahead) for v in flow.upto}

    def grow(value: int, end: int, iteration: int) -> None:
        """The sliding reserve, as an expansion keeps it."""
        if end <= made[value]:
            return
        if end - base[value] > room[value]:
            keep = min(int(flow.needed_from(value)[iteration]), made[value])
            assert made[value] - keep <= keep - base[value], "the halo moves without overlap"
            base[value] = keep
        made[value] = end
        assert end - base[value] <= room[value]

    for iteration in range(flow.iterations):
        for layer in layers:
            first, end = flow.rows(layer.result, iteration)
            assert first == made[layer.result]
            if end == first:
                continue
            for value, rows in layer.reads:
                low, high = int(rows.low[first]), int(rows.high[end - 1])
                if value == 0:
                    grow(value, flow.rows(0, iteration)[1], iteration)
                assert base[value] <= low or low == high, "a row was dropped too early"
                assert high <= made[value], "a row is read before it is made"
            grow(layer.result, end, iteration)
    assert all(made[layer.result] == heights[layer.result] for layer in layers)


def test_a_chain_of_windows_keeps_its_halo() -> None:
    """Two 3x3 windows on 16 rows in 4 iterations: each later iteration adds 4 rows and finds 2 of the operand, which may move."""
    heights = {0: 16, 1: 16, 2: 16}
    window = RowMap.window(16, 16, 1, 3, 1)
    flow = RowFlow([RowLayer(1, ((0, window),)), RowLayer(2, ((1, window),))], heights, 4)
    assert flow.upto[2].tolist() == [4, 8, 12, 16]
    assert flow.upto[1].tolist() == [5, 9, 13, 16]
    assert flow.upto[0].tolist() == [6, 10, 14, 16]
    assert (flow.halo(1), flow.capacity(1)) == (2, 8)


def test_a_layer_that_lags_reads_what_is_there_already() -> None:
    """Scores, probabilities, products: the last one is an iteration behind, so two iterations of its operand are kept."""
    heights = {0: 12, 1: 12, 2: 12, 3: 12}
    same = RowMap.same(12)
    flow = RowFlow([RowLayer(1, ((0, same),)), RowLayer(2, ((1, same),)), RowLayer(3, ((2, same),), 1)], heights, 3)
    assert flow.iterations == 4
    assert flow.upto[2].tolist() == [4, 8, 12, 12] and flow.upto[3].tolist() == [0, 4, 8, 12]
    assert (flow.capacity(1), flow.capacity(2)) == (4, 12)
    assert RowFlow([RowLayer(1, ((0, same),)), RowLayer(2, ((1, same),), 1)], heights, 1).iterations == 1


def test_maps_ascend() -> None:
    made = RowMap.of([3, 1, 2], [4, 3, 5])
    np.testing.assert_array_equal(made.low, [1, 1, 2])
    np.testing.assert_array_equal(made.high, [4, 4, 5])
