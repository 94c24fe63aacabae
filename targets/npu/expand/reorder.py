# SPDX-License-Identifier: Apache-2.0
"""transpose, slice and reshape of tensors in logical order between bands: which rows they read, and how they move them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.passes.plan.program import Ref, Region
from gadl.passes.plan.rows import RowMap
from gadl.passes.plan.spans import Span

from .bands import Band, row_shape
from .kernel import Kernel


@dataclass(frozen=True)
class _View:
    """The elements of a dense tensor that make a result: its extents, and first element and strides in the tensor."""

    shape: tuple[int, ...]
    first: int
    strides: tuple[int, ...]

    @staticmethod
    def of(op: Op) -> _View:
        """A reshape keeps all elements in one run."""
        dense = _dense(op.inputs[0].shape)
        match op.name:
            case "transpose":
                return _View(op.result.shape, 0, tuple(dense[axis] for axis in op.attrs["perm"]))
            case "slice":
                starts, steps = op.attrs["starts"], op.attrs["steps"]
                return _View(op.result.shape, sum(s * d for s, d in zip(starts, dense)), tuple(s * d for s, d in zip(steps, dense)))
            case _:
                return _View((op.result.type.element_count,), 0, (1,))


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def reordered_rows(op: Op) -> RowMap | None:
    """The rows that each row of the result reads; None where a tensor has no rows or several images."""
    x, y = row_shape(op.inputs[0]), row_shape(op.result)
    if x is None or y is None or x.images != 1 or y.images != 1:
        return None
    return _rows(_View.of(op), op.inputs[0].type.element_count // x.rows, y.rows)


@lru_cache(maxsize=256)
def _rows(view: _View, each: int, rows: int) -> RowMap:
    at = np.full(1, view.first)
    for extent, stride in zip(view.shape, view.strides):
        at = (at[:, None] + np.arange(extent) * stride).reshape(-1)
    source = at.reshape(rows, -1) // each
    return RowMap.of(source.min(1), source.max(1) + 1)


def boxes(shape: tuple[int, ...], first: int, end: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Elements `[first, end)` of a dense tensor as boxes, in order: index of the first element, extents."""
    if not shape:
        yield (), ()
        return
    inner = math.prod(shape[1:])
    low, high = -(-first // inner), end // inner
    if low > high:
        for index, count in boxes(shape[1:], first - high * inner, end - high * inner):
            yield (high, *index), (1, *count)
        return
    if first < low * inner:
        for index, count in boxes(shape[1:], first - (low - 1) * inner, inner):
            yield (low - 1, *index), (1, *count)
    if high > low:
        yield (low, *(0,) * (len(shape) - 1)), (high - low, *shape[1:])
    if end > high * inner:
        for index, count in boxes(shape[1:], 0, end - high * inner):
            yield (high, *index), (1, *count)


class ReorderKernel(Kernel):
    """Boxes of the result's rows, each by one instruction."""

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        x, element, view = self.layer.op.inputs[0], self.layer.result.dtype.size_bytes, _View.of(self.layer.op)
        out = _dense(view.shape)
        each = target.row_bytes // element
        source = sources[id(x)]
        # Bytes of both bands counted from the tensors' first elements.
        starts = source.byte(0) + element * view.first, target.byte(0)
        for index, count in boxes(view.shape, rows.first * each, rows.end * each):
            dims = _joined(count, view.strides, out)
            at = [start + element * sum(i * s for i, s in zip(index, steps)) for start, steps in zip(starts, (view.strides, out))]
            fields: dict[str, Any] = {"x_addr": Ref(source.buffer, at[0]), "out_addr": Ref(target.buffer, at[1]), "elem_bytes": element}
            for number, (n, a, b) in enumerate(dims):
                fields |= {f"n{number}": n, f"x_s{number}": a * element, f"out_s{number}": b * element}
            hull = [element * (1 + sum((n - 1) * d[side] for n, *d in dims)) for side in (0, 1)]
            cycles = self.context.costs.vector(math.prod(count), element)
            self.context.step("VEC", "VTR", fields, [Region(source.buffer, at[0], hull[0])], [Region(target.buffer, at[1], hull[1])], cycles)


def _joined(count: tuple[int, ...], *strides: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Extents with both strides, innermost first; those that follow each other on both sides are one."""
    found: list[tuple[int, int, int]] = []
    for n, a, b in sorted(zip(count, *strides), key=lambda d: d[2]):
        if n == 1:
            continue
        if found and (found[-1][0] * found[-1][1], found[-1][0] * found[-1][2]) == (a, b):
            found[-1] = found[-1][0] * n, found[-1][1], found[-1][2]
        else:
            found.append((n, a, b))
    return found or [(1, 1, 1)]
