# SPDX-License-Identifier: Apache-2.0
"""Observers and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.observers import MinMax, ObserverKind, Percentile, Range


def test_minmax_takes_the_extremes_and_zero() -> None:
    observer = MinMax()
    for data in ([1.0, 2.0], [0.5, 7.0], []):
        observer.update(np.array(data, np.float32))
    assert observer.range() == Range(0.0, 7.0)


@pytest.mark.parametrize("kind", list(ObserverKind))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_noticed(kind: ObserverKind, bad: float) -> None:
    observer = kind.create()
    observer.update(np.array([1.0, bad], np.float32))
    assert not observer.finite


def test_percentile_agrees_with_the_sorted_values() -> None:
    data = np.random.default_rng(0).normal(0, 1, 200_000)
    observer = Percentile(99.0)
    for part in np.array_split(data, 7):
        observer.update(part)
    low, high = np.percentile(data, [0.5, 99.5])
    bin_width = 2 * 2 * np.abs(data).max() / 8192
    assert observer.range().low == pytest.approx(low, abs=bin_width)
    assert observer.range().high == pytest.approx(high, abs=bin_width)


def test_percentile_drops_one_outlier_of_many() -> None:
    data = np.ones(100_000, np.float32)
    data[5] = 1000
    observer = Percentile(99.9)
    observer.update(data)
    assert observer.range().high < 1.5
    assert observer.range().low == 0


def test_percentile_of_all_is_the_extremes() -> None:
    observer = Percentile(100)
    observer.update(np.array([-3.0, 11.0]))
    assert observer.range() == Range(-3.0, 11.0)


def test_percentile_of_zeros() -> None:
    observer = Percentile()
    observer.update(np.zeros(10))
    assert observer.range() == Range(0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=1, max_size=5))
def test_percentile_never_leaves_the_extremes(batches: list[list[float]]) -> None:
    narrow, wide = Percentile(99.0, bins=64), MinMax()
    for batch in batches:
        narrow.update(np.array(batch))
        wide.update(np.array(batch))
    assert wide.range().low <= narrow.range().low <= narrow.range().high <= wide.range().high
    assert int(narrow._counts.sum()) == sum(map(len, batches))


def _doubled() -> Graph:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 2)))
    graph.set_outputs([Builder(graph)("add", x, x, result="y")])
    return graph


def test_calibrate_sees_every_value_and_reports_progress() -> None:
    seen: list[int] = []
    feeds = [{"x": np.array([[1.0, -2.0]], np.float32)}, {"x": np.array([[3.0, 0.0]], np.float32)}]
    ranges = calibrate(_doubled(), feeds, progress=seen.append)
    assert ranges == {"x": Range(-2.0, 3.0), "y": Range(-4.0, 6.0)}
    assert seen == [1, 2]


def test_calibrate_with_another_executor() -> None:
    ranges = calibrate(_doubled(), [{}], run=lambda graph, feeds: {"x": np.ones(1), "y": np.full(1, 9.0)})
    assert ranges["y"] == Range(0.0, 9.0)


@pytest.mark.parametrize("feeds", [[], [{"x": np.full((1, 2), np.nan, np.float32)}]])
def test_calibrate_refuses_no_samples_and_nan(feeds: list[dict[str, np.ndarray]]) -> None:
    with pytest.raises(GadlError) as caught:
        calibrate(_doubled(), feeds)
    assert caught.value.diagnostics[0].code == "GADL-Q010"


def test_calibrate_keeps_the_extremes_of_what_is_returned() -> None:
    """A percentile cuts `x`, and not its double."""
    data = np.ones((1, 2), np.float32)
    data[0, 0] = 100
    feeds = [{"x": np.ones((1, 2), np.float32)}] * 60 + [{"x": data}]
    ranges = calibrate(_doubled(), feeds, lambda: Percentile(98))
    assert ranges["x"].high < 2
    assert ranges["y"] == Range(0.0, 200.0)


@pytest.mark.parametrize(("extreme", "cut"), [(1.2, False), (1.3, True), (50.0, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_only_long_tails_are_cut(extreme: float, cut: bool, sign: int) -> None:
    observer = ObserverKind.LONG_TAILS.create(99)
    observer.update(sign * np.linspace(0, 1, 1000, dtype=np.float32))
    observer.update(np.array([sign * extreme], np.float32))
    found = observer.range()
    reach = found.high if sign > 0 else -found.low
    assert (reach < 1.05) == cut
    assert cut or reach == pytest.approx(extreme)
