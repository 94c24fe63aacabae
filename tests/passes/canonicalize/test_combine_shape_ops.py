# SPDX-License-Identifier: Apache-2.0
"""Chains of data movement."""

from __future__ import annotations

from rewriting import check, unchanged

from gadl.passes.canonicalize.combine_shape_ops import combine_shape_ops
from gadl.passes.canonicalize.merge_duplicates import merge_duplicates
from gadl.passes.canonicalize.remove_row_reshapes import remove_row_reshapes


def test_slices_compose() -> None:
    """Element i is 1 + 2 * (3 - i) = 7 - 2 i of x."""
    check(
        combine_shape_ops,
        """input %x : f32[10]
        %a : f32[5] = slice(%x) {starts = (1,), sizes = (5,), steps = (2,)}
        %b : f32[3] = slice(%a) {starts = (3,), sizes = (3,), steps = (-1,)}
        output "b" = %b""",
        """input %x : f32[10]
        %b : f32[3] = slice(%x) {starts = (7,), sizes = (3,), steps = (-2,)}
        output "b" = %b""",
        exact=True,
    )


def test_slice_of_one_operand() -> None:
    check(
        combine_shape_ops,
        """input %x : f32[2,3]
        input %y : f32[2,4]
        %c : f32[2,7] = concat(%x, %y) {axis = -1}
        %a : f32[2,2] = slice(%c) {starts = (0, 4), sizes = (2, 2), steps = (1, 2)}
        %b : f32[1,2] = slice(%c) {starts = (1, 2), sizes = (1, 2), steps = (1, 1)}
        output "a" = %a
        output "b" = %b""",
        """input %x : f32[2,3]
        input %y : f32[2,4]
        %c : f32[2,7] = concat(%x, %y) {axis = -1}
        %a : f32[2,2] = slice(%y) {starts = (0, 1), sizes = (2, 2), steps = (1, 2)}
        %b : f32[1,2] = slice(%c) {starts = (1, 2), sizes = (1, 2), steps = (1, 1)}
        output "a" = %a
        output "b" = %b""",
        exact=True,
    )


def test_pads_add_up() -> None:
    check(
        combine_shape_ops,
        """input %x : f32[2]
        %a : f32[4] = pad(%x) {pads = (1, 1), mode = "constant", value = 2.0}
        %b : f32[7] = pad(%a) {pads = (0, 3), mode = "constant", value = 2.0}
        %c : f32[8] = pad(%b) {pads = (1, 0), mode = "constant", value = 0.0}
        output "c" = %c""",
        """input %x : f32[2]
        %b : f32[7] = pad(%x) {pads = (1, 4), mode = "constant", value = 2.0}
        %c : f32[8] = pad(%b) {pads = (1, 0), mode = "constant", value = 0.0}
        output "c" = %c""",
        exact=True,
    )


def test_concatenations_flatten() -> None:
    check(
        combine_shape_ops,
        """input %x : f32[1,2]
        input %y : f32[1,3]
        %a : f32[1,5] = concat(%x, %y) {axis = 1}
        %b : f32[1,7] = concat(%x, %a) {axis = -1}
        %c : f32[2,7] = concat(%b, %b) {axis = 0}
        output "c" = %c""",
        """input %x : f32[1,2]
        input %y : f32[1,3]
        %b : f32[1,7] = concat(%x, %x, %y) {axis = -1}
        %c : f32[2,7] = concat(%b, %b) {axis = 0}
        output "c" = %c""",
        exact=True,
    )


def test_moving_nothing_is_a_reshape() -> None:
    check(
        combine_shape_ops,
        """input %x : f32[1,2,1,3]
        %y : f32[2,1,3,1] = transpose(%x) {perm = (1, 0, 3, 2)}
        output "y" = %y""",
        """input %x : f32[1,2,1,3]
        %y : f32[2,1,3,1] = reshape(%x) {shape = (2, 1, 3, 1)}
        output "y" = %y""",
        exact=True,
    )
    unchanged(
        combine_shape_ops,
        'input %x : f32[1,2,1,3]\n%y : f32[1,3,1,2] = transpose(%x) {perm = (0, 3, 2, 1)}\noutput "y" = %y',
    )


def test_broadcasting_needs_no_expansion() -> None:
    check(
        combine_shape_ops,
        """input %x : f32[1,3]
        input %y : f32[2,3]
        %a : f32[2,3] = expand(%x) {shape = (2, 3)}
        %b : f32[2,3] = mul(%a, %y)
        %c : f32[2,3] = add(%a, %a)
        output "b" = %b
        output "c" = %c""",
        """input %x : f32[1,3]
        input %y : f32[2,3]
        %a : f32[2,3] = expand(%x) {shape = (2, 3)}
        %b : f32[2,3] = mul(%x, %y)
        %c : f32[2,3] = add(%x, %a)
        output "b" = %b
        output "c" = %c""",
        exact=True,
    )


def test_duplicates_merge() -> None:
    """Constants of the same bytes are the same operand; other attributes make another op; outputs stay."""
    check(
        merge_duplicates,
        """input %x : f32[2]
        const %c : f32[] = f32[] [2.0]
        const %d : f32[] = f32[] [2.0]
        %a : f32[2] = mul(%x, %c)
        %b : f32[2] = mul(%x, %d)
        %e : f32[2] = clamp(%a) {lo = 0.0, hi = 1.0}
        %f : f32[2] = clamp(%b) {lo = 0.0, hi = 2.0}
        %g : f32[2] = sub(%e, %f)
        %h : f32[2] = sub(%e, %f)
        output "g" = %g
        output "h" = %h""",
        """input %x : f32[2]
        const %c : f32[] = f32[] [2.0]
        %a : f32[2] = mul(%x, %c)
        %e : f32[2] = clamp(%a) {lo = 0.0, hi = 1.0}
        %f : f32[2] = clamp(%a) {lo = 0.0, hi = 2.0}
        %g : f32[2] = sub(%e, %f)
        %h : f32[2] = sub(%e, %f)
        output "g" = %g
        output "h" = %h""",
        exact=True,
    )


def test_rows_need_no_matrix() -> None:
    check(
        remove_row_reshapes,
        """input %x : f32[1,3,2]
        const %w : f32[4,2] = f32[4,2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
        %a : f32[3,2] = reshape(%x) {shape = (3, 2)}
        %b : f32[3,4] = linear(%a, %w)
        %c : f32[3,4] = relu(%b)
        %d : f32[1,3,4] = reshape(%c) {shape = (1, 3, 4)}
        output "d" = %d""",
        """input %x : f32[1,3,2]
        const %w : f32[4,2] = f32[4,2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
        %b : f32[1,3,4] = linear(%x, %w)
        %d : f32[1,3,4] = relu(%b)
        output "d" = %d""",
        exact=True,
    )


def test_rows_that_change_stay() -> None:
    unchanged(
        remove_row_reshapes,
        """input %x : f32[2,2]
        const %w : f32[4,4] = f32[4,4] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
        %a : f32[1,4] = reshape(%x) {shape = (1, 4)}
        %b : f32[1,4] = linear(%a, %w)
        %c : f32[2,2] = reshape(%b) {shape = (2, 2)}
        output "c" = %c""",
    )


def test_pixels_become_rows_of_channels() -> None:
    check(
        combine_shape_ops,
        """input %x : f32[2,3,4,5]
        %a : f32[2,3,20] = reshape(%x) {shape = (2, 3, 20)}
        %b : f32[2,20,3] = transpose(%a) {perm = (0, 2, 1)}
        output "b" = %b""",
        """input %x : f32[2,3,4,5]
        %transpose : f32[2,4,5,3] = transpose(%x) {perm = (0, 2, 3, 1)}
        %b : f32[2,20,3] = reshape(%transpose) {shape = (2, 20, 3)}
        output "b" = %b""",
        exact=True,
    )


def test_a_reshape_that_others_read_stays() -> None:
    unchanged(
        combine_shape_ops,
        """input %x : f32[2,3,4,5]
        %a : f32[2,3,20] = reshape(%x) {shape = (2, 3, 20)}
        %b : f32[2,20,3] = transpose(%a) {perm = (0, 2, 1)}
        output "a" = %a
        output "b" = %b""",
    )
