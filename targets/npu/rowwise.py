# SPDX-License-Identifier: Apache-2.0
"""Which layers run row by row between bands in SRAM, and what each result row reads: the input of group planning."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType, Layout
from gadl.passes.plan.rows import RowFlow, RowLayer, RowMap

from . import attention
from .costs import Costs
from .expand.attention import attention_reads
from .expand.bands import RowShape, by_last_axis, row_period, row_shape
from .expand.matmul import matmul_reads
from .expand.normalise import OVER_LAST_AXIS
from .expand.normalise import working_bytes as norm_bytes
from .expand.reorder import reordered_rows
from .expand.resize import taps_of
from .expand.transposed import transposed_rows
from .layers import Layer, in_logical_order, window_of

#: Ops whose elements depend on the same element of their operands only.
ELEMENTWISE = frozenset({"add", "sub", "mul", "min", "max", "lut", "requantize"})
ON_ARRAY = frozenset({"conv", "linear", "conv_transpose", "matmul", "attention"})
_REDUCTIONS = frozenset({"reduce_sum", "reduce_mean", "reduce_max", "reduce_min"})
#: The most by which an element of eight bits differs from its zero point.
MOST_DIFFERENCE = 255


def row_reads(layer: Layer) -> list[tuple[Value, RowMap]] | None:
    """The operands a layer reads by rows, or None when it does not run that way."""
    op, y = layer.op, row_shape(layer.result)
    if y is None:
        return None
    if op.name in ELEMENTWISE:
        return _elementwise(layer, y)
    if op.name in _REDUCTIONS:
        return _reduction(layer, y)
    found = _one_to_one(layer, y)
    shapes = [row_shape(v) for v, _ in found]
    return found if found and all(s is not None and s.images == y.images for s in shapes) else None


def _one_to_one(layer: Layer, y: RowShape) -> list[tuple[Value, RowMap]]:
    """Layers that take image by image; nothing where the form is another."""
    op = layer.op
    match op.name:
        case "conv" | "linear" | "max_pool" | "avg_pool":
            return _window(layer, y)
        case "conv_transpose":
            return [(op.inputs[0], RowMap.of(*transposed_rows(layer)))]
        case "resize":
            table = taps_of(layer, 2)[:, :2].astype(int)
            return [(op.inputs[0], RowMap.of(table.min(1), table.max(1) + 1))]
        case "matmul":
            return matmul_reads(layer)
        case "attention":
            return attention_reads(layer)
        case name if name in OVER_LAST_AXIS:
            return [(op.inputs[0], RowMap.same(y.rows))] if row_shape(op.inputs[0]) == y and in_logical_order(layer.result) else []
        case "reshape" | "transpose":
            return _reordered(layer)
        case "relayout":
            same = row_shape(op.inputs[0]) == y and in_logical_order(op.inputs[0]) and in_logical_order(layer.result)
            return [(op.inputs[0], RowMap.same(y.rows))] if same else []
        case "concat":
            return _concat(layer, y)
        case "slice":
            return _slice(layer, y) or _reordered(layer)
        case _:
            return []


def _reordered(layer: Layer) -> list[tuple[Value, RowMap]]:
    """Any order of the elements of a tensor that lies in its logical order."""
    flat = in_logical_order(layer.op.inputs[0]) and in_logical_order(layer.result)
    rows = reordered_rows(layer.op) if flat else None
    return [] if rows is None else [(layer.op.inputs[0], rows)]


def slices_pixels(layer: Layer) -> bool:
    """True for a slice of rows, pixels and channels, false for one along other axes."""
    shape = row_shape(layer.result)
    return shape is not None and bool(_slice(layer, shape))


def _window(layer: Layer, y: RowShape) -> list[tuple[Value, RowMap]]:
    window = window_of(layer.op)
    reach = (window.kh - 1) * window.dilation_h + 1
    found = [(layer.op.inputs[0], RowMap.window(y.rows, window.ih, window.stride_h, reach, window.pad_top))]
    residual = layer.op.operand(3)
    return found if residual is None else [*found, (residual, RowMap.same(y.rows))]


def _reduction(layer: Layer, y: RowShape) -> list[tuple[Value, RowMap]] | None:
    """Over all pixels of one image."""
    x = layer.op.inputs[0]
    shape, rank = row_shape(x), x.type.rank
    axes = {a % rank for a in layer.op.attrs["axes"]}
    if shape is None or shape.images != 1 or rank < 3 or by_last_axis(x) or axes != set(range(2, rank)) or (y.rows, y.width, y.channels) != (1, 1, shape.channels):
        return None
    return [(x, RowMap.whole(1, shape.rows))]


def slice_axes(layer: Layer) -> tuple[int, int, int]:
    """The logical axes of rows, pixels and channels of a slice's operand (-1: none)."""
    value = layer.op.inputs[0]
    rank = value.type.rank
    if rank <= 2 or value.layout is Layout.ROW_MAJOR and rank == 3:
        return rank - 2, -1, rank - 1
    return 2, 3 if rank == 4 else -1, 1


def _slice(layer: Layer, y: RowShape) -> list[tuple[Value, RowMap]]:
    """Rows, pixels and channels in steps of at least 1, of tensors with one row axis."""
    op, x = layer.op, row_shape(layer.op.inputs[0])
    axes = slice_axes(layer)
    starts, sizes, steps = op.attrs["starts"], op.attrs["sizes"], op.attrs["steps"]
    inside = [a for a in range(len(sizes)) if a not in axes]
    if x is None or axes[0] < 0 or any(s < 1 for s in steps) or op.inputs[0].layout is not layer.result.layout:
        return []
    if any(starts[a] != 0 or sizes[a] != op.inputs[0].shape[a] for a in inside) or sizes[axes[0]] != y.rows:
        return []
    if x.rows != op.inputs[0].shape[axes[0]] or (y.width, y.channels) != (sizes[axes[1]] if axes[1] >= 0 else 1, sizes[axes[2]]):
        return []
    rows = starts[axes[0]] + np.arange(y.rows) * steps[axes[0]]
    return [(op.inputs[0], RowMap(rows, rows + 1))]


def _concat(layer: Layer, y: RowShape) -> list[tuple[Value, RowMap]]:
    """Along channels."""
    axis, rank = layer.op.attrs["axis"] % layer.result.type.rank, layer.result.type.rank
    if any(v.is_constant for v in layer.op.inputs) or axis != (1 if rank > 2 else rank - 1):
        return []
    shapes = [row_shape(v) for v in layer.op.inputs]
    if any(s is None or (s.rows, s.width) != (y.rows, y.width) for s in shapes):
        return []
    return [(v, RowMap.same(y.rows)) for v in layer.op.inputs]


def _elementwise(layer: Layer, y: RowShape) -> list[tuple[Value, RowMap]] | None:
    """Operands of the result's own shape, one number, one per channel, or rows that repeat."""
    if y.images != 1:
        return None
    found: list[tuple[Value, RowMap]] = []
    for value in layer.op.inputs:
        shape = row_shape(value)
        if value.is_constant:
            per_channel = value.type.element_count in (1, y.channels) and _per_channel(value, layer.result)
            if not per_channel and row_period(value, layer.result) is None:
                return None
            continue
        if shape is None or shape.images != 1:
            return None
        if (shape.rows, shape.width, shape.channels) == (y.rows, y.width, y.channels) and value.shape == layer.result.shape:
            found.append((value, RowMap.same(y.rows)))
        elif (shape.rows, shape.width) == (1, 1) and shape.channels in (1, y.channels) and _per_channel(value, layer.result):
            found.append((value, RowMap.whole(y.rows, 1)))
        elif (period := row_period(value, layer.result)) is not None and shape.rows == period:
            rows = np.arange(y.rows, dtype=np.int64) % period
            found.append((value, RowMap.of(rows, rows + 1)))
        else:
            return None
    return found or None


def _per_channel(value: Value, result: Value) -> bool:
    """True when the value broadcasts along everything but the result's channel axis."""
    axis = result.type.rank - 1 if by_last_axis(result) else 1
    padded = (1,) * (result.type.rank - value.type.rank) + value.shape
    return all(d == 1 for a, d in enumerate(padded) if a != axis)


def is_reduction(layer: Layer) -> bool:
    """Layers whose result needs all rows, and that take them in as they come."""
    return layer.op.name in _REDUCTIONS


def row_layers(layers: Sequence[Layer]) -> tuple[list[RowLayer], dict[int, int]] | None:
    """The flow's view of a group, and the rows of every value; None when a layer does not run by rows.

    Values are known by `id`; the partial results of a reduction by the `id` of its op.
    """
    found: list[RowLayer] = []
    heights: dict[int, int] = {}
    lags = _lags(layers)
    for layer in layers:
        reads, lag = row_reads(layer), lags[id(layer.result)]
        if reads is None:
            return None
        for value in (layer.result, *(v for v, _ in reads)):
            shape = row_shape(value)
            if shape is not None:
                heights[id(value)] = shape.rows
        operands = tuple((id(v), m) for v, m in reads)
        if is_reduction(layer):
            # Partial results of each iteration's rows, then one result of them.
            rows = heights[id(layer.op.inputs[0])]
            heights[id(layer.op)] = rows
            found.append(RowLayer(id(layer.op), ((operands[0][0], RowMap.same(rows)),), lag))
            operands = ((id(layer.op), RowMap.whole(1, rows)),)
        found.append(RowLayer(id(layer.result), operands, lag))
    return found, heights


def _lags(layers: Sequence[Layer]) -> dict[int, int]:
    """How many iterations each result starts later, by `id`.

    A product behind a softmax or normalisation that is itself behind a product starts one later: the array has other rows to
    compute meanwhile.
    """
    lags: dict[int, int] = {}
    behind: dict[int, bool] = {}  # an array's work is upstream
    waits: dict[int, bool] = {}  # and so is long work of the vector unit behind it
    for layer in layers:
        key, mine = id(layer.result), [id(v) for v in layer.op.inputs if id(v) in lags]
        lag, after, waiting = (max((found[v] for v in mine), default=0) for found in (lags, behind, waits))
        if layer.op.name in ON_ARRAY:
            lags[key], behind[key], waits[key] = lag + waiting, True, False
        else:
            lags[key], behind[key] = lag, bool(after)
            waits[key] = bool(waiting or (after and layer.op.name in OVER_LAST_AXIS))
    return lags


def ahead(value: int, layers: Sequence[Layer], stored: set[int]) -> int:
    """Iterations' worth of slack of a value's band: who hands rows to another engine gets one, so that both run."""
    inside = any(id(layer.result) == value for layer in layers)
    if not inside and any(layer.op.name in ("matmul", "attention") and value in map(id, layer.op.inputs[1:]) for layer in layers):
        return 1  # all rows of a batch item at once: those of the next one come meanwhile
    if not inside or value in stored:
        return 2
    touching = [layer.op.name for layer in layers if id(layer.result) == value or any(id(v) == value for v in layer.op.inputs)]
    return int(any(name not in ("conv", "linear", "conv_transpose") for name in touching))


def band_bytes(costs: Costs, layers: Sequence[Layer], flow: RowFlow, stored: set[int], whole: Set[int] = frozenset()) -> int:
    """SRAM that the bands of a group take when all live at once; values that lie there `whole` count nothing."""
    shapes = {id(v): row_shape(v) for layer in layers for v in (layer.result, *layer.op.inputs)}
    total = sum(partial_bytes(layer, flow.iterations) for layer in layers if is_reduction(layer))
    total += sum(working_bytes(costs, layer) for layer in layers)
    for value in flow.upto:
        shape = shapes.get(value)
        if shape is not None and value not in whole:
            total += -(-flow.capacity(value, ahead(value, layers, stored)) * shape.row_bytes // 16) * 16
    return total


def working_bytes(costs: Costs, layer: Layer) -> int:
    """SRAM that a layer takes between its instructions."""
    return attention.working_bytes(costs, layer) if layer.op.name == "attention" else norm_bytes(layer)


def partial_bytes(layer: Layer, iterations: int) -> int:
    """SRAM that the partial results of a reduction take."""
    return iterations * partial_type(layer).size_bytes * layer.result.type.element_count


def partial_type(layer: Layer) -> DType:
    """The type of a reduction's partial results: wide enough for any sum."""
    x, y = layer.op.inputs[0], layer.result
    if layer.op.name in ("reduce_max", "reduce_min"):
        return x.dtype
    if x.dtype.size_bytes == 1 and x.type.element_count // y.type.element_count * MOST_DIFFERENCE <= DType.I16.range[1]:
        return DType.I16
    return DType.I32 if x.dtype.size_bytes == 1 else DType.I64


def weight_bytes(layer: Layer) -> int:
    """SRAM that the constants of a layer take: weights, and nine bytes of parameters for each channel."""
    total = 0 if layer.lut is None else 256
    for value in layer.op.inputs:
        if value.is_constant:
            total += value.type.size_bytes
    if layer.op.name in ("conv", "linear", "conv_transpose"):
        total += 9 * (row_shape(layer.result) or RowShape(1, 1, 1, 0, 1)).channels
    elif layer.op.name == "resize":
        total += 8 * (layer.result.shape[2] + layer.result.shape[3])
    elif layer.op.name == "lut":
        total += 256 if layer.op.inputs[0].dtype.size_bytes == 1 else 1026
    return total + 64
