# SPDX-License-Identifier: Apache-2.0
"""Zero padding in front of windows."""

from __future__ import annotations

import pytest
from rewriting import check, unchanged

from gadl.passes.canonicalize.merge_pads import merge_pads

PAD = '{pads = (0, 0, 1, 0, 0, 0, 2, 1), mode = "constant", value = 0.0}'
WINDOW = "strides = (1, 1), pads = "


def test_convolution_takes_the_pads() -> None:
    rest = "dilations = (1, 1), groups = 1}"
    check(
        merge_pads,
        f"""input %x : f32[1,1,3,3]
        const %w : f32[1,1,2,2] = f32[1,1,2,2] [1.0, 2.0, 3.0, 4.0]
        %p : f32[1,1,6,4] = pad(%x) {PAD}
        %y : f32[1,1,6,5] = conv(%p, %w) {{strides = (1, 1), pads = (0, 1, 1, 1), {rest}
        output "y" = %y""",
        f"""input %x : f32[1,1,3,3]
        const %w : f32[1,1,2,2] = f32[1,1,2,2] [1.0, 2.0, 3.0, 4.0]
        %y : f32[1,1,6,5] = conv(%x, %w) {{strides = (1, 1), pads = (1, 1, 3, 2), {rest}
        output "y" = %y""",
    )


def test_average_counts_the_zeros() -> None:
    check(
        merge_pads,
        f"""input %x : f32[1,1,3,3]
        %p : f32[1,1,6,4] = pad(%x) {PAD}
        %y : f32[1,1,4,2] = avg_pool(%p) {{kernel = (3, 3), {WINDOW}(0, 0, 0, 0), ceil_mode = false, count_include_pad = false}}
        output "y" = %y""",
        f"""input %x : f32[1,1,3,3]
        %y : f32[1,1,4,2] = avg_pool(%x) {{kernel = (3, 3), {WINDOW}(1, 0, 2, 1), ceil_mode = false, count_include_pad = true}}
        output "y" = %y""",
    )


MAXIMUM = "max_pool(%p) {kernel = (3, 3), strides = (1, 1), pads = (0, 0, 0, 0), dilations = (1, 1), ceil_mode = false}"


def test_maximum_of_what_is_not_negative() -> None:
    check(
        merge_pads,
        f"""input %x : f32[1,1,3,3]
        %r : f32[1,1,3,3] = relu(%x)
        %p : f32[1,1,6,4] = pad(%r) {PAD}
        %y : f32[1,1,4,2] = {MAXIMUM}
        output "y" = %y""",
        f"""input %x : f32[1,1,3,3]
        %r : f32[1,1,3,3] = relu(%x)
        %y : f32[1,1,4,2] = {MAXIMUM.replace("%p", "%r").replace("(0, 0, 0, 0)", "(1, 0, 2, 1)")}
        output "y" = %y""",
        exact=True,
    )


@pytest.mark.parametrize(
    ("pad", "shape", "result"),
    [
        ('{pads = (0, 0, 1, 0, 0, 0, 2, 1), mode = "constant", value = 1.0}', "1,1,6,4", "1,1,4,2"),
        ('{pads = (0, 0, 1, 0, 0, 0, 2, 1), mode = "edge", value = 0.0}', "1,1,6,4", "1,1,4,2"),
        ('{pads = (0, 1, 1, 0, 0, 0, 2, 1), mode = "constant", value = 0.0}', "1,2,6,4", "1,2,4,2"),
        # x may be negative.
        (PAD, "1,1,6,4", "1,1,4,2"),
    ],
)
def test_what_must_stay(pad: str, shape: str, result: str) -> None:
    unchanged(
        merge_pads,
        f'input %x : f32[1,1,3,3]\n%p : f32[{shape}] = pad(%x) {pad}\n%y : f32[{result}] = {MAXIMUM}\noutput "y" = %y',
    )


def test_a_window_of_padding_only_stays() -> None:
    unchanged(
        merge_pads,
        f"""input %x : f32[1,1,3,3]
        %r : f32[1,1,3,3] = relu(%x)
        %p : f32[1,1,8,4] = pad(%r) {PAD.replace("0, 0, 2, 1", "0, 0, 4, 1")}
        %y : f32[1,1,6,2] = {MAXIMUM}
        output "y" = %y""",
    )
