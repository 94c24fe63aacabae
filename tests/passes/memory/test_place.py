# SPDX-License-Identifier: Apache-2.0
"""Placement with early loads, prefetch and banks, on random programs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.passes.memory.allocate import AllocationError
from gadl.passes.memory.banks import Banks, Greed
from gadl.passes.memory.place import Order, Policy, Rule, place
from gadl.passes.plan.program import Buffer, Program, Region, Step
from gadl.passes.schedule.prefetch import move_loads, wanted_starts

CAPACITY = 2048
POLICIES = tuple(Policy(order, rule) for order in Order for rule in Rule)


def whole(buffer: Buffer) -> Region:
    return Region(buffer, 0, buffer.size)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Layers: weights from constants, a product of the last result, sometimes a store."""
    program = Program()
    constants = program.buffer("constants", 1 << 16, address=0)
    memory = program.buffer("dram", 1 << 16, address=0)
    last = program.buffer("sram", draw(st.integers(16, 300)))
    program.steps.append(Step("LD0", "X", {}, (whole(memory),), (whole(last),), 0, draw(st.integers(1, 50))))
    for number in range(draw(st.integers(1, 12))):
        weights, result = (program.buffer("sram", draw(st.integers(16, 300))) for _ in range(2))
        program.steps.append(Step("LD1", "X", {}, (whole(constants),), (whole(weights),), number, draw(st.integers(1, 90))))
        program.steps.append(Step("MMA", "X", {}, (whole(last), whole(weights)), (whole(result),), number, draw(st.integers(1, 90))))
        if draw(st.booleans()):
            program.steps.append(Step("ST", "X", {}, (whole(result),), (whole(memory),), number, draw(st.integers(1, 50))))
        last = result
    return program


def arranged(program: Program, policy: Policy = POLICIES[0], banks: Banks | None = None) -> None:
    wanted = wanted_starts(program, "sram", "constants", ["LD0", "LD1", "ST"], CAPACITY, 8, 2)
    move_loads(program, place(program, "sram", CAPACITY, wanted, policy, banks))


@settings(deadline=None)
@given(programs(), st.sampled_from(POLICIES))
def test_loads_come_early_and_nothing_overlaps(program: Program, policy: Policy) -> None:
    before = list(program.steps)
    try:
        arranged(program, policy)
    except AllocationError:
        return
    spans = program.lifetimes()
    used = [b for b in program.buffers if b.memory == "sram"]
    for i, a in enumerate(used):
        assert a.address is not None and a.address % a.alignment == 0 and a.address + a.size <= CAPACITY
        for b in used[i + 1 :]:
            together = spans[id(a)][0] <= spans[id(b)][1] and spans[id(b)][0] <= spans[id(a)][1]
            assert not together or a.address + a.size <= b.address or b.address + b.size <= a.address  # type: ignore[operator]
    # Constants that found room may pass others that did not; all else keeps its order.
    position = {id(s): i for i, s in enumerate(program.steps)}
    for index, step in enumerate(before):
        if step.engine == "LD1":
            assert position[id(step)] <= index, "a load comes later than it was"
    others = [s for s in before if s.engine != "LD1"]
    assert [id(s) for s in program.steps if s.engine != "LD1"] == [id(s) for s in others]


def test_weights_are_loaded_while_the_array_is_busy() -> None:
    """A long product first: the next layer's weights do not wait for its end."""
    program = Program()
    constants = program.buffer("constants", 1024, address=0)
    values = [program.buffer("sram", 64, f"v{i}") for i in range(3)]
    for number in range(2):
        weights = program.buffer("sram", 64, f"w{number}")
        program.steps.append(Step("LD0", "X", {}, (whole(constants),), (whole(weights),), number, 10))
        program.steps.append(Step("MMA", "X", {}, (whole(values[number]), whole(weights)), (whole(values[number + 1]),), number, 1000))
    arranged(program)
    assert [s.engine for s in program.steps] == ["LD0", "LD0", "MMA", "MMA"]


def test_what_is_used_together_lies_in_different_banks() -> None:
    program = Program()
    a, b = (program.buffer("sram", 64, name) for name in "ab")
    program.steps += [Step("LD0", "X", {}, (), (whole(a),), 0), Step("MMA", "X", {}, (whole(a),), (whole(b),), 0, 100)]
    banks = Banks(CAPACITY // 4, {id(a): [(b, 100.0)], id(b): [(a, 100.0)]})
    arranged(program, Policy(Order.USE, Rule.COMPANY), banks)
    assert a.address is not None and b.address is not None
    assert a.address // banks.size != b.address // banks.size
    assert banks.meeting(b, b.address) == 0
    assert banks.meeting(b, a.address) == pytest.approx(100)


def test_parts_of_a_buffer_in_groups_of_banks() -> None:
    assert Banks(100, {}).parts(50, 200) == pytest.approx({0: 0.25, 1: 0.5, 2: 0.25})


def test_who_asks_for_more_than_one_group_gives_lies_in_two() -> None:
    """One group serves two thirds of what is asked for; two groups serve all of it, if each holds half."""
    program = Program()
    a, b = (program.buffer("sram", 64, name) for name in "ab")
    program.steps += [Step("LD0", "X", {}, (), (whole(a),), 0), Step("MMA", "X", {}, (whole(a),), (whole(b),), 0, 100)]
    banks = Banks(CAPACITY // 4, {}, {id(a): [Greed(0, 64, 1.5, 100.0)]})
    assert banks.alone(a, 0) == pytest.approx(50)
    assert banks.alone(a, banks.size - 16) == pytest.approx(100 * (0.75 * 1.5 - 1))
    arranged(program, Policy(Order.USE, Rule.COMPANY), banks)
    assert a.address == banks.size - 32
    assert banks.meeting(a, a.address) == 0


def test_what_cannot_fit_names_its_layer() -> None:
    program = Program()
    large = program.buffer("sram", CAPACITY + 1)
    program.steps.append(Step("LD0", "X", {}, (), (whole(large),), 7))
    with pytest.raises(AllocationError) as caught:
        arranged(program)
    assert caught.value.op == 7
