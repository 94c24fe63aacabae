# SPDX-License-Identifier: Apache-2.0
"""Slots: what takes turns never overlaps, and fits where the order of use leaves only pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadl.passes.memory.allocate import AllocationError, allocate
from gadl.passes.memory.slots import take_turns
from gadl.passes.plan.program import Buffer, Program, Region, Step


def program_of(lives: list[tuple[int, int, int]]) -> Program:
    """Buffers of `(size, first, last)`: a step for every number up to the last."""
    program = Program()
    buffers = [program.buffer("sram", size) for size, _, _ in lives]
    for at in range(max(last for _, _, last in lives) + 1):
        used = [Region(b, 0, b.size) for b, (_, first, last) in zip(buffers, lives) if at in (first, last)]
        program.steps.append(Step("VEC", "VUN", {}, tuple(used), (), 0))
    return program


def overlaps(program: Program) -> list[tuple[Buffer, Buffer]]:
    """Pairs of buffers that share an address at a step."""
    spans = program.lifetimes()

    def apart(a: Buffer, b: Buffer) -> bool:
        assert a.address is not None and b.address is not None
        (a_first, a_last), (b_first, b_last) = spans[id(a)], spans[id(b)]
        return a_last < b_first or b_last < a_first or a.address + a.size <= b.address or b.address + b.size <= a.address

    return [(a, b) for i, a in enumerate(program.buffers) for b in program.buffers[:i] if not apart(a, b)]


@given(st.lists(st.tuples(st.sampled_from((16, 30, 48, 64, 100)), st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=25), st.integers(64, 800))
def test_turns_never_overlap(drawn: list[tuple[int, int, int]], capacity: int) -> None:
    program = program_of([(size, first, first + length) for size, first, length in drawn])
    spans = program.lifetimes()
    buffers = sorted(program.buffers, key=lambda b: spans[id(b)][0])
    if take_turns(buffers, spans, capacity):
        assert not overlaps(program)
        assert all(b.address is not None and b.address % b.alignment == 0 and b.address + b.size <= capacity for b in buffers)
    else:
        assert all(b.address is None for b in buffers)


@given(st.lists(st.tuples(st.sampled_from((16, 48, 64, 96)), st.integers(0, 30), st.integers(0, 6)), min_size=1, max_size=25), st.integers(96, 400))
def test_allocation_never_overlaps(drawn: list[tuple[int, int, int]], capacity: int) -> None:
    program = program_of([(size, first, first + length) for size, first, length in drawn])
    try:
        peak = allocate(program, "sram", capacity)
    except AllocationError:
        return
    assert peak <= capacity
    assert not overlaps(program)


def test_what_comes_next_has_a_slot_of_its_own() -> None:
    """Two sizes that alternate, room for two of each: no buffer takes the place of the one before it."""
    lives = [life for at in range(0, 40, 4) for life in ((64, at, at + 2), (32, at + 1, at + 3))]
    program = program_of(lives)
    assert take_turns(program.buffers, program.lifetimes(), 2 * (64 + 32))
    for a, b in zip(program.buffers, program.buffers[2:]):
        assert a.address != b.address


def test_pieces_are_no_reason_to_give_up() -> None:
    """A block that comes later and stays cuts what is free in two, neither of which holds the next large one."""
    lives = [(48, 0, 1), (64, 1, 20), *((48, at, at + 1) for at in range(2, 20, 2))]
    program = program_of(lives)
    allocate(program, "sram", 64 + 48 + 16)
    assert not overlaps(program)


def test_stretches_are_placed_on_their_own() -> None:
    """What is too much for one stretch does not concern the others."""
    program = program_of([(64, 0, 1), (64, 2, 3), (32, 2, 3), (96, 4, 5)])
    allocate(program, "sram", 96)
    assert not overlaps(program)
    with pytest.raises(AllocationError):
        allocate(program_of([(64, 0, 1), (64, 2, 3), (48, 2, 3)]), "sram", 96)
