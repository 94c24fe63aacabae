# SPDX-License-Identifier: Apache-2.0
"""Allocation and synchronisation of random programs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.memory.allocate import AllocationError, Reuse, allocate
from gadl.passes.plan.program import Program, Region, Step
from gadl.passes.schedule.synchronize import find_waits

ENGINES = ("LD0", "LD1", "MMA", "VEC", "ST")


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Steps on five engines over a few buffers, each written before it is read."""
    program = Program()
    written = []
    for number in range(draw(st.integers(1, 30))):
        buffer = program.buffer("sram", draw(st.integers(1, 300)), f"b{number}")
        reads = draw(st.lists(st.sampled_from(written), max_size=3, unique_by=id)) if written else []
        step = Step(
            draw(st.sampled_from(ENGINES)), "X", {}, tuple(Region(b, 0, b.size) for b in reads), (Region(buffer, 0, buffer.size),), 0
        )
        program.steps.append(step)
        written = [*written[-4:], buffer]
    return program


@settings(max_examples=150, deadline=None)
@given(programs(), st.sampled_from(Reuse))
def test_buffers_alive_together_never_overlap(program: Program, reuse: Reuse) -> None:
    try:
        peak = allocate(program, "sram", 4096, reuse)
    except AllocationError:
        return
    spans = program.lifetimes()
    used = [b for b in program.buffers if id(b) in spans]
    for i, a in enumerate(used):
        assert a.address is not None and a.address % a.alignment == 0 and a.address + a.size <= 4096
        for b in used[i + 1 :]:
            together = spans[id(a)][0] <= spans[id(b)][1] and spans[id(b)][0] <= spans[id(a)][1]
            apart = a.address + a.size <= b.address or b.address + b.size <= a.address  # type: ignore[operator]
            assert apart or not together
    assert peak <= 4096


@settings(max_examples=150, deadline=None)
@given(programs(), st.randoms(use_true_random=False))
def test_every_run_that_obeys_the_waits_keeps_the_order_of_conflicts(program: Program, random: object) -> None:
    """Run the queues in a random legal order: whatever conflicts in memory still happens in sequential order."""
    try:
        allocate(program, "sram", 1200)
    except AllocationError:
        return
    waits = find_waits(program)
    needs: dict[int, list[int]] = {}
    for wait in waits:
        assert program.steps[wait.step].engine != program.steps[wait.on].engine
        needs.setdefault(wait.step, []).append(wait.on)
    queues = {e: [i for i, s in enumerate(program.steps) if s.engine == e] for e in ENGINES}
    done: list[int] = []
    while any(queues.values()):
        ready = [e for e, q in queues.items() if q and all(n in done for n in needs.get(q[0], []))]
        assert ready, "deadlock"
        done.append(queues[random.choice(ready)].pop(0))  # type: ignore[attr-defined]
    position = {step: i for i, step in enumerate(done)}
    for later in range(len(program.steps)):
        for earlier in range(later):
            if conflict(program.steps[earlier], program.steps[later]):
                assert position[earlier] < position[later]


def conflict(a: Step, b: Step) -> bool:
    def hits(xs: tuple[Region, ...], ys: tuple[Region, ...]) -> bool:
        return any(
            (x.buffer.address or 0) + x.start < (y.buffer.address or 0) + y.start + y.size
            and (y.buffer.address or 0) + y.start < (x.buffer.address or 0) + x.start + x.size
            for x in xs for y in ys
        )  # fmt: skip

    return hits(a.writes, (*b.reads, *b.writes)) or hits(a.reads, b.writes)


def test_what_cannot_fit_is_an_error() -> None:
    program = Program()
    buffer = program.buffer("sram", 100)
    program.steps.append(Step("LD0", "X", {}, (), (Region(buffer, 0, 100),), 0))
    with pytest.raises(AllocationError):
        allocate(program, "sram", 64)


def test_the_oldest_memory_is_reused_first() -> None:
    """Three tiles that live one after another take three places, not one: loads run ahead."""
    program = Program()
    for _ in range(3):
        buffer = program.buffer("sram", 64)
        region = Region(buffer, 0, 64)
        program.steps.append(Step("LD0", "X", {}, (), (region,), 0))
        program.steps.append(Step("VEC", "X", {}, (region,), (), 0))
    allocate(program, "sram", 192)
    assert sorted(b.address or 0 for b in program.buffers) == [0, 64, 128]
