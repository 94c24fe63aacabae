# SPDX-License-Identifier: Apache-2.0
"""Constant folding and the normal form of products."""

from __future__ import annotations

from rewriting import check, unchanged

from gadl.passes.canonicalize.fold_constants import fold_constants
from gadl.passes.canonicalize.normalize_products import normalize_products


def test_constants_are_computed() -> None:
    check(
        fold_constants,
        """input %x : f32[2]
        const %a : f32[2] = f32[2] [1.0, 4.0]
        const %b : f32[] = f32[] [3.0]
        %c : f32[2] = sqrt(%a)
        %d : f32[2] = mul(%c, %b)
        %y : f32[2] = add(%x, %d)
        output "y" = %y""",
        """input %x : f32[2]
        const %d_1 : f32[2] = f32[2] [3.0, 6.0]
        %y : f32[2] = add(%x, %d_1)
        output "y" = %y""",
        exact=True,
    )


def test_one_form_for_products() -> None:
    check(
        normalize_products,
        """input %x : f32[2,2]
        const %two : f32[] = f32[] [2.0]
        const %half : f32[] = f32[] [0.5]
        const %four : f32[] = f32[] [4.0]
        const %w : f32[2,1] = f32[2,1] [3.0, 5.0]
        %a : f32[2,2] = pow(%x, %two)
        %b : f32[2,2] = pow(%a, %half)
        %c : f32[2,2] = div(%b, %four)
        %d : f32[2,2] = sub(%c, %four)
        %y : f32[2,1] = matmul(%d, %w)
        output "y" = %y""",
        """input %x : f32[2,2]
        const %inverse : f32[] = f32[] [0.25]
        const %negated : f32[] = f32[] [-4.0]
        const %w_1 : f32[1,2] = f32[1,2] [3.0, 5.0]
        %a : f32[2,2] = mul(%x, %x)
        %b : f32[2,2] = sqrt(%a)
        %c : f32[2,2] = mul(%b, %inverse)
        %d : f32[2,2] = add(%c, %negated)
        %y : f32[2,1] = linear(%d, %w_1)
        output "y" = %y""",
        tolerance=1e-4,
    )


def test_batches_of_constants_stay_products() -> None:
    unchanged(
        normalize_products,
        """input %x : f32[2,1,2]
        const %w : f32[2,2,1] = f32[2,2,1] [3.0, 5.0, 7.0, 9.0]
        %y : f32[2,1,1] = matmul(%x, %w)
        output "y" = %y""",
    )
