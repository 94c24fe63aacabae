# SPDX-License-Identifier: Apache-2.0
"""The cheapest cover by intervals, against all covers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadl.passes.plan.cuts import Interval, cheapest_cuts


def covers(count: int, costs: dict[tuple[int, int], float], first: int = 0) -> Iterator[float]:
    """The cost of every cover of `[first, count)`."""
    if first == count:
        yield 0.0
    for (start, end), cost in costs.items():
        if start == first:
            yield from (cost + rest for rest in covers(count, costs, end))


@given(st.data(), st.integers(1, 7))
def test_the_cover_is_the_cheapest_of_all(data: st.DataObject, count: int) -> None:
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count + 1)]
    costs = data.draw(st.dictionaries(st.sampled_from(pairs), st.floats(0, 100), min_size=1))
    every = list(covers(count, costs))

    def options(first: int) -> Iterator[Interval[str]]:
        return (Interval(i, j, cost, f"{i}-{j}") for (i, j), cost in costs.items() if i == first)

    if not every:
        with pytest.raises(ValueError, match="no group starts"):
            cheapest_cuts(count, options)
        return
    found = cheapest_cuts(count, options)
    assert [c.first for c in found] == [0, *(c.end for c in found[:-1])]
    assert found[-1].end == count
    assert sum(c.cost for c in found) == pytest.approx(min(every))
