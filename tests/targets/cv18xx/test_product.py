# SPDX-License-Identifier: Apache-2.0
"""Products of matrices from memory to memory: blocks, operands as they lie, heads of attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.opdef import Builder
from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.cvimodel import SectionKind
from gadl.targets.cv18xx.descriptor import Command
from gadl.targets.cv18xx.expand.matrix import pitch
from gadl.targets.cv18xx.expand.product import PLANES, Shape, blocks_of
from gadl.targets.cv18xx.isa import Direction, Engine, Special, Task

from .graphs import assert_equal_on_the_model, compiled, feeds_of, float_graph, only_segment, placed
from .vendor import needs_functional_model

HEADS, TIME, DEPTH = 8, 40, 15
Make = Callable[..., Value]


def attention(b: Builder, x: Value) -> Value:
    """Queries, keys and values of all heads in one tensor, as recognisers of text have them; without the softmax between."""
    sizes = (1, 1, HEADS, TIME, DEPTH)
    whole = b("transpose", b("reshape", x, shape=(1, TIME, 3, HEADS, DEPTH)), perm=(2, 0, 3, 1, 4))
    parts = [b("slice", whole, starts=(i, 0, 0, 0, 0), sizes=sizes, steps=(1,) * 5) for i in range(3)]
    q, k, v = (b("reshape", part, shape=sizes[1:]) for part in parts)
    mixed = b("matmul", b("matmul", q, b("transpose", k, perm=(0, 1, 3, 2))), v)
    return b("reshape", b("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, TIME, HEADS * DEPTH))


def multiply(b: Builder, x: Value, y: Value) -> Value:
    return b("matmul", x, y)


def multiply_transposed(b: Builder, x: Value, y: Value) -> Value:
    return b("matmul", x, b("transpose", y, perm=(*range(y.type.rank - 2), y.type.rank - 1, y.type.rank - 2)))


FORMS: dict[str, tuple[tuple[tuple[int, ...], ...], Make]] = {
    "batch": (((2, 40, 15), (2, 15, 40)), multiply),
    "narrow": (((3, 50, 33), (3, 33, 5)), multiply),
    "columns of the right": (((1, 3, 5, 150), (1, 3, 70, 150)), multiply_transposed),
    "shared right": (((2, 3, 5, 37), (37, 20)), multiply),
    "shared left": (((9, 37), (2, 3, 37, 20)), multiply),
    "blocks of rows and columns": (((1, 700, 900), (1, 900, 300)), multiply),
    "parts of the depth": (((1, 90, 1900), (1, 1900, 130)), multiply),
    "attention": (((1, TIME, 3 * HEADS * DEPTH),), attention),
    "left transposed": (((1, 60, 24), (1, 60, 31)), lambda b, x, y: b("matmul", b("transpose", x, perm=(0, 2, 1)), y)),
}


@needs_functional_model
@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("form", FORMS)
def test_products_on_the_functional_model(form: str, chip: Chip, tmp_path: Path) -> None:
    shapes, make = FORMS[form]
    graph, b, inputs = float_graph(*shapes)
    graph.set_outputs([make(b, *inputs)])
    feeds = feeds_of(graph, 1)
    assert_equal_on_the_model(placed(graph, feeds, chip), feeds[0], chip, tmp_path)


@needs_functional_model
@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
def test_rows_of_a_layer_larger_than_a_lane(chip: Chip, tmp_path: Path) -> None:
    """Many rows, a bias, a relu, and a residual sum behind."""
    graph, b, (x,) = float_graph((1, 2500, 96))
    rng = np.random.default_rng(2)
    weights = graph.constant((rng.standard_normal((96, 96)) / 8).astype(np.float32), "w")
    y = b("relu", b("linear", x, weights, graph.constant(rng.standard_normal(96).astype(np.float32), "b")))
    graph.set_outputs([y])
    feeds = feeds_of(graph, 1)
    assert_equal_on_the_model(placed(graph, feeds, chip), feeds[0], chip, tmp_path)


def commands_of(form: str, chip: Chip) -> list[Command]:
    shapes, make = FORMS[form]
    graph, b, inputs = float_graph(*shapes)
    graph.set_outputs([make(b, *inputs)])
    model = compiled(only_segment(placed(graph, feeds_of(graph, 1), chip)), chip)
    return [c for i, s in enumerate(model.model.sections) if s.kind == SectionKind.COMMANDS for c in model.commands(i)]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
def test_heads_are_read_and_written_where_they_lie(chip: Chip) -> None:
    """Nothing is copied in memory for the permutations; only the keys are transposed, as they are loaded."""
    found = commands_of("attention", chip)
    transfers = [c.fields for c in found if c.engine is Engine.TDMA]
    assert not [f for f in transfers if f["trans_dir"] == Direction.DDR]
    assert sum(f["spec_func"] == Special.TRANSPOSE for f in transfers) == HEADS
    assert sum(f["trans_dir"] == Direction.STORE for f in transfers) == 2 * HEADS
    products = [c.fields for c in found if c.engine is Engine.TIU]
    assert [f["tsk_typ"] for f in products] == [Task.MATMUL] * 2 * HEADS


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 7000), st.sampled_from(list(CHIPS.values())))
def test_blocks_fit_half_a_lane(rows: int, depth: int, columns: int, chip: Chip) -> None:
    blocks = blocks_of(Shape(rows, depth, columns), chip, 3772)
    planes = PLANES if blocks.depth < depth else 1
    taken = blocks.rows * pitch(blocks.depth, chip) + blocks.depth * pitch(blocks.columns, chip)
    assert taken + planes * blocks.rows * pitch(blocks.columns, chip) <= chip.lane_bytes // 2
    assert 0 < blocks.rows <= rows and 0 < blocks.depth <= depth and 0 < blocks.columns <= columns
