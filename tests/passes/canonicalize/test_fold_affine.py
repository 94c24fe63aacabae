# SPDX-License-Identifier: Apache-2.0
"""Batch norm and per-channel arithmetic in weights."""

from __future__ import annotations

import pytest
from rewriting import check, run, unchanged

from gadl.passes.canonicalize.fold_affine import decompose_batch_norm, fold_affine

CONV = "{strides = (1, 1), pads = (0, 0, 0, 0), dilations = (1, 1), groups = 1}"


def test_batch_norm_is_a_product_and_a_sum() -> None:
    """k = g / sqrt(v + eps) = (2 / 2, 3 / 1), shift = b - m k = (1 - 1, 2 + 6)."""
    check(
        decompose_batch_norm,
        """input %x : f32[1,2,3]
        const %g : f32[2] = f32[2] [2.0, 3.0]
        const %b : f32[2] = f32[2] [1.0, 2.0]
        const %m : f32[2] = f32[2] [1.0, -2.0]
        const %v : f32[2] = f32[2] [3.75, 0.75]
        %y : f32[1,2,3] = batch_norm(%x, %g, %b, %m, %v) {epsilon = 0.25}
        output "y" = %y""",
        """input %x : f32[1,2,3]
        const %bn.scale : f32[2,1] = f32[2,1] [1.0, 3.0]
        const %bn.shift : f32[2,1] = f32[2,1] [0.0, 8.0]
        %mul : f32[1,2,3] = mul(%x, %bn.scale)
        %y_1 : f32[1,2,3] = add(%mul, %bn.shift)
        output "y" = %y_1""",
    )


def test_a_chain_goes_into_the_convolution() -> None:
    """((w x) k + c - d) / e: weights k w / e, bias (c - d) / e."""
    check(
        fold_affine,
        f"""input %x : f32[1,1,2,2]
        const %w : f32[2,1,1,1] = f32[2,1,1,1] [1.0, 2.0]
        const %k : f32[2,1,1] = f32[2,1,1] [4.0, 8.0]
        const %c : f32[1,2,1,1] = f32[1,2,1,1] [1.0, 2.0]
        const %d : f32[] = f32[] [3.0]
        const %e : f32[] = f32[] [2.0]
        %a : f32[1,2,2,2] = conv(%x, %w) {CONV}
        %b : f32[1,2,2,2] = mul(%k, %a)
        %f : f32[1,2,2,2] = add(%b, %c)
        %g : f32[1,2,2,2] = sub(%f, %d)
        %h : f32[1,2,2,2] = div(%g, %e)
        output "h" = %h""",
        f"""input %x : f32[1,1,2,2]
        const %w_1 : f32[2,1,1,1] = f32[2,1,1,1] [2.0, 8.0]
        const %bias : f32[2] = f32[2] [-1.0, -0.5]
        %h : f32[1,2,2,2] = conv(%x, %w_1, %bias) {CONV}
        output "h" = %h""",
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(groups: int) -> None:
    """Weights are [C, O / groups, K]: the output axis is split between groups."""
    outputs, per_group = 2 * groups, 2
    numbers = ", ".join(f"{i + 1}.0" for i in range(16))
    attrs = f"{{strides = (2,), pads = (0, 0), dilations = (1,), groups = {groups}, output_padding = (0,)}}"
    scale = ", ".join(str(float(i + 2)) for i in range(outputs))
    graph = run(
        fold_affine,
        f"""input %x : f32[1,4,3]
        const %w : f32[4,{per_group},2] = f32[4,{per_group},2] [{numbers}]
        const %k : f32[{outputs},1] = f32[{outputs},1] [{scale}]
        %a : f32[1,{outputs},6] = conv_transpose(%x, %w) {attrs}
        %b : f32[1,{outputs},6] = mul(%a, %k)
        output "b" = %b""",
    )
    assert [op.name for op in graph.ops] == ["conv_transpose"]


@pytest.mark.parametrize(
    "text",
    [
        # Two readers; an output; a constant that varies over pixels; c - x; a clamp between.
        """%b : f32[1,2,2,2] = mul(%a, %k)
        %c : f32[1,2,2,2] = add(%a, %b)
        output "c" = %c""",
        'output "a" = %a\n%b : f32[1,2,2,2] = mul(%a, %k)\noutput "b" = %b',
        '%b : f32[1,2,2,2] = mul(%a, %pixels)\noutput "b" = %b',
        '%b : f32[1,2,2,2] = sub(%k, %a)\noutput "b" = %b',
        '%b : f32[1,2,2,2] = mul(%a, %k) {clamp = (0.0, 1.0)}\noutput "b" = %b',
    ],
)
def test_what_must_stay(text: str) -> None:
    outputs = [line for line in text.splitlines() if line.strip().startswith("output")]
    rest = [line for line in text.splitlines() if line not in outputs]
    constants = []
    if "%k" in text:
        constants.append("const %k : f32[2,1,1] = f32[2,1,1] [4.0, 8.0]")
    if "%pixels" in text:
        constants.append("const %pixels : f32[2,2] = f32[2,2] [1.0, 2.0, 3.0, 4.0]")
    head = ["input %x : f32[1,1,2,2]", "const %w : f32[2,1,1,1] = f32[2,1,1,1] [1.0, 2.0]", *constants]
    unchanged(fold_affine, "\n".join([*head, f"%a : f32[1,2,2,2] = conv(%x, %w) {CONV}", *rest, *outputs]))
