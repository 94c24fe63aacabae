# SPDX-License-Identifier: Apache-2.0
"""Instructions of the compute unit (TIU): fields by name, from views of tensors in local memory. No instruction touches DDR."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from gadl.passes.plan.program import Ref

from ..emit import Apart, First, Ordered
from ..isa import Elementwise
from ..layers import Window
from ..local import View

Fields = dict[str, Any]
#: Bytes of a channel's requantisation record: bias, multiplier, shift; without bias five.
RECORD, BARE_RECORD = 9, 5


class Parts(enum.IntEnum):
    """Which part of a sum over input channels an instruction computes; sums lie in four byte planes meanwhile."""

    WHOLE = 0
    LAST = 1
    FIRST = 2
    MIDDLE = 3


def _extents(name: str, view: View) -> Fields:
    return {f"{name}_n": view.n, f"{name}_c": view.c, f"{name}_h": view.h, f"{name}_w": view.w}


def _strides(name: str, view: View) -> Fields:
    return {
        f"short_{name}_str": 3, f"{name}_n_str": view.n_str, f"{name}_c_str": view.c_str, f"{name}_h_str": view.h_str,
        f"{name}_w_str": view.w_str,
    }  # fmt: skip


@dataclass(frozen=True)
class Padding:
    """Samples around the operand, and its value."""

    up: int
    down: int
    left: int
    right: int
    value: int = 0


def _window(window: Window, padding: Padding) -> Fields:
    return {
        "conv_op_x_str": window.stride_w, "conv_op_y_str": window.stride_h,
        "conv_opd1_x_ins0": window.dilation_w - 1, "conv_opd1_y_ins0": window.dilation_h - 1,
        "conv_opd0_x_ins0": window.insert_w, "conv_opd0_y_ins0": window.insert_h,
        "conv_opd0_up_pad": padding.up, "conv_opd0_dn_pad": padding.down, "conv_opd0_lf_pad": padding.left,
        "conv_opd0_rt_pad": padding.right, "opd0_ins_val": padding.value,
    }  # fmt: skip


def convolution(
    x: View, y: View, weights: Ref, records: Ref, window: Window, padding: Padding, relu: bool, parts: Parts = Parts.WHOLE, planes: int = 0
) -> Fields:
    """Dense convolution, int8, one record for each output channel. `planes` is the distance of the byte planes of partial sums."""
    last = parts in (Parts.WHOLE, Parts.LAST)
    double = x.c % 2 == 0 and x.c >= 4
    fields: Fields = {
        "tsk_typ": 0, "tsk_eu_typ": 0, "tsk_opd_num": 3 if last else 2, "opt_chl_quan": int(last), "opt_res_shift": 0, "opt_left_shift": 0,
        "opt_shift_typ": 1, "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "opt_opd2_sign": 1, "opt_opd2_seg": 1,
        "opt_relu_typ": int(relu and last), "ps32_md": int(parts), "double_conv": int(double), "short_opd0_str": 0, "short_opd1_str": 1,
        "short_opd2_str": 2, "opd2_b_str": 0, "res0_addr": y.address, "opd0_addr": x.address, "opd1_addr": weights, "opd2_addr": records,
        "opd1_n": x.c, "opd1_c": y.c, "opd1_h": window.kh, "opd1_w": window.kw, "opd2_n": 1, "opd2_c": y.c, "opd2_h": 1, "opd2_w": 1,
    }  # fmt: skip
    if planes:
        fields["res0_b_str"] = planes
    return fields | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _window(window, padding)


def depthwise(x: View, y: View, weights: Ref, records: Ref, window: Window, padding: Padding, relu: bool) -> Fields:
    """One filter for each channel, int8, with a record for each. The kernel holds its zeros where it is dilated."""
    return {
        "tsk_typ": 1, "tsk_eu_typ": 2, "tsk_opd_num": 3, "opt_chl_quan": 1, "opt_res_shift": 0, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "opt_opd2_sign": 1, "opt_opd2_seg": 1, "opt_relu_typ": int(relu),
        "short_opd1_str": 0, "short_opd2_str": 2, "opd2_b_str": 0, "res0_addr": y.address, "opd0_addr": x.address,
        "opd1_addr": weights, "opd2_addr": records, "opd1_n": 1, "opd1_c": y.c, "opd1_h": window.kh, "opd1_w": window.kw,
        "opd2_n": 1, "opd2_c": y.c, "opd2_h": 1, "opd2_w": 1,
    } | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _strides("opd0", x) | _window(window, padding)  # fmt: skip


def plain_convolution(x: View, y: View, weights: Ref, window: Window, shift: int) -> Fields:
    """Dense convolution without bias; the sum is shifted, halves up."""
    return {
        "tsk_typ": 0, "tsk_eu_typ": 0, "tsk_opd_num": 2, "opt_chl_quan": 0, "opt_res_shift": shift, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "double_conv": int(x.c % 2 == 0 and x.c >= 4), "short_opd0_str": 0,
        "short_opd1_str": 1, "res0_addr": y.address, "opd0_addr": x.address, "opd1_addr": weights,
        "opd1_n": x.c, "opd1_c": y.c, "opd1_h": window.kh, "opd1_w": window.kw,
    } | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _window(window, Padding(0, 0, 0, 0))  # fmt: skip


def plain_depthwise(x: View, y: View, weights: Ref, window: Window, shift: int) -> Fields:
    """One filter for each channel; the sum is shifted, halves up."""
    return {
        "tsk_typ": 1, "tsk_eu_typ": 2, "tsk_opd_num": 2, "opt_chl_quan": 0, "opt_res_shift": shift, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "short_opd1_str": 0, "res0_addr": y.address, "opd0_addr": x.address,
        "opd1_addr": weights, "opd1_n": 1, "opd1_c": y.c, "opd1_h": window.kh, "opd1_w": window.kw,
    } | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _strides("opd0", x) | _window(window, Padding(0, 0, 0, 0))  # fmt: skip


def max_pool(x: View, y: View, window: Window, padding: Padding) -> Fields:
    """The largest value of each window; all tensors in the aligned form."""
    return {
        "tsk_typ": 1, "tsk_eu_typ": 0, "tsk_opd_num": 1, "opt_res_shift": 0, "opt_left_shift": 0, "opt_shift_typ": 1, "opt_res0_sign": 1,
        "opt_opd0_sign": 1, "res0_addr": y.address, "opd0_addr": x.address, "opd1_h": window.kh, "opd1_w": window.kw,
    } | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _strides("opd0", x) | _window(window, padding)  # fmt: skip


def average_pool(x: View, y: View, window: Window, padding: Padding, factor: int, shift: int) -> Fields:
    """The sum of each window times an unsigned factor of eight bits, shifted, halves up."""
    return {
        "tsk_typ": 1, "tsk_eu_typ": 1, "tsk_opd_num": 2, "opt_res_shift": shift, "opt_left_shift": 0, "opt_shift_typ": 1, "opt_res0_sign": 1,
        "opt_opd0_sign": 1, "opt_opd1_sign": 0, "opt_opd1_const": 1, "opd1_addr": factor, "res0_addr": y.address, "opd0_addr": x.address,
        "opd1_h": window.kh, "opd1_w": window.kw,
    } | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _strides("opd0", x) | _window(window, padding)  # fmt: skip


def elementwise(
    function: Elementwise, y: View, a: View, b: View | int, shift: int = 0, multiplier: int = 0, planes: tuple[int, int, int] = (0, 0, 0),
    accumulate: bool = False, unsigned: bool = False, relu: bool = False,
) -> Fields:  # fmt: skip
    """An elementwise function of a tensor and a tensor or constant.

    `multiplier`: the two-step rule with it and `shift`, else halves up. `planes`: distances of the byte planes of result, `a` and
    `b` where they have 16 bits. `accumulate`: the result is added to what lies there. `unsigned`: the constant is.
    """
    fields: Fields = {
        "tsk_typ": 3, "tsk_eu_typ": int(function), "tsk_opd_num": 2, "opt_res_shift": shift, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "opt_chl_quan": int(multiplier > 0), "quan_m": multiplier,
        "opt_relu_typ": int(relu), "opt_res_add": int(accumulate), "opt_res0_seg": int(not planes[0] or accumulate),
        "opt_opd0_seg": int(not planes[1]), "opt_opd1_seg": int(not planes[2]), "res0_addr": y.address, "opd0_addr": a.address,
    }  # fmt: skip
    for name, distance in zip(("res0", "opd0", "opd1"), planes):
        if distance:
            fields[f"{name}_b_str"] = distance
    fields |= _extents("res0", y) | _strides("res0", y) | _extents("opd0", y) | _strides("opd0", a)
    fields |= _extents("opd1", y) | _extents("opd2", y) | {"short_opd2_str": 3}
    if isinstance(b, View):
        return fields | {"opd1_addr": b.address} | _strides("opd1", b)
    bits = 16 if planes[2] else 8
    return fields | {"opt_opd1_const": 1, "opd1_addr": b % (1 << bits), "opt_opd1_sign": int(not unsigned), "short_opd1_str": 3}


def weighted_sum(a: View, b: View, y: View, weights: tuple[Ref, Ref], shift: int, relu: bool) -> Fields:
    """`y = (a * wa + b * wb)` shifted, halves up: a depthwise filter of two rows over both operands, seen as rows far apart.

    Channels of both have one stride and no gaps. `weights`: filters for `a` first and for `b` first.
    """
    pixels = y.h * y.w
    return {
        "tsk_typ": 1, "tsk_eu_typ": 2, "tsk_opd_num": 2, "opt_chl_quan": 0, "opt_res_shift": shift, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "opt_relu_typ": int(relu), "short_opd1_str": 0,
        "res0_addr": y.address, "opd0_addr": First(a.address, b.address), "opd1_addr": Ordered(a.address, b.address, *weights),
        "opd1_n": 1, "opd1_c": y.c, "opd1_h": 2, "opd1_w": 1, "conv_op_x_str": 1, "conv_op_y_str": 1,
        "res0_n": 1, "res0_c": y.c, "res0_h": 1, "res0_w": pixels, "opd0_n": 1, "opd0_c": y.c, "opd0_h": 2, "opd0_w": pixels,
        "short_res0_str": 3, "res0_n_str": y.n_str, "res0_c_str": y.c_str, "res0_h_str": pixels, "res0_w_str": 1,
        "short_opd0_str": 3, "opd0_n_str": a.n_str, "opd0_c_str": a.c_str, "opd0_h_str": Apart(a.address, b.address), "opd0_w_str": 1,
    }  # fmt: skip


def copy(x: View, y: View) -> Fields:
    """Bytes as they are, rows and channels at any strides: the largest of windows of one pixel."""
    return {
        "tsk_typ": 1, "tsk_eu_typ": 0, "tsk_opd_num": 1, "opt_res_shift": 0, "opt_left_shift": 0, "opt_shift_typ": 1, "opt_res0_sign": 1,
        "opt_opd0_sign": 1, "res0_addr": y.address, "opd0_addr": x.address, "opd1_h": 1, "opd1_w": 1, "conv_op_x_str": 1, "conv_op_y_str": 1, "opd0_ins_val": -128,
    } | _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _strides("opd0", x)  # fmt: skip


def scatter(x: View, y: View) -> Fields:
    """Bytes as they are, any strides on both sides, those of pixels too."""
    fields = {
        "tsk_typ": 3, "tsk_eu_typ": int(Elementwise.COPY), "tsk_opd_num": 1, "opt_res_shift": 0, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 0, "opt_opd0_sign": 0, "opt_opd1_sign": 0, "opt_opd2_sign": 0, "res0_addr": y.address, "opd0_addr": x.address,
    }  # fmt: skip
    fields |= _extents("res0", y) | _strides("res0", y) | _extents("opd0", x) | _strides("opd0", x)
    return fields | _extents("opd1", y) | _extents("opd2", y) | {"short_opd1_str": 3, "short_opd2_str": 3}


def look_up(x: View, y: View, table: Ref, lanes: int) -> Fields:
    """`y = table[x mod 256]`; both tensors in the aligned form."""
    return {
        "tsk_typ": 3, "tsk_eu_typ": 12, "tsk_opd_num": 2, "opt_shift_typ": 0, "opt_res_shift": 0, "opt_left_shift": 0, "opt_res0_sign": 0,
        "opt_opd0_sign": 0, "opt_opd1_sign": 0, "opt_opd2_sign": 0, "res0_addr": y.address, "opd0_addr": x.address, "opd1_addr": table,
        "opd1_n": 1, "opd1_c": lanes, "opd1_h": 16, "opd1_w": 16,
    } | _extents("res0", y) | _extents("opd0", x)  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """A matrix in local memory: `rows` x `columns`, of which `width` lie on a lane one after another."""

    address: Ref
    rows: int
    columns: int
    width: int

    @property
    def blocks(self) -> int:
        """Lanes and slots that a row takes."""
        return -(-self.columns // self.width)


def matrix_product(
    x: Matrix, w: Matrix, y: Matrix, multiplier: int, shift: int, relu: bool, bias: Ref | None, parts: Parts = Parts.WHOLE, planes: int = 0
) -> Fields:
    """`y = x . w`, one multiplier and shift for all (two-step rule). `bias`: a matrix of four rows of bytes."""
    last = parts in (Parts.WHOLE, Parts.LAST)
    fields: Fields = {
        "tsk_typ": 2, "tsk_eu_typ": 0, "tsk_opd_num": 3 if bias is not None and last else 2, "opt_chl_quan": int(last),
        "quan_m": multiplier if last else 0, "opt_res_shift": shift if last else 0, "opt_left_shift": 0, "opt_shift_typ": 1,
        "opt_res0_sign": 1, "opt_opd0_sign": 1, "opt_opd1_sign": 1, "opt_opd2_sign": 1, "opt_opd2_seg": 0, "opt_relu_typ": int(relu and last),
        "ps32_md": int(parts), "res0_addr": y.address, "opd0_addr": x.address, "opd1_addr": w.address,
        "res0_n": y.rows, "res0_c": y.blocks, "res0_h": 1, "res0_w": y.width,
        "opd0_n": x.rows, "opd0_c": x.blocks, "opd0_h": 1, "opd0_w": x.width,
        "opd1_n": w.rows, "opd1_c": w.blocks, "opd1_h": 1, "opd1_w": x.columns - x.width * (x.blocks - 1),
    }  # fmt: skip
    if planes:
        fields["res0_b_str"] = planes
    if bias is not None and last:
        fields |= {"opd2_addr": bias, "opd2_n": 1, "opd2_c": w.blocks, "opd2_h": 1, "opd2_w": y.width}
    return fields
