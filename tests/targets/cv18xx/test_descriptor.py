# SPDX-License-Identifier: Apache-2.0
"""Commands to bytes and back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gadl.targets.cv18xx.chip import CHIPS
from gadl.targets.cv18xx.descriptor import Command, DescriptorError, commands, decode, encode
from gadl.targets.cv18xx.isa import HEADER_BYTES, LAYOUTS, TDMA, TIU, Engine

from .streams import any_commands, any_fields

CHIP = CHIPS["cv181x"]


@given(st.lists(any_commands(), max_size=5), st.sampled_from(list(CHIPS.values())))
def test_streams_come_back(made: list[Command], chip: object) -> None:
    stream = b"".join(encode(chip, c.engine, c.fields) for c in made)  # type: ignore[arg-type]
    assert commands(None, stream) == commands(chip.magic, stream) == made  # type: ignore[attr-defined]


@given(st.sampled_from(Engine), st.data())
def test_all_bytes_are_some_descriptor(engine: Engine, data: st.DataObject) -> None:
    size = LAYOUTS[engine].size_bytes
    found = data.draw(st.binary(min_size=size, max_size=size))
    assert encode(CHIP, engine, decode(engine, found).fields)[HEADER_BYTES:] == found


@given(any_fields(Engine.TIU))
def test_fields_that_are_not_given_keep_their_reset_values(fields: dict[str, int]) -> None:
    made = decode(Engine.TIU, encode(CHIP, Engine.TIU, fields)[HEADER_BYTES:])
    assert made == Command.of(Engine.TIU, fields)
    assert {n: v for n, v in made.fields.items() if n not in fields} == {n: v for n, v in TIU.reset.items() if n not in fields}


@pytest.mark.parametrize(
    ("engine", "name", "pieces"),
    [
        (Engine.TIU, "cmd_id_gdma", [(1, 16, 16, 0)]),
        (Engine.TIU, "res0_h", [(6, 24, 8, 0), (7, 0, 4, 8)]),
        (Engine.TIU, "opd0_addr", [(8, 24, 8, 0), (9, 0, 16, 8)]),
        (Engine.TIU, "opd1_w", [(13, 28, 4, 0), (14, 0, 8, 4)]),
        (Engine.TIU, "rsvd6", [(27, 28, 4, 0)]),
        (Engine.TDMA, "wait_id_tpu", [(1, 16, 16, 0)]),
        (Engine.TDMA, "dst_base_addr_high", [(13, 16, 8, 0)]),
        (Engine.TDMA, "layer_ID", [(15, 16, 16, 0)]),
    ],
)
def test_places_of_fields(engine: Engine, name: str, pieces: list[tuple[int, int, int, int]]) -> None:
    assert LAYOUTS[engine].by_name[name].pieces == pieces
    reset = LAYOUTS[engine].reset[name]
    words = struct.unpack(f"<{LAYOUTS[engine].words}I", encode(CHIP, engine, {name: 0x5A5 & LAYOUTS[engine].by_name[name].mask})[8:])
    assert sum((words[w] >> bit & (1 << width) - 1) << shift for w, bit, width, shift in pieces) == 0x5A5 & LAYOUTS[engine].by_name[name].mask
    assert reset == {"opd1_w": 16, "rsvd6": 6, "res0_h": 1}.get(name, 0)


def test_headers_and_sizes() -> None:
    assert encode(CHIPS["cv180x"], Engine.TDMA, {}).startswith(bytes([0xA8, 64, 2, 0, 0, 0, 0, 0])) and TDMA.size_bytes == 64
    assert encode(CHIP, Engine.TIU, {}).startswith(bytes([0xA7, 112, 0, 0, 0, 0, 0, 0])) and TIU.size_bytes == 112


def test_negative_numbers_are_twos_complement_where_a_field_is_signed() -> None:
    assert Command.of(Engine.TIU, {"opd0_ins_val": -128}).fields["opd0_ins_val"] == 0xFF80
    assert encode(CHIP, Engine.TDMA, {"const_val": -1}) == encode(CHIP, Engine.TDMA, {"const_val": 0xFFFF})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"res0_q": 1}, "no field 'res0_q'"),
        ({"res0_n": 4096}, r"TIU.res0_n = 4096 is outside \[0, 4095\]"),
        ({"conv_opd0_up_pad": -1}, r"conv_opd0_up_pad = -1 is outside \[0, 15\]"),
        ({"opd0_ins_val": -32769}, r"opd0_ins_val = -32769 is outside \[-32768, 65535\]"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, int], text: str) -> None:
    for make in (lambda: encode(CHIP, Engine.TIU, fields), lambda: Command.of(Engine.TIU, fields)):
        with pytest.raises(DescriptorError, match=text):
            make()


ONE = encode(CHIP, Engine.TDMA, {"vld": 1})


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (ONE[:7], "ends inside the header at byte 0"),
        (ONE + ONE[:-1], "ends inside the descriptor at byte 80"),
        (b"\0" + ONE, "no command starts at byte 0"),
        (ONE + encode(CHIPS["cv180x"], Engine.TDMA, {}), "no command starts at byte 72"),
        (bytes([0xA7, 64, 0]) + ONE[3:], "of no known command"),
        (bytes([0xA7, 64, 1]) + ONE[3:], "of no known command"),
        (ONE[:3] + b"\1" + ONE[4:], "of no known command"),
    ],
)
def test_damaged_streams(stream: bytes, text: str) -> None:
    with pytest.raises(DescriptorError, match=text):
        commands(None, stream)


@given(st.binary(max_size=300))
@example(ONE)
def test_any_bytes_are_commands_or_an_error(stream: bytes) -> None:
    try:
        found = commands(CHIP.magic, stream)
    except DescriptorError:
        return
    assert b"".join(encode(CHIP, c.engine, c.fields) for c in found) == stream
