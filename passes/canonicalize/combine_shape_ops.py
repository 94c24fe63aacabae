# SPDX-License-Identifier: Apache-2.0
"""Chains of data movement become single steps, and steps that move nothing become reshapes."""

from __future__ import annotations

from collections.abc import Callable

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import Builder, op_def
from gadl.compiler.ir.pattern import producer
from gadl.compiler.ir.types import TensorType


def combine_shape_ops(graph: Graph) -> bool:
    """Each rule reads the same elements with fewer steps.

    `slice(slice(x))  -->  slice(x)`; `pad(pad(x))  -->  pad(x)` of one value;
    `concat(concat(x, y), z)  -->  concat(x, y, z)`; `slice(concat(x, y))  -->  slice(x)` where it lies in one operand;
    `transpose(x)  -->  reshape(x)` where only axes of extent 1 change their place;
    `transpose(reshape(x))  -->  reshape(transpose(x))` where pixels become rows of channels;
    `f(expand(x), y)  -->  f(x, y)` for elementwise f that broadcasts x itself.
    """
    changed = False
    for op in list(graph.ops):
        for rule in _RULES.get(op.name, ()):
            changed |= rule(graph, op)
        changed |= _read_through_expand(op)
    return bool(graph.remove_dead_ops()) or changed


def _slice_of_slice(graph: Graph, op: Op) -> bool:
    """Element i of the outer is element start + i * step of the inner."""
    before = producer(op.inputs[0], "slice")
    if before is None:
        return False
    inner = zip(before.attrs["starts"], before.attrs["steps"])
    outer = list(zip(op.attrs["starts"], op.attrs["steps"]))
    merged = [(a + s * b, b * t) for (a, b), (s, t) in zip(inner, outer)]
    op.attrs["starts"], op.attrs["steps"] = tuple(m[0] for m in merged), tuple(m[1] for m in merged)
    op.set_operand(0, before.inputs[0])
    return True


def _slice_of_concat(graph: Graph, op: Op) -> bool:
    """A slice that touches one operand only reads that operand."""
    before = producer(op.inputs[0], "concat")
    if before is None:
        return False
    axis = before.attrs["axis"] % before.result.type.rank
    first, size, step = (op.attrs[n][axis] for n in ("starts", "sizes", "steps"))
    last = first + (size - 1) * step
    offset = 0
    for part in before.inputs:
        extent = part.shape[axis]
        if size and offset <= min(first, last) and max(first, last) < offset + extent:
            starts = list(op.attrs["starts"])
            starts[axis] = first - offset
            op.attrs["starts"] = tuple(starts)
            op.set_operand(0, part)
            return True
        offset += extent
    return False


def _pad_of_pad(graph: Graph, op: Op) -> bool:
    """Constant borders of one value add up."""
    before = producer(op.inputs[0], "pad")
    constant = before is not None and op.attrs["mode"] == before.attrs["mode"] == "constant"
    if before is None or not constant or op.attrs["value"] != before.attrs["value"]:
        return False
    op.attrs["pads"] = tuple(a + b for a, b in zip(op.attrs["pads"], before.attrs["pads"]))
    op.set_operand(0, before.inputs[0])
    return True


def _concat_of_concat(graph: Graph, op: Op) -> bool:
    """An operand that is itself a concatenation along the same axis, read by nobody else, is replaced by its parts."""
    rank = op.result.type.rank
    parts: list[Value] = []
    for value in op.inputs:
        inner = producer(value, "concat")
        flat = inner is not None and len(value.users) == 1 and not any(value is o for o in graph.outputs)
        same = inner is not None and inner.attrs["axis"] % rank == op.attrs["axis"] % rank
        parts += inner.inputs if inner is not None and flat and same else [value]
    if len(parts) == len(op.operands):
        return False
    for index, value in enumerate(parts):
        op.set_operand(index, value)
    return True


def _transpose_of_units(graph: Graph, op: Op) -> bool:
    """The order of elements does not depend on axes of extent 1."""
    shape = op.inputs[0].shape
    moved = [axis for axis in op.attrs["perm"] if shape[axis] != 1]
    if moved != sorted(moved):
        return False
    made = Builder.before(graph, op)("reshape", op.inputs[0], shape=op.result.shape)
    made.name, op.result.name = op.result.name, made.name
    graph.replace_uses(op.result, made)
    return True


def _rows_of_channels(graph: Graph, op: Op) -> bool:
    """`[n, c, h, w]` to `[n, h * w, c]`: channels first go behind the pixels, which moves nothing where they are innermost already."""
    before = producer(op.inputs[0], "reshape")
    if before is None or op.attrs["perm"] != (0, 2, 1) or len(before.result.users) > 1 or any(before.result is v for v in graph.outputs):
        return False
    x = before.inputs[0]
    if x.type.rank < 4 or x.shape[:2] != before.result.shape[:2]:
        return False
    build = Builder.before(graph, op)
    made = build("reshape", build("transpose", x, perm=(0, *range(2, x.type.rank), 1)), shape=op.result.shape)
    made.name, op.result.name = op.result.name, made.name
    graph.replace_uses(op.result, made)
    return True


_BROADCASTING = ("add", "sub", "mul", "div", "pow", "min", "max", "where")


def _read_through_expand(op: Op) -> bool:
    """Drop an expansion where the op's own broadcasting gives the same shape."""
    if op.name not in _BROADCASTING:
        return False
    changed = False
    for index, value in enumerate(op.inputs):
        before = producer(value, "expand")
        if before is None:
            continue
        types: list[TensorType | None] = [v.type for v in op.inputs]
        types[index] = before.inputs[0].type
        if op_def(op.name).infer(types, op.attrs)[0].shape == op.result.type.shape:
            op.set_operand(index, before.inputs[0])
            changed = True
    return changed


_RULES: dict[str, tuple[Callable[[Graph, Op], bool], ...]] = {
    "slice": (_slice_of_slice, _slice_of_concat),
    "pad": (_pad_of_pad,),
    "concat": (_concat_of_concat,),
    "transpose": (_transpose_of_units, _rows_of_channels),
}
