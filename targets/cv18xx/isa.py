# SPDX-License-Identifier: Apache-2.0
"""The descriptors: one declaration, from which encoder, decoder (`descriptor.py`) and disassembler (`asm.py`) follow.

The fields of a descriptor are packed from bit 0 upwards in declared order without gaps, in 32-bit little-endian words. Both
chips have the same layouts. Names, widths and reset values are facts read from the vendor's published sources.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

HEADER_BYTES = 8
#: Ids of an engine's descriptors run from 1 to this and start again at 1.
LAST_ID = 65535
#: A local address is `lane << LANE_SHIFT | offset`.
LANE_SHIFT = 15


class Engine(enum.IntEnum):
    """Who executes a descriptor, as its header says."""

    TIU = 0
    TDMA = 2


class Task(enum.IntEnum):
    """`tsk_typ` of a TIU descriptor."""

    CONV = 0
    POOL = 1
    MATMUL = 2
    ELEMENTWISE = 3


class Pool(enum.IntEnum):
    """`tsk_eu_typ` of `Task.POOL`."""

    MAX = 0
    AVERAGE = 1
    DEPTHWISE = 2
    MIN = 3


class Elementwise(enum.IntEnum):
    """`tsk_eu_typ` of `Task.ELEMENTWISE`."""

    MUL = 0
    MAC = 1
    ADD = 2
    SUB = 3
    MAX = 4
    MIN = 5
    SHIFT = 6
    AND = 7
    OR = 8
    XOR = 9
    COPY = 10
    GREATER_EQUAL = 11
    LOOKUP = 12


class Direction(enum.IntEnum):
    """`trans_dir` of a TDMA descriptor."""

    LOAD = 0
    STORE = 1
    DDR = 2
    LOCAL = 3


class Special(enum.IntEnum):
    """`spec_func` of a TDMA descriptor."""

    COPY = 0
    TRANSPOSE = 1
    FILL = 4


@dataclass(frozen=True)
class Field:
    """`width` bits at bit `at`. `reset` is the value in descriptors that do not use the field; `signed` ones take negative
    numbers too, kept as their two's complement bits."""

    name: str
    at: int
    width: int
    reset: int
    signed: bool

    @property
    def mask(self) -> int:
        """All ones, at bit 0."""
        return (1 << self.width) - 1

    @property
    def pieces(self) -> list[tuple[int, int, int, int]]:
        """(word, first bit in it, width, bits of the value below) of each 32-bit word that the field touches."""
        found, done = [], 0
        while done < self.width:
            word, bit = divmod(self.at + done, 32)
            width = min(self.width - done, 32 - bit)
            found.append((word, bit, width, done))
            done += width
        return found


@dataclass(frozen=True)
class Layout:
    """The descriptor of one engine."""

    engine: Engine
    words: int
    fields: tuple[Field, ...]

    @property
    def size_bytes(self) -> int:
        """Without the header."""
        return self.words * 4

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """Fields by name."""
        return {field.name: field for field in self.fields}

    @cached_property
    def reset(self) -> Mapping[str, int]:
        """Reset values by name."""
        return {field.name: field.reset for field in self.fields}

    @cached_property
    def reset_bits(self) -> int:
        """A descriptor of reset values as one number."""
        return sum(field.reset << field.at for field in self.fields)


def _layout(engine: Engine, words: int, text: str) -> Layout:
    """The layout of `name:width[=reset]` items; `s` after the width marks a signed field."""
    fields: list[Field] = []
    at = 0
    for item in text.split():
        name, _, rest = item.partition(":")
        size, _, reset = rest.partition("=")
        width = int(size.rstrip("s"))
        fields.append(Field(name, at, width, int(reset or 0), size.endswith("s")))
        at += width
    if at != words * 32 or len({field.name for field in fields}) != len(fields):
        raise ValueError(f"the fields of {engine.name} do not fill {words} words once")
    return Layout(engine, words, tuple(fields))


TIU = _layout(Engine.TIU, 28, """
    cmd_en:1 cmd_end:1 cmd_id_en:1 cmd_keep:1 cmd_intr_en:1 tsk_typ:4 tsk_eu_typ:5 tsk_opd_num:2=3
    opt_res_shift:6=10 opt_left_shift:5=2 opt_shift_typ:1=1 opt_rshift_typ:1=1 dummy1:1 opd_typ:1 opt_chl_quan:1
    cmd_id_tpu:16 cmd_id_gdma:16
    quan_m:32
    opt_res0_sign:1 opt_opd0_sign:1 opt_opd1_sign:1=1 opt_opd2_sign:1=1
    opt_res0_seg:2=1 opt_opd0_seg:2=1 opt_opd1_seg:2=1 opt_opd2_seg:1
    ps32_md:2 double_conv:1 opt_left_tran:1 fp_round_typ:1 opt_relu_typ:2 opt_relu_value:8 cmd_pre_exe_typ:1
    opt_res_add:1 rsvd0:4
    conv_opd0_x_ins0:4 conv_opd0_y_ins0:4 conv_opd0_x_ins0_last:4 conv_opd0_y_ins0_last:4
    conv_opd1_x_ins0:4 conv_opd1_y_ins0:4 dummy0:8
    opd0_ins_val:16s conv_opd0_up_pad:4 conv_opd0_dn_pad:4 conv_opd0_lf_pad:4 conv_opd0_rt_pad:4
    res0_n:12=1 res0_c:12=1 res0_h:12=1 res0_w:12=16 conv_op_x_str:5=1 conv_op_y_str:5=1 cmd_pre_exe:2 rsvd1:4=1
    res0_addr:24 opd0_addr:24 opd1_addr:16s opd2_addr:16
    opt_opd0_const:1 opt_opd1_const:1 opt_opd2_const:1 short_nchwstr_same:1
    short_res0_str:2 short_opd0_str:2 short_opd1_str:2 short_opd2_str:2 dummy2:4
    opd0_n:12=1 opd0_c:12=1 dummy3:4 rsvd2:4=2
    opd0_h:12=1 opd0_w:12=16 opd1_n:12=1 opd1_c:12=1 opd1_h:12=1 opd1_w:12=16 opd2_n:12=1 opd2_c:12=1
    opd2_h:12=1 opd2_w:12=16 dummy4:4 rsvd3:4=3
    layer_info:16
    res0_n_str:16=16 res0_c_str:16=16 res0_h_str:16 res0_w_str:16=1 res0_b_str:16=16
    opd0_n_str:16=16 dummy5:12 rsvd4:4=4 opd0_c_str:16=16 opd0_h_str:16 opd0_w_str:16=1 opd0_b_str:16=16
    opd1_n_str:16=16 opd1_c_str:16=16 opd1_h_str:16 dummy6:12 rsvd5:4=5 opd1_w_str:16=1 opd1_b_str:16=16
    opd2_n_str:16=16 opd2_c_str:16=16 opd2_h_str:16 opd2_w_str:16=1 opd2_b_str:16=16 dummy7:12 rsvd6:4=6
""")  # fmt: skip

TDMA = _layout(Engine.TDMA, 16, """
    vld:1 compress_en:1 eod:1 intp_en:1 bar_en:1 check_bf16_value:1 trans_dir:2 rsv00:2 trans_fmt:1 transpose_md:2
    rsv01:1 intra_cmd_paral:1 outstanding_en:1 cmd_id:16
    spec_func:3 dst_fmt:2=1 src_fmt:2=1 cmprs_fmt:1 sys_dtype:1 rsv2_1:4 int8_sign:1 compress_zero_guard:1
    int8_rnd_mode:1 wait_id_tpu:16
    wait_id_other_tdma:16 wait_id_sdma:16
    const_val:16s src_base_reg_sel:3 mv_lut_idx:1 dst_base_reg_sel:3 mv_lut_base:1 rsv4_5:8
    dst_h_stride:16=1 dst_c_stride_low:16=1 dst_n_stride:32=1
    src_h_stride:16=1 src_c_stride_low:16=1 src_n_stride:32=1
    dst_c:16=1 src_c:16=1 dst_w:16=1 dst_h:16=1 src_w:16=1 src_h:16=1
    dst_base_addr_low:32 src_base_addr_low:32 src_n:16=1 dst_base_addr_high:8 src_base_addr_high:8
    src_c_stride_high:16 dst_c_stride_high:16 compress_bias0:8 compress_bias1:8 layer_ID:16
""")  # fmt: skip

LAYOUTS: Mapping[Engine, Layout] = {layout.engine: layout for layout in (TIU, TDMA)}
