# SPDX-License-Identifier: Apache-2.0
"""Data that only moves: what is a view, and what transfers do to bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.opdef import Builder
from gadl.passes.plan.program import Step
from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.expand.context import Expansion, Place
from gadl.targets.cv18xx.expand.moves import dims_of, move
from gadl.targets.cv18xx.isa import Direction, Special
from gadl.targets.cv18xx.strides import dense_strides, reshaped, same_strides

from .graphs import assert_equal_on_the_model, feeds_of, float_graph, only_segment, placed
from .vendor import needs_functional_model

CV181X = CHIPS["cv181x"]
extents = st.lists(st.sampled_from([1, 2, 3, 4, 6, 12]), min_size=1, max_size=5)


@given(extents, st.data())
def test_another_shape_of_the_same_bytes_is_what_numpy_sees(shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    view = np.arange(math.prod(shape), dtype=np.int32).reshape([shape[i] for i in np.argsort(order)]).transpose(order)
    joined = data.draw(st.integers(0, len(shape) - 1))
    target = [*view.shape[:joined], math.prod(view.shape[joined : joined + 2]), *view.shape[joined + 2 :]]
    for old, new in ((view.shape, target), (view.shape, [1, *view.shape, 1]), (target, view.shape)):
        held = view.reshape(old)
        found = reshaped(held.shape, [s // 4 for s in held.strides], new)
        looked = held.reshape(new)
        assert (found is not None) == np.shares_memory(held, looked)
        assert found is None or same_strides(looked.shape, found, tuple(s // 4 for s in looked.strides))


class Memory:
    """Bytes of buffers, and what transfers between them do: copies in DDR, matrices to lanes and back."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.bytes: dict[int, np.ndarray] = {}

    def of(self, buffer: Any) -> np.ndarray:
        """DDR: u8[size]; local memory: u8[lanes, size]."""
        shape = (self.chip.lanes, buffer.size) if buffer.memory == "local" else (buffer.size,)
        return self.bytes.setdefault(id(buffer), np.zeros(shape, np.uint8))

    def run(self, step: Step) -> None:
        f = step.fields
        source, target = self.of(f["src"].buffer), self.of(f["dst"].buffer)
        if f["trans_dir"] == Direction.DDR:
            at = [
                f[side].offset + sum(np.arange(f[f"src_{a}" if a == "n" else f"{side}_{a}"]).reshape(-1, *[1] * (3 - i)) * stride
                for i, (a, stride) in enumerate(zip("nchw", (*(f[f"{side}_{a}_stride"] for a in "nch"), 1))))
                for side in ("src", "dst")
            ]  # fmt: skip
            target[at[1]] = source[at[0]]
            return
        assert f["sys_dtype"] == 1
        store = f["trans_dir"] == Direction.STORE
        side = "src" if store else "dst"
        across = f.get("spec_func", Special.COPY) == Special.TRANSPOSE
        rows, columns = (f["src_n"], f["dst_w"]) if store else (f["src_c"], f["src_w"])
        i, j = np.indices((columns, rows) if across else (rows, columns))
        width, lanes = f[f"{side}_w"], self.chip.lanes
        pitch = -(-width // 16) * 16
        held = (j // width % lanes, f[side].offset + i * f[f"{side}_n_stride"] + j // width // lanes * pitch + j % width)
        if store:
            target[f["dst"].offset + i * f["dst_c_stride"] + j] = source[held]
        else:
            there = f["src"].offset + (j * f["src_c_stride"] + i if across else i * f["src_c_stride"] + j)
            target[held] = source[there]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 5, 17, 130]), min_size=2, max_size=6).filter(lambda s: math.prod(s) < 40000), st.data(),
    st.sampled_from(list(CHIPS.values())),
)  # fmt: skip
def test_a_permutation_moves_every_byte(shape: list[int], data: st.DataObject, chip: Chip) -> None:
    perm = data.draw(st.permutations(range(len(shape))))
    context = Expansion(chip, 3772)
    count, (x, y) = math.prod(shape), (context.program.buffer("ddr0", math.prod(shape), name) for name in "xy")
    strides, made = dense_strides(shape), [shape[axis] for axis in perm]
    places = Place(x, 0, strides), Place(y, 0, dense_strides(made))
    move(context, *places, dims_of(made, [strides[axis] for axis in perm], places[1].strides))
    memory = Memory(chip)
    memory.of(x)[:] = np.random.default_rng(0).integers(0, 256, count)
    for step in context.program.steps:
        memory.run(step)
    np.testing.assert_array_equal(memory.of(y), memory.of(x).reshape(shape).transpose(perm).reshape(-1))
    assert all(b.size <= chip.lane_bytes // 4 for b in context.program.buffers if b.memory == "local")


def test_what_exchanges_the_innermost_axis_goes_through_local_memory() -> None:
    """Single bytes from DDR to DDR take 64 times their traffic."""
    context = Expansion(CV181X, 3772)
    x, y = (context.program.buffer("ddr0", 64000, name) for name in "xy")
    move(context, Place(x, 0, (64000, 1000, 1)), Place(y, 0, (64000, 64, 1)), dims_of((1, 1000, 64), (64000, 1, 1000), (64000, 64, 1)))
    kinds = [Direction(step.fields["trans_dir"]) for step in context.program.steps]
    assert set(kinds) == {Direction.LOAD, Direction.STORE}
    assert sum(step.cycles for step in context.program.steps) < 4 * 2 * 64000 / (3772 / 500)


def _permuted(b: Builder, x: Value, *perm: int) -> Value:
    return b("transpose", x, perm=perm)


FORMS = {
    "innermost": ((7, 33, 5, 300), lambda b, x: _permuted(b, x, 3, 0, 2, 1)),
    "six axes": ((2, 3, 4, 5, 6, 3), lambda b, x: _permuted(b, x, 5, 3, 1, 4, 2, 0)),
    "steps": ((2, 3, 40, 50, 6), lambda b, x: b("slice", x, starts=(0, 1, 3, 2, 0), sizes=(2, 2, 10, 20, 3), steps=(1, 1, 2, 2, 2))),
    "part of a permutation": (
        (1, 64, 20, 20),
        lambda b, x: b("slice", _permuted(b, x, 0, 2, 3, 1), starts=(0, 0, 1, 0), sizes=(1, 20, 10, 64), steps=(1,) * 4),
    ),
    "between computed": ((1, 64, 20, 20), lambda b, x: b("relu", _permuted(b, b("relu", x), 0, 2, 3, 1))),
    "read by rows": ((1, 6, 40, 30), lambda b, x: b("sigmoid", _permuted(b, x, 0, 2, 1, 3))),
    "written by rows": ((1, 6, 40, 30), lambda b, x: _permuted(b, b("sigmoid", x), 0, 2, 1, 3)),
    "joined axes": ((3, 5, 7, 4), lambda b, x: b("reshape", _permuted(b, x, 1, 2, 0, 3), shape=(35, 12))),
    "within a concatenation": (
        (1, 6, 7, 4), lambda b, x: b("concat", _permuted(b, x, 0, 2, 1, 3), b("reshape", b("relu", x), shape=(1, 7, 6, 4)), axis=1),
    ),
    "concatenated along columns": (
        (3, 5, 7, 4), lambda b, x: b("concat", _permuted(b, x, 1, 2, 0, 3), _permuted(b, b("relu", x), 1, 2, 0, 3), axis=2),
    ),
}  # fmt: skip


@needs_functional_model
@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("form", FORMS)
def test_moved_data_on_the_functional_model(form: str, chip: Chip, tmp_path: Path) -> None:
    shape, make = FORMS[form]
    graph, b, (x,) = float_graph(shape)
    graph.set_outputs([make(b, x)])
    feeds = feeds_of(graph, 1)
    assert_equal_on_the_model(placed(graph, feeds, chip), feeds[0], chip, tmp_path)


def test_more_than_four_axes_move_but_do_not_compute() -> None:
    graph, b, (x,) = float_graph((1, 2, 3, 4, 5))
    graph.set_outputs([b("sigmoid", _permuted(b, x, 0, 2, 1, 4, 3))])
    made = placed(graph, feeds_of(graph, 1), CV181X)
    (table,) = (op for op in made.ops if op.name == "lut")
    assert table.placement is not None and table.placement.segment is None and "four axes" in str(table.placement.reason)
    graph, b, (x,) = float_graph((1, 2, 3, 4, 5))
    graph.set_outputs([_permuted(b, x, 0, 2, 1, 4, 3)])
    assert [op.name for op in only_segment(placed(graph, feeds_of(graph, 1), CV181X)).ops] == ["transpose"]
