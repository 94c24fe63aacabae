# SPDX-License-Identifier: Apache-2.0
"""Hoisting and sharing of loads: the computation stays, and nothing changes hands."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.plan.program import Buffer, Program, Region, Step
from gadl.passes.schedule.hoist import hoist_early
from gadl.passes.schedule.prefetch import share_queues, wanted_starts


def part(buffer: Buffer, start: int = 0, size: int | None = None) -> Region:
    return Region(buffer, start, buffer.size if size is None else size)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Loads, some of them early, and products on ranges of three buffers."""
    program = Program()
    memory = program.buffer("dram", 1 << 16, address=0)
    buffers = [program.buffer("sram", 100) for _ in range(3)]

    def some() -> Region:
        start = draw(st.integers(0, 90))
        return part(draw(st.sampled_from(buffers)), start, draw(st.integers(1, 100 - start)))

    for number in range(draw(st.integers(1, 25))):
        if draw(st.booleans()):
            step = Step("LD0", "LD", {}, (part(memory),), (some(),), number, 20, early=draw(st.booleans()))
        else:
            step = Step("MMA", "X", {}, (some(),), (some(),), number, draw(st.integers(1, 50)))
        program.steps.append(step)
    return program


def conflict(a: Step, b: Step) -> bool:
    def meet(xs: tuple[Region, ...], ys: tuple[Region, ...]) -> bool:
        return any(x.buffer is y.buffer and x.start < y.start + y.size and y.start < x.start + x.size for x in xs for y in ys)

    return meet(a.writes, (*b.reads, *b.writes)) or meet(a.reads, b.writes)


@settings(deadline=None)
@given(programs())
def test_what_conflicts_keeps_its_order(program: Program) -> None:
    before, spans = list(program.steps), program.lifetimes()
    hoist_early(program)
    position = {id(s): i for i, s in enumerate(program.steps)}
    assert len(position) == len(before)
    for later, step in enumerate(before):
        assert step.early or all(position[id(s)] < position[id(step)] for s in before[:later] if not s.early)
        for other in before[:later]:
            assert not conflict(other, step) or position[id(other)] < position[id(step)]
    after = program.lifetimes()
    for key, (first, _) in spans.items():
        assert program.steps[after[key][0]] is before[first], "a buffer is used by somebody else first"


def test_a_load_moves_behind_the_last_reader_of_its_target() -> None:
    program = Program()
    memory, x, y = program.buffer("dram", 100, address=0), program.buffer("sram", 100), program.buffer("sram", 100)

    def load(start: int) -> Step:
        return Step("LD0", "LD", {}, (part(memory),), (part(x, start, 50),), 0, early=True)

    def product(start: int) -> Step:
        return Step("MMA", "X", {}, (part(x, start, 50),), (part(y),), 0)

    first, second, a, b, c, third = load(0), load(50), product(0), product(50), product(50), load(0)
    program.steps = [first, a, second, b, c, third]
    hoist_early(program)
    assert program.steps == [first, second, a, third, b, c]


def test_early_loads_have_a_queue_of_their_own_while_they_come() -> None:
    program = Program()
    memory = program.buffer("dram", 1 << 16, address=0)
    sizes = [(True, 100), (False, 4000), (False, 4000), (True, 100), (True, 100)]
    for early, size in sizes:
        buffer = program.buffer("sram", size)
        program.steps.append(Step("LD0", "LD", {}, (part(memory),), (part(buffer),), 0, 10, early=early))
        program.steps.append(Step("MMA", "X", {}, (part(buffer),), (), 0, 50))
    share_queues(program, ["LD0", "LD1"], 8, 1)
    loads = [s for s in program.steps if s.instruction == "LD"]
    assert [s.engine for s in loads if not s.early] == ["LD1", "LD1"]
    assert {s.engine for s in loads if s.early} == {"LD0"}


def test_a_load_that_expands_takes_as_long_as_what_it_reads() -> None:
    """In the time of four products memory reads four streams of a quarter each, or one block as it is."""

    def starts(part: int) -> list[int]:
        program = Program()
        constants = program.buffer("dram", 1 << 16, address=0)
        buffers = [program.buffer("sram", 400) for _ in range(8)]
        for number, buffer in enumerate(buffers):
            program.steps.append(Step("LD0", "LD", {}, (Region(constants, 0, part),), (Region(buffer, 0, 400),), number))
            program.steps += [Step("MMA", "X", {}, (Region(buffer, 0, 400),), (), number, 100) for _ in range(4)]
        wanted = wanted_starts(program, "sram", "dram", ["LD0"], 1 << 16, 1.0, 1)
        return [wanted[id(b)] for b in buffers]

    whole, streams = starts(400), starts(100)
    assert all(early <= late for early, late in zip(streams, whole)) and sum(streams) < sum(whole)
