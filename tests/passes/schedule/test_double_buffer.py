# SPDX-License-Identifier: Apache-2.0
"""Loads come one turn ahead, and nothing that touches the same bytes changes its order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.plan.program import Program, Region, Step
from gadl.passes.schedule.double_buffer import double_buffer


def tiles(program: Program, count: int, parts: int) -> list[str]:
    """Tiles of which each is loaded in parts, used part by part, then whole; the names of all steps."""
    names = []
    dram = program.buffer("dram", 4096)
    for tile in range(count):
        buffers = [program.buffer("sram", 16) for _ in range(parts)]
        for part, buffer in enumerate(buffers):
            program.steps.append(Step("LD0", "LD", {}, (Region(dram, 0, 16),), (Region(buffer, 0, 16),), 0))
            program.steps.append(Step("MMA", "MMA", {}, (Region(buffer, 0, 16),), (), 0))
            names += [f"load {tile}.{part}", f"use {tile}.{part}"]
        program.steps.append(Step("MMA", "MMA", {}, tuple(Region(buffer, 0, 16) for buffer in buffers), (), 0))
        names.append(f"all {tile}")
    return names


def reordered(program: Program, names: list[str]) -> list[str]:
    before = {id(step): name for step, name in zip(program.steps, names)}
    double_buffer(program, 0, ["LD0"])
    return [before[id(step)] for step in program.steps]


def test_parts_of_a_tile_come_while_the_tile_before_is_used() -> None:
    program = Program()
    assert reordered(program, tiles(program, 3, 2)) == [
        "load 0.0", "use 0.0", "load 0.1", "load 1.0", "load 1.1", "use 0.1", "all 0",
        "load 2.0", "load 2.1", "use 1.0", "use 1.1", "all 1", "use 2.0", "use 2.1", "all 2",
    ]  # fmt: skip


def test_what_is_used_once_comes_one_use_ahead() -> None:
    program = Program()
    names = []
    dram = program.buffer("dram", 4096)
    for number in range(3):
        buffer = program.buffer("sram", 16)
        program.steps.append(Step("LD0", "LD", {}, (Region(dram, 0, 16),), (Region(buffer, 0, 16),), 0))
        program.steps.append(Step("MMA", "MMA", {}, (Region(buffer, 0, 16),), (), 0))
        names += [f"load {number}", f"use {number}"]
    assert reordered(program, names) == ["load 0", "load 1", "use 0", "load 2", "use 1", "use 2"]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    program = Program()
    buffers = [program.buffer("sram", 64) for _ in range(3)]

    def region() -> Region:
        start = draw(st.integers(0, 48))
        return Region(draw(st.sampled_from(buffers)), start, draw(st.integers(1, 64 - start)))

    for _ in range(draw(st.integers(0, 14))):
        engine = draw(st.sampled_from(("LD0", "LD1", "MMA", "ST")))
        program.steps.append(Step(engine, engine, {}, (region(),), (region(),), 0))
    return program


def conflict(a: Step, b: Step) -> bool:
    def meet(x: tuple[Region, ...], y: tuple[Region, ...]) -> bool:
        return any(r.buffer is s.buffer and r.start < s.start + s.size and s.start < r.start + r.size for r in x for s in y)

    return meet(a.writes, b.writes) or meet(a.reads, b.writes) or meet(a.writes, b.reads)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 4))
def test_conflicts_keep_their_order(program: Program, start: int) -> None:
    before: list[Step] = list(program.steps)
    double_buffer(program, start, ["LD0", "LD1"])
    assert program.steps[:start] == before[:start]
    assert sorted(map(id, program.steps)) == sorted(map(id, before))
    place = {id(step): index for index, step in enumerate(program.steps)}
    for i, a in enumerate(before):
        for b in before[i + 1 :]:
            both_load = a.queue in ("LD0", "LD1") and b.queue in ("LD0", "LD1")
            if conflict(a, b) or (a.engine == b.engine and not both_load):
                assert place[id(a)] < place[id(b)]
