# SPDX-License-Identifier: Apache-2.0
"""Static memory allocation by heuristic and search: random items, cut rectangles, programs, the MiniMalloc cases."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.search import Item, heuristic, lower_bound, search, solve
from gadl.passes.plan.program import Program, Region, Step

ROOT = Path(__file__).parents[3]
CASES = sorted((ROOT / "tests/data/minimalloc").glob("*.csv"))
MIB = 1 << 20


def check(items: list[Item], offsets: list[int], capacity: int) -> None:
    """Every item lies inside, aligned, and apart from all that it meets."""
    assert len(offsets) == len(items)
    for a, at in zip(items, offsets):
        assert 0 <= at <= capacity - a.size and at % a.alignment == 0
    for n, (a, at) in enumerate(zip(items, offsets)):
        for b, there in zip(items[:n], offsets):
            assert a.end <= b.start or b.end <= a.start or at + a.size <= there or there + b.size <= at


def cut(random: Random, count: int, time: int, height: int) -> list[Item]:
    """A full rectangle cut into `count` items at most, by straight cuts from edge to edge."""
    pieces = [(0, time, 0, height)]
    for _ in range(10 * count):
        if len(pieces) == count:
            break
        number = random.randrange(len(pieces))
        start, end, low, high = pieces[number]
        if random.random() < 0.5 and end - start > 1:
            at = random.randrange(start + 1, end)
            pieces[number : number + 1] = [(start, at, low, high), (at, end, low, high)]
        elif high - low > 1:
            at = random.randrange(low + 1, high)
            pieces[number : number + 1] = [(start, end, low, at), (start, end, at, high)]
    random.shuffle(pieces)
    return [Item(start, end, high - low) for start, end, low, high in pieces]


items = st.builds(
    lambda start, life, size, alignment: Item(start, start + life, size, alignment),
    st.integers(0, 30), st.integers(1, 10), st.integers(1, 100), st.sampled_from([1, 4, 16]),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(items, max_size=40), st.integers(0, 600))
def test_what_is_found_is_apart_and_aligned(items: list[Item], capacity: int) -> None:
    for offsets in (heuristic(items, capacity), search(items, capacity).offsets, solve(items, capacity)):
        if offsets is not None:
            check(items, offsets, capacity)


def fits_somewhere(items: list[Item], capacity: int, offsets: list[int]) -> bool:
    """Try every offset of every item."""
    if len(offsets) == len(items):
        return True
    item = items[len(offsets)]
    for offset in range(0, capacity - item.size + 1, item.alignment):
        if all(
            item.end <= b.start or b.end <= item.start or offset + item.size <= at or at + b.size <= offset for b, at in zip(items, offsets)
        ) and fits_somewhere(items, capacity, [*offsets, offset]):
            return True
    return False


small = st.builds(
    lambda start, life, size, alignment: Item(start, start + life, size, alignment),
    st.integers(0, 5), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 1, 2, 3]),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(small, max_size=6), st.integers(1, 9))
def test_the_search_decides_as_trying_everything_does(items: list[Item], capacity: int) -> None:
    found = search(items, capacity)
    assert found.decided and (found.offsets is not None) == fits_somewhere(items, capacity, [])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24))
def test_a_cut_rectangle_is_put_together_again(seed: int, count: int) -> None:
    pieces = cut(Random(seed), count, 40, 60)
    offsets = search(pieces, 60).offsets
    assert lower_bound(pieces) == 60 and offsets is not None
    check(pieces, offsets, 60)
    below = search(pieces, 59)
    assert below.decided and below.offsets is None


def test_the_search_finds_what_greedy_orders_miss() -> None:
    missed = 0
    for seed in range(40):
        pieces = cut(Random(seed), 30, 100, 1000)
        missed += heuristic(pieces, 1000) is None
        offsets = solve(pieces, 1000)
        assert offsets is not None
        check(pieces, offsets, 1000)
    assert missed > 10


def test_the_result_does_not_change_and_the_steps_are_kept() -> None:
    pieces = cut(Random(1), 60, 1000, 10000)
    assert search(pieces, 10000, 10**6) == search(pieces, 10000, 10**6)
    stopped = search(pieces, 10000, 1000)
    assert not stopped.decided and stopped.offsets is None and stopped.steps < 20000


def program_of(pieces: list[Item], unit: int) -> Program:
    """Steps that use buffers as long as the pieces live; a piece of size 1 takes `unit`."""
    program = Program()
    buffers = [program.buffer("sram", piece.size * unit, alignment=unit) for piece in pieces]
    for time in range(max(piece.end for piece in pieces)):
        used = tuple(Region(b, 0, b.size) for b, piece in zip(buffers, pieces) if piece.start <= time < piece.end)
        program.steps.append(Step("VEC", "X", {}, used, (), time))
    return program


def test_programs_that_fill_the_memory_are_placed() -> None:
    for seed in range(20):
        pieces = cut(Random(seed), 20, 30, 40)
        program = program_of(pieces, 16)
        allocate(program, "sram", 640)
        check([Item(p.start, p.end, 16 * p.size, 16) for p in pieces], [b.address or 0 for b in program.buffers], 640)
        with pytest.raises(AllocationError):
            allocate(program_of(pieces, 16), "sram", 639)


def test_nothing_needs_nothing() -> None:
    assert solve([], 0) == [] and search([], 0).offsets == [] and lower_bound([]) == 0


@pytest.mark.parametrize("item", [Item(1, 1, 1), Item(0, 1, 0), Item(0, 1, 1, 0)])
def test_an_item_without_extent_is_an_error(item: Item) -> None:
    with pytest.raises(ValueError):
        search([item], 10)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.name[0])
def test_minimalloc_cases_fit_in_a_mebibyte(path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from minimalloc import load

    case = load(path)
    found = search(case, MIB, 4_000_000_000)
    assert lower_bound(case) <= MIB and found.offsets is not None
    check(case, found.offsets, MIB)


def test_all_eleven_cases_are_there() -> None:
    assert [p.name[0] for p in CASES] == list("ABCDEFGHIJK")
