# SPDX-License-Identifier: Apache-2.0
"""Tensors in DDR by the byte stride of each axis: what an op that only moves data sees without moving it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gadl.compiler.ir.graph import Op

Strides = tuple[int, ...]
#: Ops that move data and change none.
MOVING = frozenset({"reshape", "transpose", "slice", "concat", "pad"})
#: The largest stride of rows that a transfer holds.
MOST_ROW_STRIDE = 65535


class Seen(NamedTuple):
    """A tensor within another one: byte offset, and stride of each axis."""

    offset: int
    strides: Strides


def dense_strides(shape: Sequence[int]) -> Strides:
    """Of a tensor of bytes without gaps."""
    found, stride = [], 1
    for extent in reversed(shape):
        found.append(stride)
        stride *= extent
    return tuple(reversed(found))


def same_strides(shape: Sequence[int], a: Strides, b: Strides) -> bool:
    """True where all elements lie alike; an axis of one element has any stride."""
    return all(extent == 1 or one == other for extent, one, other in zip(shape, a, b, strict=True))


def reshaped(shape: Sequence[int], strides: Strides, target: Sequence[int]) -> Strides | None:
    """Strides of the same bytes in another shape; None where there are none."""
    runs: list[tuple[int, int]] = []
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == extent * stride:
            runs[-1] = runs[-1][0] * extent, stride
        else:
            runs.append((extent, stride))
    found: list[int] = []
    left, stride = runs.pop() if runs else (1, 1)
    for extent in reversed(target):
        if left == 1 and runs and extent > 1:
            left, stride = runs.pop()
        if left % extent:
            return None
        found.append(stride)
        left, stride = left // extent, stride * extent
    return tuple(reversed(found))


def seen_through(op: Op, strides: Strides) -> Seen | None:
    """The result of an op within its operand; None where it has to be made."""
    match op.name:
        case "transpose":
            return Seen(0, tuple(strides[axis] for axis in op.attrs["perm"]))
        case "slice":
            offset = sum(start * stride for start, stride in zip(op.attrs["starts"], strides, strict=True))
            return Seen(offset, tuple(step * stride for step, stride in zip(op.attrs["steps"], strides, strict=True)))
        case "reshape":
            found = reshaped(op.inputs[0].shape, strides, op.result.shape)
            return None if found is None else Seen(0, found)
        case _:
            return None


def operand_within(op: Op, strides: Strides) -> Strides | None:
    """The operand's strides where it is to lie so that its result lies there already; None where it cannot."""
    match op.name:
        case "transpose":
            found = dict(zip(op.attrs["perm"], strides, strict=True))
            return tuple(found[axis] for axis in range(len(found)))
        case "reshape":
            return reshaped(op.result.shape, strides, op.inputs[0].shape)
        case _:
            return None


def in_rows(shape: Sequence[int], strides: Strides) -> bool:
    """True where tiles are loaded and stored as the tensor lies: pixels of a row one after another."""
    rank = len(shape)
    if rank > 4:
        return False
    contiguous = rank == 2 or shape[-1] == 1 or strides[-1] == 1
    return contiguous and (rank < 4 or shape[2] == 1 or strides[2] <= MOST_ROW_STRIDE)


def in_matrices(shape: Sequence[int], strides: Strides) -> bool:
    """True where the matrices of the last two axes are loaded as they lie, by rows or by columns."""
    return any(shape[axis] == 1 or strides[axis] == 1 for axis in (-1, -2))


def row_pitch(shape: Sequence[int], strides: Strides) -> int | None:
    """Bytes between the rows of the matrix that all axes but the last one make; None where they are not evenly apart."""
    found = reshaped(shape[:-1], strides[:-1], (_count(shape[:-1]),))
    if found is None or (shape[-1] > 1 and strides[-1] != 1):
        return None
    return found[0]


def can_read(op: Op, shape: Sequence[int], strides: Strides) -> bool:
    """True for an op that takes an operand as it lies in DDR."""
    if op.name in MOVING:
        return True
    if op.name == "linear":
        return row_pitch(shape, strides) is not None
    return in_matrices(shape, strides) if op.name == "matmul" else in_rows(shape, strides)


def can_write(op: Op, shape: Sequence[int], strides: Strides) -> bool:
    """True for an op that puts its result there in DDR."""
    if op.name in ("transpose", "slice"):
        return True
    if op.name == "linear":
        return row_pitch(shape, strides) is not None
    if op.name == "matmul":
        return shape[-1] == 1 or strides[-1] == 1
    return op.name not in MOVING and in_rows(shape, strides)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
