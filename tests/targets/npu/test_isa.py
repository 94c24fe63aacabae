# SPDX-License-Identifier: Apache-2.0
"""Encoding, text form and errors of the instruction set."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.targets.npu import instruction, isa
from gadl.targets.npu.asm import assemble, disassemble


@st.composite
def instructions(draw: st.DrawFn) -> instruction.Instruction:
    spec = draw(st.sampled_from(isa.SPECS))
    fields = {f.name: draw(st.integers(*f.range)) for f in spec.fields if draw(st.booleans())}
    pair = st.tuples(st.integers(0, 63), st.integers(1, 63))
    return instruction.Instruction(
        spec.name, draw(st.sampled_from(spec.queues)), {k: v for k, v in fields.items() if v},
        tuple(draw(st.lists(pair, max_size=3))), tuple(draw(st.lists(pair, max_size=2))), draw(st.integers(0, 2**32 - 1)),
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(instructions(), max_size=6))
def test_code_and_text_round_trip(program: list[instruction.Instruction]) -> None:
    code = instruction.encode(program)
    assert instruction.decode(code) == program
    assert instruction.encode(assemble(disassemble(program))) == code


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_fail_cleanly(data: bytes) -> None:
    try:
        instruction.decode(data)
    except instruction.IsaError:
        pass


def test_a_value_out_of_range_names_instruction_and_field() -> None:
    with pytest.raises(instruction.IsaError, match="LD.row_bytes"):
        instruction.Instruction("LD", isa.Queue.LD0, {"row_bytes": 1 << 30}).encode()
    with pytest.raises(instruction.IsaError, match="does not run on queue VEC"):
        instruction.Instruction("LD", isa.Queue.VEC).encode()
    with pytest.raises(instruction.IsaError, match="line 2"):
        assemble("END@CTL\nLD@LD0 nothing=1")


def test_opcodes_and_names_are_unique() -> None:
    assert len({s.opcode for s in isa.SPECS}) == len({s.name for s in isa.SPECS}) == len(isa.SPECS)
