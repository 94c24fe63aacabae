# SPDX-License-Identifier: Apache-2.0
"""Commands as text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.targets.cv18xx.asm import disassemble, line
from gadl.targets.cv18xx.descriptor import Command
from gadl.targets.cv18xx.isa import LAYOUTS, Direction, Elementwise, Engine, Pool, Special, Task

from .streams import any_commands, values


def test_lines() -> None:
    conv = {
        "cmd_en": 1, "cmd_id_en": 1, "cmd_id_tpu": 7, "cmd_id_gdma": 12, "tsk_typ": Task.CONV, "res0_c": 32, "res0_h": 14, "res0_w": 14,
        "res0_addr": 1 << 15 | 0x120, "res0_n_str": 832, "res0_c_str": 208, "res0_h_str": 14, "opd0_c": 16, "opd1_n": 16, "opd1_w": 3, "opt_relu_typ": 1,
    }  # fmt: skip
    store = {
        "vld": 1, "bar_en": 1, "cmd_id": 13, "wait_id_tpu": 7, "trans_dir": Direction.STORE, "src_c": 32, "src_h": 14, "src_w": 14,
        "src_base_addr_low": 0x4000, "dst_base_reg_sel": 3, "dst_base_addr_high": 1, "dst_base_addr_low": 0x40, "dst_c_stride_high": 1, "int8_sign": 1,
    }  # fmt: skip
    assert disassemble([Command.of(Engine.TIU, conv), Command.of(Engine.TDMA, store)]).splitlines() == [
        "TIU  7 after 12 CONV res0=1x32x14x14@1:0x120/832,208,14,1 opd0=1x16x1x16@0:0x0 opd1=16x1x1x3@0:0x0 opt_relu_typ=1",
        "TDMA 13 after 7 STORE src=1x32x14x14@0:0x4000 dst=1x1x1@3+0x100000040/1,65537,1 int8_sign=1",
    ]


def test_names_of_operations() -> None:
    def name(engine: Engine, **fields: int) -> str:
        return line(Command.of(engine, fields)).split()[4]

    assert name(Engine.TIU, tsk_typ=Task.POOL, tsk_eu_typ=Pool.DEPTHWISE) == "DEPTHWISE"
    assert name(Engine.TIU, tsk_typ=Task.POOL, tsk_eu_typ=9) == "POOL.9"
    assert name(Engine.TIU, tsk_typ=Task.ELEMENTWISE, tsk_eu_typ=Elementwise.LOOKUP) == "ELEMENTWISE.LOOKUP"
    assert name(Engine.TIU, tsk_typ=9, tsk_eu_typ=2) == "9.2"
    assert name(Engine.TDMA, trans_dir=Direction.LOAD, spec_func=Special.FILL) == "LOAD.FILL"
    assert "src=1x1x1x1@2+0x0 dst=1x1x1@1+0x0" in line(
        Command.of(Engine.TDMA, {"trans_dir": Direction.DDR, "src_base_reg_sel": 2, "dst_base_reg_sel": 1})
    )


@given(any_commands(), st.data())
@settings(max_examples=600)
def test_different_commands_have_different_lines(command: Command, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(LAYOUTS[command.engine].fields))
    other = Command.of(command.engine, {**command.fields, field.name: data.draw(values(field))})
    assert (line(command) == line(other)) == (command == other)
    assert "\n" not in line(command)
