# SPDX-License-Identifier: Apache-2.0
"""Masks in front of a softmax."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import check, unchanged

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.canonicalize.masks_as_sums import masks_as_sums


def test_constant_mask_is_added() -> None:
    check(
        masks_as_sums,
        """input %x : f32[2,2]
        const %m : bool[2,2] = bool[2,2] [true, false, true, true]
        const %c : f32[] = f32[] [-1e30]
        %s : f32[2,2] = where(%m, %x, %c)
        %y : f32[2,2] = softmax(%s) {axis = -1}
        output "y" = %y""",
        """input %x : f32[2,2]
        const %s.mask : f32[2,2] = f32[2,2] [0.0, -1e30, 0.0, 0.0]
        %s : f32[2,2] = add(%x, %s.mask)
        %y : f32[2,2] = softmax(%s) {axis = -1}
        output "y" = %y""",
    )


@pytest.mark.parametrize("number", [-np.inf, np.finfo(np.float32).min, -1e30])
@pytest.mark.parametrize("first", [True, False])
def test_computed_mask_gives_the_same_probabilities(number: float, first: bool) -> None:
    graph = Graph()
    build = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, (3, 5, 7)))
    m = graph.add_input("m", TensorType(DType.BOOL, (5, 7)))
    c = graph.constant(np.full((), number, np.float32))
    graph.set_outputs([build("softmax", build("where", m, *((c, x) if first else (x, c))), axis=-1)], ["y"])
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (5, 7)).astype(bool)
    mask[:, 0], mask[:, 1] = True, False
    feeds = {"x": 100 * rng.standard_normal((3, 5, 7)).astype(np.float32), "m": mask}
    before = interpret(graph, feeds)["y"]
    assert masks_as_sums(graph) and any(op.name == "add" for op in graph.ops)
    np.testing.assert_array_equal(interpret(graph, feeds)["y"], before)


@pytest.mark.parametrize(("number", "user"), [("-10.0", "softmax"), ("-1e30", "sigmoid")])
def test_other_selections_stay(number: str, user: str) -> None:
    unchanged(
        masks_as_sums,
        f"""input %x : f32[1,2]
        const %m : bool[1,2] = bool[1,2] [true, false]
        const %c : f32[] = f32[] [{number}]
        %s : f32[1,2] = where(%m, %x, %c)
        %y : f32[1,2] = {user}(%s){' {axis = -1}' if user == 'softmax' else ''}
        output "y" = %y""",
    )
