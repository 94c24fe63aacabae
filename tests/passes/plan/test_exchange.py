# SPDX-License-Identifier: Apache-2.0
"""Division of rows among cores: all rows that are needed are there, and what is exchanged is the cheapest of all choices."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.plan.division import Division, Shares, owned
from gadl.passes.plan.exchange import Choice, Prices, choose_exchanges
from gadl.passes.plan.rows import RowLayer

from .test_rows import chains

CORES, COUNTS = 4, (0, 2, 1)


def shares_of(layers: list[RowLayer], heights: dict[int, int], choices: dict[int, Choice]) -> Shares:
    """The last value must reach memory."""
    owners = {value: choice.owners for value, choice in choices.items()}
    return Shares(layers, heights, CORES, {layers[-1].result}, frozenset(), owners, frozenset())


def cost(division: Division, layers: list[RowLayer], prices: Prices) -> float:
    """What a division costs, counted from its loads and stores, row by row."""
    total = 0.0
    made = {layer.result for layer in layers}
    for value in division.needed:
        loads = [set(range(*rows)) for core in range(CORES) for rows in division.loads(value, core)]
        moved = sum(map(len, loads))
        if value not in made:
            total += prices.moved(value, moved)
            continue
        if value not in division.stored:
            moved += sum(high - low for core in range(CORES) for low, high in division.stores(value, core))
        total += prices.made(value, max(high - low for low, high in division.made[value]))
        total += prices.moved(value, moved) + prices.exchange if moved else 0.0
    return total


@st.composite
def prices(draw: st.DrawFn) -> Prices:
    """Cycles that are exact in floating point."""
    moved = draw(st.lists(st.integers(0, 9), min_size=8, max_size=8))
    made = draw(st.lists(st.integers(0, 9), min_size=8, max_size=8))
    return Prices(lambda value, rows: moved[value] * rows, lambda value, rows: made[value] * rows, draw(st.integers(0, 9)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains().filter(lambda found: len(found[0]) <= 3), prices())
def test_the_choice_is_the_cheapest_of_all(found: tuple[list[RowLayer], dict[int, int]], prices: Prices) -> None:
    layers, heights = found
    values = [layer.result for layer in layers]
    chosen = choose_exchanges(shares_of(layers, heights, {}), prices, COUNTS, frozenset())
    options = [Choice(count, exchanged) for count in COUNTS for exchanged in (False, True)]

    def costs(choices: dict[int, Choice]) -> float:
        exchanged = {value for value, choice in choices.items() if choice.exchanged}
        return cost(Division(shares_of(layers, heights, choices), exchanged), layers, prices)

    assert costs(chosen) == min(costs(dict(zip(values, choices))) for choices in product(options, repeat=len(values)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data(), chains())
def test_rows_that_a_core_reads_are_made_there_or_stored_by_another(
    data: st.DataObject, found: tuple[list[RowLayer], dict[int, int]]
) -> None:
    layers, heights = found
    choices = {m.result: Choice(data.draw(st.sampled_from((0, 1, 2, 3, 4))), data.draw(st.booleans())) for m in layers}
    division = Division(shares_of(layers, heights, choices), {value for value, choice in choices.items() if choice.exchanged})
    for layer, core in product(layers, range(CORES)):
        for value, rows in layer.reads:
            low, high = division.made[layer.result][core]
            wanted = {row for at in range(low, high) for row in range(int(rows.low[at]), int(rows.high[at]))}
            here = set(range(*division.held(value, core)))
            assert wanted <= here
            loaded = {row for part in division.loads(value, core) for row in range(*part)}
            if value in division.made:
                assert wanted <= loaded | set(range(*division.made[value][core]))
                stored = {row for other in range(CORES) for part in division.stores(value, other) for row in range(*part)}
                assert loaded <= stored
    last = layers[-1].result
    assert {row for core in range(CORES) for part in division.stores(last, core) for row in range(*part)} == set(range(heights[last]))


@pytest.mark.parametrize("rows", [1, 3, 7, 14, 224])
@pytest.mark.parametrize("owners", [0, 1, 2, 3, 4])
def test_each_row_has_one_owner_and_fewer_owners_lie_among_more(rows: int, owners: int) -> None:
    parts = owned(rows, CORES, owners)
    assert [row for part in parts for row in range(*part)] == list(range(rows))
    assert sum(high > low for low, high in parts) == min(rows, owners or CORES)
    sizes = [high - low for low, high in parts if high > low]
    assert max(sizes) - min(sizes) <= 1
    if owners in (1, 2) and rows >= CORES:
        fine = owned(rows, CORES)
        assert all(part[0] == fine[core][0] for core, part in enumerate(parts) if part[1] > part[0])
