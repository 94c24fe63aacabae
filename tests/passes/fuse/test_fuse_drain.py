# SPDX-License-Identifier: Apache-2.0
"""Clamps and residual sums inside the ops that drain accumulators."""

from __future__ import annotations

import pytest
from rewriting import check, unchanged

from gadl.passes.fuse.fuse_drain import fuse_activation, fuse_residual

W = "const %w : f32[2,2] = f32[2,2] [1.0, -2.0, 3.0, 4.0]"


def test_clamps_intersect() -> None:
    check(
        fuse_activation,
        f"""input %x : f32[3,2]
        {W}
        %a : f32[3,2] = linear(%x, %w)
        %b : f32[3,2] = relu(%a)
        %c : f32[3,2] = clamp(%b) {{lo = -1.0, hi = 6.0}}
        %d : f32[3,2] = add(%c, %x)
        %e : f32[3,2] = relu(%d)
        output "e" = %e""",
        f"""input %x : f32[3,2]
        {W}
        %c : f32[3,2] = linear(%x, %w) {{clamp = (0.0, 6.0)}}
        %e : f32[3,2] = add(%c, %x) {{clamp = (0.0, inf)}}
        output "e" = %e""",
        exact=True,
    )


@pytest.mark.parametrize(
    "rest",
    [
        # Another reader; an output; an op without the attribute; disjoint limits.
        '%b : f32[3,2] = relu(%a)\n%c : f32[3,2] = exp(%a)\n%d : f32[3,2] = pow(%b, %c)\noutput "d" = %d',
        '%b : f32[3,2] = relu(%a)\noutput "a" = %a\noutput "b" = %b',
        '%b : f32[3,2] = exp(%a)\n%c : f32[3,2] = relu(%b)\noutput "c" = %c',
        '%b : f32[3,2] = exp(%a)\n%c : f32[3,2] = add(%b, %b) {clamp = (0.0, 1.0)}\n'
        '%d : f32[3,2] = clamp(%c) {lo = 2.0, hi = 3.0}\noutput "d" = %d',
    ],
)  # fmt: skip
def test_activations_that_stay(rest: str) -> None:
    unchanged(fuse_activation, f"input %x : f32[3,2]\n{W}\n%a : f32[3,2] = linear(%x, %w)\n{rest}")


def test_residual_moves_the_product_down() -> None:
    """The other operand is made after the convolution, so the convolution takes the place of the sum."""
    attrs = "{strides = (1,), pads = (0, 0), dilations = (1,), groups = 1}"
    check(
        fuse_residual,
        f"""input %x : f32[1,2,4]
        const %w : f32[2,2,1] = f32[2,2,1] [1.0, -2.0, 3.0, 4.0]
        %a : f32[1,2,4] = conv(%x, %w) {attrs}
        %b : f32[1,2,4] = exp(%x)
        %c : f32[1,2,4] = add(%b, %a) {{clamp = (0.0, 6.0)}}
        output "c" = %c""",
        f"""input %x : f32[1,2,4]
        const %w : f32[2,2,1] = f32[2,2,1] [1.0, -2.0, 3.0, 4.0]
        %b : f32[1,2,4] = exp(%x)
        %c : f32[1,2,4] = conv(%x, %w, none, %b) {attrs[:-1]}, clamp = (0.0, 6.0)}}
        output "c" = %c""",
    )


def test_the_later_of_two_products_takes_the_sum() -> None:
    check(
        fuse_residual,
        f"""input %x : f32[3,2]
        {W}
        %a : f32[3,2] = linear(%x, %w)
        %b : f32[3,2] = linear(%a, %w)
        %c : f32[3,2] = linear(%x, %w)
        %d : f32[3,2] = add(%c, %b)
        output "d" = %d""",
        f"""input %x : f32[3,2]
        {W}
        %a : f32[3,2] = linear(%x, %w)
        %b : f32[3,2] = linear(%a, %w)
        %d : f32[3,2] = linear(%x, %w, none, %b)
        output "d" = %d""",
    )


@pytest.mark.parametrize(
    "rest",
    [
        # The product is clamped before the sum; it is read twice; the sum broadcasts; the other operand is a constant.
        '%a : f32[3,2] = linear(%x, %w) {clamp = (0.0, 6.0)}\n%b : f32[3,2] = add(%a, %x)\noutput "b" = %b',
        '%a : f32[3,2] = linear(%x, %w)\n%b : f32[3,2] = add(%a, %x)\n%c : f32[3,2] = exp(%a)\noutput "b" = %b\noutput "c" = %c',
        '%a : f32[3,2] = linear(%x, %w)\n%b : f32[3,2] = add(%a, %a)\noutput "b" = %b',
        '%a : f32[3,2] = linear(%x, %w)\n%s : f32[1,2] = reduce_sum(%x) {axes = (0,), keepdims = true}\n'
        '%b : f32[3,2] = add(%a, %s)\noutput "b" = %b',
    ],
)  # fmt: skip
def test_sums_that_stay(rest: str) -> None:
    unchanged(fuse_residual, f"input %x : f32[3,2]\n{W}\n{rest}")
