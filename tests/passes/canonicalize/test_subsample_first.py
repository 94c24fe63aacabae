# SPDX-License-Identifier: Apache-2.0
"""Strided pointwise convolutions."""

from __future__ import annotations

from rewriting import check, unchanged

from gadl.passes.canonicalize.subsample_first import subsample_first

REST = "pads = (0, 0, 0, 0), dilations = (1, 1), groups = 1}"
BODY = """input %x : f32[1,1,5,4]
const %a : f32[1,1,1,1] = f32[1,1,1,1] [2.0]
const %b : f32[2,1,1,1] = f32[2,1,1,1] [3.0, 4.0]"""


def test_all_readers_step() -> None:
    check(
        subsample_first,
        f"""{BODY}
        %y : f32[1,1,3,2] = conv(%x, %a) {{strides = (2, 2), {REST}
        %z : f32[1,2,3,2] = conv(%x, %b) {{strides = (2, 2), {REST}
        output "y" = %y
        output "z" = %z""",
        f"""{BODY}
        %slice : f32[1,1,3,2] = slice(%x) {{starts = (0, 0, 0, 0), sizes = (1, 1, 3, 2), steps = (1, 1, 2, 2)}}
        %y : f32[1,1,3,2] = conv(%slice, %a) {{strides = (1, 1), {REST}
        %z : f32[1,2,3,2] = conv(%slice, %b) {{strides = (1, 1), {REST}
        output "y" = %y
        output "z" = %z""",
    )


def test_another_reader_keeps_all_pixels() -> None:
    unchanged(
        subsample_first,
        f"""{BODY}
        %y : f32[1,1,3,2] = conv(%x, %a) {{strides = (2, 2), {REST}
        %z : f32[1,1,5,4] = relu(%x)
        output "y" = %y
        output "z" = %z""",
    )


def test_padding_and_wide_windows_stay() -> None:
    unchanged(
        subsample_first,
        f"""{BODY}
        const %c : f32[1,1,2,2] = f32[1,1,2,2] [1.0, 1.0, 1.0, 1.0]
        %y : f32[1,1,2,2] = conv(%x, %c) {{strides = (2, 2), {REST}
        output "y" = %y""",
    )
