# SPDX-License-Identifier: Apache-2.0
"""Elementwise layers on the vector unit: binary ops with broadcast, tables, requantisation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.types import Requant
from gadl.passes.plan.program import Buffer, Region
from gadl.passes.plan.spans import Span, spans

from ..isa import Binary, Unary
from ..layers import Flat, Layer, flatten
from .bands import Band, row_period, row_shape
from .context import Expansion, Tile
from .copying import CopyDim


@dataclass(frozen=True)
class Block:
    """Part of the collapsed dimensions: first index and extent of each."""

    first: tuple[int, ...]
    count: tuple[int, ...]


def blocks(dims: tuple[int, ...], most_elements: int) -> Iterator[Block]:
    """Cut `dims` into blocks of at most `most_elements`, outer dimensions first.

    Dimensions inside the cut one are whole, dimensions outside it are taken one index at a time.
    """
    inner = 1
    cut = len(dims) - 1
    for position in range(len(dims) - 1, -1, -1):
        cut = position
        if inner * dims[position] > most_elements:
            break
        inner *= dims[position]
    else:
        yield Block((0,) * len(dims), dims)
        return
    size = max(1, most_elements // inner)
    parts = -(-dims[cut] // size)
    size = -(-dims[cut] // parts)
    for outer in itertools.product(*(range(d) for d in dims[:cut])):
        for first in range(0, dims[cut], size):
            count = min(size, dims[cut] - first)
            yield Block((*outer, first, *(0,) * (len(dims) - cut - 1)), (*(1,) * cut, count, *dims[cut + 1 :]))


@dataclass(frozen=True)
class _Operand:
    """An operand in memory: element size, byte strides per collapsed dimension (0 broadcasts), where it starts."""

    buffer: Buffer
    offset: int
    element: int
    strides: tuple[int, ...]


class ElementwiseExpansion:
    """Expands one elementwise layer; the vector instruction is chosen by `_vector_step`."""

    def __init__(self, context: Expansion, layer: Layer) -> None:
        self.context, self.layer, self.op = context, layer, layer.op
        self.operands = [v for v in layer.op.inputs]
        columns = [self._strides(v) for v in (*self.operands, layer.result)]
        self.flat: Flat = flatten(layer.result, columns)
        self.table: Tile | None = None

    def run(self) -> None:
        """Emit all blocks: loads, the vector instruction, the store."""
        if self.op.name == "lut":
            self.table = self.context.load_constant(np.ascontiguousarray(self.op.attrs["table"]), "table")
        sources = [self._source(v, s) for v, s in zip(self.operands, self.flat.strides)]
        target = self._source(self.layer.result, self.flat.strides[-1])
        widest = max(s.element for s in (*sources, target))
        budget = self.context.costs.vector_block_bytes // (widest * (len(sources) + 1))
        kept: dict[tuple[int, tuple[int, ...]], Tile] = {}
        for block in blocks(self.flat.dims, budget):
            tiles, strides = [], []
            for number, source in enumerate(sources):
                used = tuple(f if s else 0 for f, s in zip(block.first, source.strides))
                extent = tuple(c if s else 1 for c, s in zip(block.count, source.strides))
                key = (number, used + extent)
                if key not in kept:
                    # Only blocks that come again (broadcast operands) are worth keeping on chip.
                    kept = {k: t for k, t in kept.items() if k[0] != number}
                    kept[key] = self._load(source, used, extent)
                tiles.append(kept[key])
                strides.append(_dense(extent, source.strides))
            self._vector_step(block, tiles, strides, target)

    def _strides(self, value: Value) -> tuple[int, ...]:
        """Byte strides per logical axis of the result; constants are dense in the result's layout."""
        rank = self.layer.result.type.rank
        pad = (0,) * (rank - value.type.rank)
        shape = (*(1,) * len(pad), *value.shape)
        if value.is_constant:
            order = self.layer.result.layout.permutation(rank)
            strides, step = [0] * rank, value.dtype.size_bytes
            for axis in reversed(order):
                strides[axis] = step
                step *= shape[axis]
        else:
            strides = [*pad, *self.context.place(value).strides]
        return tuple(0 if extent == 1 else stride for extent, stride in zip(shape, strides))

    def _source(self, value: Value, strides: tuple[int, ...]) -> _Operand:
        element = value.dtype.size_bytes
        if value.data is not None:
            rank = self.layer.result.type.rank
            data = value.data.reshape((1,) * (rank - value.type.rank) + value.shape)
            data = np.ascontiguousarray(data.transpose(self.layer.result.layout.permutation(rank)))
            return _Operand(self.context.constants, self.context.add_constant(data.tobytes()), element, strides)
        place = self.context.place(value)
        return _Operand(place.buffer, place.offset, element, strides)

    def _load(self, source: _Operand, first: tuple[int, ...], extent: tuple[int, ...]) -> Tile:
        tile = self.context.tile(math.prod(extent) * source.element, "operand")
        inside = _dense(extent, source.strides)
        dims = [CopyDim(c, s, d * source.element) for c, s, d in zip(extent, source.strides, inside)]
        offset = source.offset + sum(f * s for f, s in zip(first, source.strides))
        self.context.load(source.buffer, offset, tile, dims, source.element)
        return tile

    def _vector_step(self, block: Block, tiles: list[Tile], strides: list[tuple[int, ...]], target: _Operand) -> None:
        elements = math.prod(block.count)
        out = self.context.tile(elements * target.element, "y")
        dense = _dense(block.count, (1,) * len(block.count))
        reads = [t.region() for t in tiles]
        fields: dict[str, Any] = {"out_addr": out.at(0), "out_type": self.layer.result.dtype}
        if len(tiles) == 1:
            fields |= {"a_addr": tiles[0].at(0), "count": elements}
        else:
            fields |= {f"n{i}": d for i, d in enumerate(reversed(block.count))}
            for name, tile, steps in zip(("a", "b", "out"), (*tiles, out), (*strides, dense)):
                fields[f"{name}_addr"] = tile.at(0)
                fields |= {f"{name}_s{i}": s for i, s in enumerate(reversed(steps))}
        if self.table is not None:
            fields["table_addr"] = self.table.at(0)
            reads.append(self.table.region())
        instruction, more = vector_fields(self.op)
        widest = max(v.dtype.size_bytes for v in (*self.operands, self.layer.result))
        cycles = self.context.costs.vector(elements, widest)
        self.context.step("VEC", instruction, fields | more, reads, [out.region()], cycles)
        offset = target.offset + sum(f * s for f, s in zip(block.first, target.strides))
        copy = [CopyDim(c, d * target.element, s) for c, d, s in zip(block.count, dense, target.strides)]
        self.context.store(out, target.buffer, offset, copy, target.element)


def _dense(extent: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Element strides of a dense block, 0 where the operand broadcasts."""
    result, step = [0] * len(extent), 1
    for position in range(len(extent) - 1, -1, -1):
        if strides[position]:
            result[position] = step
            step *= extent[position]
    return tuple(result)


def vector_fields(op: Op) -> tuple[str, dict[str, Any]]:
    """The vector instruction of an elementwise op and its immediate fields."""
    zero_points = [v.quant.zero_point if v.quant is not None else 0 for v in op.inputs]
    out_zero = op.result.quant.zero_point if op.result.quant is not None else 0
    dtype = op.result.dtype
    low, high = op.attrs.get("clamp") or (dtype.range if dtype.is_integer else (float("-inf"), float("inf")))
    bounds: dict[str, Any] = {"lo": low, "hi": high}
    common: dict[str, Any] = {"a_type": op.inputs[0].dtype, "a_zp": zero_points[0], "out_zp": out_zero} | bounds
    requant = op.attrs.get("requant")
    if op.name == "lut":
        return "VLUT", {"a_type": op.inputs[0].dtype}
    if op.name in ("add", "sub", "mul", "min", "max"):
        common |= {"function": Binary[op.name.upper()], "b_type": op.inputs[1].dtype, "b_zp": zero_points[1]}
        if isinstance(requant, tuple):
            for prefix, part in zip(("a_", "b_", "out_"), requant):
                common |= _requant(part, prefix)
            common |= {"rescale": 1, "rounding": requant[2].rounding}
        elif requant is not None:
            common |= _requant(requant, "out_") | {"rescale": 1, "rounding": requant.rounding}
        return "VBIN", common
    if op.name == "requantize" and requant is not None:
        return "VUN", common | {"function": Unary.CAST, "rescale": 1, "rounding": requant.rounding} | _requant(requant, "out_")
    raise ValueError(f"the vector unit has no '{op.name}'")


def _requant(requant: Requant, prefix: str) -> dict[str, int]:
    return {f"{prefix}multiplier": int(requant.multiplier[0]), f"{prefix}shift": int(requant.shift[0])}


def elementwise_rows(
    context: Expansion, layer: Layer, rows: Span, sources: dict[int, Band], constants: dict[int, Tile], y: Band
) -> None:
    """Rows of an elementwise layer between dense bands; operands of one pixel repeat for all.

    `sources` are bands by `id(value)`, `constants` tiles by `id(value)` (and the table by `id(op)`). Where an operand's rows repeat,
    each instruction ends with them.
    """
    op, shape = layer.op, row_shape(layer.result)
    if shape is None:
        raise ValueError(f"'{layer.result.name}' has no rows")
    periods = {id(v): row_period(v, layer.result) or 1 for v in op.inputs}
    period = min((p for p in periods.values() if 1 < p < shape.rows), default=shape.rows)
    if rows.first // period != (rows.end - 1) // period:
        first = Span(rows.first, period - rows.first % period)
        for part in (first, *spans(rows.count - first.count, period, first.end)):
            elementwise_rows(context, layer, part, sources, constants, y)
        return
    pixels = rows.count * shape.width
    whole = (rows, Span(0, shape.width), Span(0, shape.channels))
    fields: dict[str, Any] = {"out_addr": y.at(rows.first), "out_type": layer.result.dtype}
    reads: list[Region] = []
    steps: list[tuple[int, int]] = []
    for name, value in zip(("a", "b"), op.inputs):
        tile, repeated = constants.get(id(value)), periods[id(value)]
        if repeated > 1 and value.shape != layer.result.shape:
            start, size = rows.first % repeated, shape.row_bytes // shape.element * value.dtype.size_bytes
            place = (tile, 0) if tile is not None else (Tile(sources[id(value)].buffer), sources[id(value)].byte(0))
            fields[f"{name}_addr"] = place[0].at(place[1] + start * size)
            reads.append(place[0].region(place[1] + start * size, rows.count * size))
            steps.append((1, shape.channels))
            continue
        if tile is not None:
            fields[f"{name}_addr"] = tile.at(0)
            reads.append(tile.region())
            steps.append((int(value.type.element_count > 1), 0))
            continue
        x = sources[id(value)]
        if value.shape == layer.result.shape:
            fields[f"{name}_addr"] = x.at(rows.first)
            reads.append(x.region(*whole))
            steps.append((1, shape.channels))
        else:
            channels = value.type.element_count
            fields[f"{name}_addr"] = x.at(0)
            reads.append(x.region(Span(0, 1), Span(0, 1), Span(0, channels)))
            steps.append((int(channels > 1), 0))
    if len(steps) == 1:
        fields["count"] = pixels * shape.channels
    else:
        fields |= {"n0": shape.channels, "n1": pixels, "out_s0": 1, "out_s1": shape.channels}
        for name, (inner, outer) in zip(("a", "b"), steps):
            fields |= {f"{name}_s0": inner, f"{name}_s1": outer}
    if op.name == "lut":
        table = constants[id(op)]
        fields["table_addr"] = table.at(0)
        reads.append(table.region())
    instruction, more = vector_fields(op)
    widest = max(v.dtype.size_bytes for v in (*op.inputs, layer.result))
    cycles = context.costs.vector(pixels * shape.channels, widest)
    context.step("VEC", instruction, fields | more, reads, [y.region(*whole)], cycles)
