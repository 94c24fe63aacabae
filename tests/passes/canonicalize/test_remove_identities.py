# SPDX-License-Identifier: Apache-2.0
"""Ops that change nothing."""

from __future__ import annotations

import pytest
from rewriting import check, unchanged

from gadl.passes.canonicalize.remove_identities import remove_identities

LINES = {
    "reshape": "%y : f32[2,3] = reshape(%x) {shape = (2, 3)}",
    "transpose": "%y : f32[2,3] = transpose(%x) {perm = (0, 1)}",
    "cast": "%y : f32[2,3] = cast(%x) {dtype = f32}",
    "slice": "%y : f32[2,3] = slice(%x) {starts = (0, 0), sizes = (2, 3), steps = (1, 1)}",
    "pad": '%y : f32[2,3] = pad(%x) {pads = (0, 0, 0, 0), mode = "constant", value = 1.0}',
    "expand": "%y : f32[2,3] = expand(%x) {shape = (2, 3)}",
    "concat": "%y : f32[2,3] = concat(%x) {axis = 0}",
    "clamp": "%y : f32[2,3] = clamp(%x) {lo = -inf, hi = inf}",
}


@pytest.mark.parametrize("name", LINES)
def test_one_op(name: str) -> None:
    check(
        remove_identities,
        f'input %x : f32[2,3]\n{LINES[name]}\n%z : f32[2,3] = exp(%y)\noutput "z" = %z',
        'input %x : f32[2,3]\n%z : f32[2,3] = exp(%x)\noutput "z" = %z',
        exact=True,
    )


@pytest.mark.parametrize(
    ("name", "number", "first"), [("mul", 1, False), ("div", 1, False), ("add", 0, False), ("sub", 0, False), ("add", 0, True)]
)
def test_neutral_numbers(name: str, number: int, first: bool) -> None:
    operands = "%c, %x" if first else "%x, %c"
    check(
        remove_identities,
        f"""input %x : f32[2,3]
        const %c : f32[3] = f32[3] [{number}.0, {number}.0, {number}.0]
        %y : f32[2,3] = {name}({operands})
        %z : f32[2,3] = exp(%y)
        output "z" = %z""",
        'input %x : f32[2,3]\n%z : f32[2,3] = exp(%x)\noutput "z" = %z',
        exact=True,
    )


@pytest.mark.parametrize(
    "text",
    [
        # The constant makes the result larger than x.
        "input %x : f32[3]\nconst %c : f32[2,1] = f32[2,1] [1.0, 1.0]\n%y : f32[2,3] = mul(%x, %c)\noutput \"y\" = %y",
        # 1 - x and 1 / x are not x.
        "input %x : f32[3]\nconst %c : f32[] = f32[] [0.0]\n%y : f32[3] = sub(%c, %x)\noutput \"y\" = %y",
        "input %x : f32[3]\nconst %c : f32[] = f32[] [1.0]\n%y : f32[3] = div(%c, %x)\noutput \"y\" = %y",
        # The clamp belongs to the product.
        "input %x : f32[3]\nconst %c : f32[] = f32[] [1.0]\n%y : f32[3] = mul(%x, %c) {clamp = (0.0, 6.0)}\noutput \"y\" = %y",
        "input %x : f32[2,3]\n%y : f32[3,2] = transpose(%x) {perm = (1, 0)}\noutput \"y\" = %y",
        "input %x : f32[2,3]\n%y : f32[2,3] = slice(%x) {starts = (1, 0), sizes = (2, 3), steps = (-1, 1)}\noutput \"y\" = %y",
    ],
)  # fmt: skip
def test_what_must_stay(text: str) -> None:
    unchanged(remove_identities, text)


def test_pairs_merge() -> None:
    check(
        remove_identities,
        """input %x : f32[2,3,4]
        %a : f32[3,4,2] = transpose(%x) {perm = (1, 2, 0)}
        %b : f32[2,3,4] = transpose(%a) {perm = (2, 0, 1)}
        %c : f32[4,3,2] = transpose(%a) {perm = (1, 0, 2)}
        %d : f32[24] = reshape(%c) {shape = (24,)}
        %e : f32[2,12] = reshape(%d) {shape = (2, 12)}
        %f : f32[2,12] = relu(%e)
        %g : f32[2,12] = relu(%f)
        %h : f32[2,3,4] = exp(%b)
        output "g" = %g
        output "h" = %h""",
        """input %x : f32[2,3,4]
        %b : f32[2,3,4] = transpose(%x) {perm = (0, 1, 2)}
        %c : f32[4,3,2] = transpose(%x) {perm = (2, 1, 0)}
        %e : f32[2,12] = reshape(%c) {shape = (2, 12)}
        %f : f32[2,12] = relu(%e)
        %h : f32[2,3,4] = exp(%b)
        output "g" = %f
        output "h" = %h""",
        exact=True,
    )


def test_neutral_operands_go() -> None:
    check(
        remove_identities,
        """input %x : f32[2,2]
        const %w : f32[2,2] = f32[2,2] [1.0, 2.0, 3.0, 4.0]
        const %zero : f32[2] = f32[2] [0.0, 0.0]
        const %one : f32[2] = f32[2] [1.0, 1.0]
        const %some : f32[2] = f32[2] [1.0, 0.0]
        %a : f32[2,2] = linear(%x, %w, %zero)
        %b : f32[2,2] = layer_norm(%a, %one, %some) {axis = -1, epsilon = 1e-05}
        %c : f32[2,2] = layer_norm(%b, %some, %zero) {axis = -1, epsilon = 1e-05}
        output "c" = %c""",
        """input %x : f32[2,2]
        const %w : f32[2,2] = f32[2,2] [1.0, 2.0, 3.0, 4.0]
        const %some : f32[2] = f32[2] [1.0, 0.0]
        %a : f32[2,2] = linear(%x, %w)
        %b : f32[2,2] = layer_norm(%a, none, %some) {axis = -1, epsilon = 1e-05}
        %c : f32[2,2] = layer_norm(%b, %some) {axis = -1, epsilon = 1e-05}
        output "c" = %c""",
        exact=True,
    )


def test_no_padding_is_not_counted() -> None:
    pool = "avg_pool(%x) {kernel = (3,), strides = (2,), pads = (0, 0), ceil_mode = true, count_include_pad = "
    check(
        remove_identities,
        f'input %x : f32[1,1,6]\n%y : f32[1,1,3] = {pool}true}}\noutput "y" = %y',
        f'input %x : f32[1,1,6]\n%y : f32[1,1,3] = {pool}false}}\noutput "y" = %y',
        exact=True,
    )
