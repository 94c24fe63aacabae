# SPDX-License-Identifier: Apache-2.0
"""Declarations as a whole: complete, and total on any operands and attributes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.opdef import Attr, AttrKind, OpDef, OpError, all_ops, op_def
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import DType, Layout, TensorType

OPS = list(all_ops())
_INT = st.sampled_from([-(2**70), -3, -1, 0, 0, 1, 1, 1, 2, 3, 4, 2**70])
_FLOAT = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, float("inf"), float("nan")])


def values_of(attr: Attr, rank: int) -> st.SearchStrategy[Any]:
    """Values of an attribute's kind, sensible or not; lengths near the rank."""
    if attr.choices:
        return st.sampled_from(attr.choices)
    lengths = st.sampled_from([max(0, rank - 2), max(0, 2 * rank - 4), rank, 2 * rank, 3])
    many = {AttrKind.INTS: _INT, AttrKind.FLOATS: _FLOAT, AttrKind.REQUANTS: st.just(make_requant(0.5))}
    if attr.kind in many:
        return lengths.flatmap(lambda n: st.tuples(*[many[attr.kind]] * n))
    return {
        AttrKind.INT: _INT,
        AttrKind.FLOAT: _FLOAT,
        AttrKind.BOOL: st.booleans(),
        AttrKind.STR: st.just("x"),
        AttrKind.DTYPE: st.sampled_from(DType),
        AttrKind.LAYOUT: st.sampled_from(Layout),
        AttrKind.TENSOR: st.sampled_from([np.zeros(256, np.int8), np.zeros(513, np.int16), np.zeros((), np.float32)]),
        AttrKind.REQUANT: st.just(make_requant(np.array([0.5, 0.25]))),
    }[attr.kind]


@st.composite
def uses(draw: st.DrawFn, definition: type[OpDef]) -> tuple[list[TensorType], dict[str, Any]]:
    """Operand types and attributes for an op."""
    rank = draw(st.integers(0, 5))
    shapes = st.tuples(*[st.sampled_from([0, 1, 1, 2, 3, 4])] * rank)
    same = draw(st.booleans())
    first = TensorType(draw(st.sampled_from(DType)), draw(shapes))
    types = [first]
    for _ in definition.operands[1:]:
        types.append(first if same else TensorType(draw(st.sampled_from(DType)), draw(shapes)))
    return types, {a.name: draw(values_of(a, rank)) for a in definition.attrs if a.default is not None or draw(st.booleans())}


@pytest.mark.parametrize("definition", OPS, ids=lambda d: d.name)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_infer_gives_a_shape_or_an_op_error(definition: type[OpDef], data: st.DataObject) -> None:
    types, attrs = data.draw(uses(definition))
    try:
        definition.check_operands(types)
        inferred = definition.infer(types, definition.complete(attrs))
    except OpError as error:
        assert str(error)
        return
    for made in inferred:
        assert all(type(d) is int and d >= 0 for d in made.shape)


@pytest.mark.parametrize("definition", OPS, ids=lambda d: d.name)
def test_the_page_of_an_op_is_complete(definition: type[OpDef]) -> None:
    doc = inspect.cleandoc(definition.__dict__.get("__doc__") or "")
    assert doc.splitlines()[0].endswith("."), "the first line is not a sentence"
    names = [o.name for o in definition.operands]
    assert len(set(names)) == len(names)
    assert not any(o.variadic for o in definition.operands[:-1]), "only the last operand repeats"
    optional = [o.optional for o in definition.operands]
    assert optional == sorted(optional), "only trailing operands are optional"
    for attr in definition.attrs:
        assert attr.default is None or type(attr.default) is object or attr.kind.accepts(attr.default)


def test_no_onnx_op_imports_as_two() -> None:
    names = [name for d in OPS for name in d.onnx]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("softmax", {"axes": 1}, "no attribute 'axes'"),
        ("transpose", {}, "needs attribute 'perm'"),
        ("transpose", {"perm": [0, 1]}, "must be ints"),
        ("softmax", {"axis": True}, "must be int"),
        ("gelu", {"approximate": "erf"}, "one of none, tanh"),
        ("add", {"clamp": (0.0,)}, "needs 2 entries, got 1"),
    ],
)
def test_wrong_attributes_are_named(op: str, attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(OpError, match=message):
        op_def(op).complete(attrs)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs"),
    [
        ("batch_norm", [(2, 3, 4), (3,), (3,), (4,), (3,)], {}),
        ("layer_norm", [(2, 3, 4), (3,)], {"axis": -1}),
        ("rms_norm", [(2, 3, 4), (2, 3, 4)], {"axis": 1}),
        ("instance_norm", [(2, 3, 4), (3,), (1,)], {}),
        ("group_norm", [(2, 6, 4), (2,)], {"groups": 2}),
        ("instance_norm", [(3,), (3,), (3,)], {}),
    ],
)
def test_vectors_of_a_normalisation_fit_its_channels(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    definition = op_def(op)
    with pytest.raises(OpError, match="not fit|no axis|not broadcast"):
        definition.infer([TensorType(DType.F32, s) for s in shapes], definition.complete(attrs))


def test_wrong_operands_are_named() -> None:
    f32 = TensorType(DType.F32, (2,))
    with pytest.raises(OpError, match="at most 2 operands, got 3"):
        op_def("add").check_operands([f32, f32, f32])
    with pytest.raises(OpError, match="needs operand 'b'"):
        op_def("add").check_operands([f32])
    op_def("concat").check_operands([f32] * 9)
    with pytest.raises(OpError, match="there is no op 'warp'"):
        op_def("warp")


def test_defaults_are_filled_in_declared_order() -> None:
    full = op_def("avg_pool").complete({"pads": (0, 0), "kernel": (2,), "strides": (1,)})
    assert list(full.items()) == [
        ("kernel", (2,)), ("strides", (1,)), ("pads", (0, 0)), ("ceil_mode", False), ("count_include_pad", False)
    ]  # fmt: skip
