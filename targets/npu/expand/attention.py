# SPDX-License-Identifier: Apache-2.0
"""Attention over tiles of keys: a band of queries passes over all keys for its scores and their maximum, then over all values.

Scores of a band stay on chip as blocks, one for each tile of keys. Powers and values are summed up in the accumulators, so is the sum
of the powers, as a product with ones; results alone are normalised, by the drain. While the array is at one band, the vector unit is
at the next. All sums are exact, so that no tile changes a byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.ops.integer_norm import RECIPROCAL
from gadl.compiler.ir.types import Array, DType, Requant, Rounding
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Buffer, Ref, Region
from gadl.passes.plan.rows import RowMap
from gadl.passes.plan.spans import Span, spans

from ..attention import Extents, band_of, tile_of
from ..isa import Binary, Reduce, Unary
from ..layers import Layer, product_window
from .bands import Band, row_shape
from .context import ACC, Expansion, Tile
from .copying import CopyDim
from .vectors import Data, VectorKernel, plain, times

#: Zero point of powers, which lie in i8.
POWER_ZERO = -128


def attention_reads(layer: Layer) -> list[tuple[Value, RowMap]]:
    """The result's rows are those of all heads, one below the other: each reads its own query, and all keys and values of its head."""
    (q, k, v), y, one = layer.op.inputs[:3], layer.result, Extents.of(layer)
    if q.shape[:-2] != y.shape[:-2] or len({id(q), id(k), id(v)}) < 3:
        return []
    found, rows = [(q, RowMap.same(one.rows * one.heads))], np.arange(one.rows * one.heads, dtype=np.int64)
    for value in (k, v):
        if value.shape[:-2] != y.shape[:-2] and math.prod(value.shape[:-2]) != 1:
            return []
        head = rows // one.rows if math.prod(value.shape[:-2]) > 1 else rows * 0
        found.append((value, RowMap(head * one.keys, (head + 1) * one.keys)))
    for value in (q, k, v, y):
        shape = row_shape(value)
        if shape is None or value.is_constant or shape.images != 1 or shape.rows != value.type.element_count // value.shape[-1]:
            return []
    return found


class Operands:
    """Where a layer finds its operands, and leaves its results: between bands. Rows are dense, and known by where they begin."""

    def __init__(self, sources: dict[int, Band], target: Band) -> None:
        self.sources, self.target = sources, target

    def rows(self, value: Value, rows: Span) -> Region:
        """Rows of an operand."""
        band = self.sources[id(value)]
        return Region(band.buffer, band.byte(rows.first), rows.count * band.row_bytes)

    def results(self, rows: Span) -> Region:
        """Where results go."""
        return Region(self.target.buffer, self.target.byte(rows.first), rows.count * self.target.row_bytes)

    def masks(self, rows: Span, keys: Span) -> tuple[Region, int]:
        """Part of the mask, and bytes from row to row."""
        raise ValueError("there is no mask")

    def finish(self, rows: Span, there: Region) -> None:
        """Results are complete."""


class MaskedOperands(Operands):
    """The same with a mask that lies whole on chip."""

    def __init__(self, sources: dict[int, Band], target: Band, mask: Tile, keys: int) -> None:
        super().__init__(sources, target)
        self.mask, self.stride = mask, keys

    def masks(self, rows: Span, keys: Span) -> tuple[Region, int]:
        size = (rows.count - 1) * self.stride + keys.count
        return self.mask.region(rows.first * self.stride + keys.first, size), self.stride


class StreamedOperands(Operands):
    """Operands and results in memory: rows are loaded as they are asked for, those of one band or head at a time.

    With `resident` all keys and values of a head stay on chip until the next head's come.
    """

    def __init__(self, context: Expansion, layer: Layer, resident: bool) -> None:
        self.context, self.layer, self.resident = context, layer, resident
        self.there: dict[int, dict[Span, Region]] = {}
        mask = layer.op.operand(3)
        self.mask_at = 0 if mask is None else context.add_constant(_data(mask).tobytes())

    def rows(self, value: Value, rows: Span) -> Region:
        known = self.there.setdefault(id(value), {})
        if rows not in known:
            each = value.shape[-2]
            if not self.resident or value is self.layer.op.inputs[0] or any(span.first // each != rows.first // each for span in known):
                known.clear()
            tile = self.context.tile(rows.count * value.shape[-1], value.name)
            offset, dims = self._place(value, rows)
            self.context.load(self.context.place(value).buffer, offset, tile, dims)
            known[rows] = tile.region(0, rows.count * value.shape[-1])
        return known[rows]

    def _place(self, value: Value, rows: Span) -> tuple[int, list[CopyDim]]:
        """Where rows of one head lie in memory, and how they are copied to dense ones."""
        place, each, size = self.context.place(value), value.shape[-2], value.shape[-1]
        head = np.unravel_index(rows.first // each, value.shape[:-2]) if value.type.rank > 2 else ()
        index = (*map(int, head), rows.first % each)
        dims = [CopyDim(rows.count, place.strides[-2], size), CopyDim(size, place.strides[-1], 1)]
        return place.offset + sum(i * s for i, s in zip(index, place.strides)), dims

    def results(self, rows: Span) -> Region:
        return self.context.tile(rows.count * self.layer.result.shape[-1], "y").region(0, rows.count * self.layer.result.shape[-1])

    def masks(self, rows: Span, keys: Span) -> tuple[Region, int]:
        tile, stride = self.context.tile(rows.count * keys.count, "mask"), Extents.of(self.layer).keys
        dims = [CopyDim(rows.count, stride, keys.count), CopyDim(keys.count, 1, 1)]
        self.context.load(self.context.constants, self.mask_at + rows.first * stride + keys.first, tile, dims)
        return tile.region(0, rows.count * keys.count), keys.count

    def finish(self, rows: Span, there: Region) -> None:
        value = self.layer.result
        offset, dims = self._place(value, rows)
        back = [CopyDim(dim.count, dim.target, dim.source) for dim in dims]
        self.context.store(Tile(there.buffer, there.start), self.context.place(value).buffer, offset, back)


class AttentionKernel(VectorKernel):
    """Rows of the result between bands, all heads one below the other."""

    mask: Tile | None = None

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        most, self.tile_keys = tile_of(context.costs, layer, plan)
        self.one, op = Extents.of(layer), layer.op
        super().__init__(context, layer, plan, self.tile_keys, most)
        self.tiles = list(spans(self.one.keys, self.tile_keys))
        self.zeros = [0 if v.quant is None else v.quant.zero_point for v in (*op.inputs, op.result)]
        self.blocks: list[Tile] = []

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        mask = self.layer.op.operand(3)
        if mask is not None and self.mask is None:
            self.mask = self.context.load_constant(_data(mask), "mask")
        operands = Operands(sources, target) if self.mask is None else MaskedOperands(sources, target, self.mask, self.one.keys)
        self._run(list(spans(rows.count, band_of(self.most, rows.count), rows.first)), operands)

    def from_memory(self) -> None:
        """All rows, from memory to memory."""
        bands = [band for head in range(self.one.heads) for band in spans(self.one.rows, self.most, head * self.one.rows)]
        self._run(bands, StreamedOperands(self.context, self.layer, self.plan.resident))

    def _run(self, bands: Sequence[Span], operands: Operands) -> None:
        """Bands of rows one after the other: the scores of one come in front of the results of the one before."""
        if not self.blocks:
            self.blocks = [self.context.tile(self.most * self.one.keys, f"scores {n}") for n in range(2)]
        for number in range(len(bands) + 1):
            here, before = self.blocks[number % 2], self.blocks[(number + 1) % 2]
            if number < len(bands):
                self._scores(bands[number], here, operands)
            if number:
                self._factors(bands[number - 1], before)
                sums = self._mix(bands[number - 1], before, operands)
            if number < len(bands):
                self._powers(bands[number], here)
            if number:
                self._drain(bands[number - 1], sums, operands)

    # -- scores and powers -----------------------------------------------------------

    def _heads(self, band: Span) -> list[tuple[int, Span]]:
        """The heads of a band, and the rows of each."""
        found, row = [], band.first
        while row < band.end:
            head = row // self.one.rows
            end = min(band.end, (head + 1) * self.one.rows)
            found.append((head, Span(row, end - row)))
            row = end
        return found

    def _of_head(self, value: Value, head: int, keys: Span) -> Span:
        """The rows of keys or values of a head."""
        return Span((head if math.prod(value.shape[:-2]) > 1 else 0) * self.one.keys + keys.first, keys.count)

    def _block(self, band: Span, keys: Span, tile: Tile) -> Data:
        """Scores of a band and a tile of keys."""
        start, size = band.count * keys.first, band.count * keys.count
        return Data(tile.at(start), tile.region(start, size), DType.I8, 1, keys.count)

    def _scores(self, band: Span, tile: Tile, operands: Operands) -> None:
        """Scores on the array, and the maximum of every row."""
        self.count = band.count
        most, other = self.of_rows("most", DType.I8), self.of_rows("other", DType.I8)
        for number, keys in enumerate(self.tiles):
            block = self._block(band, keys, tile)
            for head, rows in self._heads(band):
                self._products(rows, head, keys, Ref(block.at.buffer, block.at.offset + (rows.first - band.first) * keys.count), operands)
            self.size = keys.count
            self.reduce(Reduce.MAX, block, other if number else most)
            if number:
                self.binary(Binary.MAX, most, other, most)

    def _products(self, rows: Span, head: int, keys: Span, at: Ref, operands: Operands) -> None:
        """Scores of one head, in pieces that the accumulators hold."""
        op, one, depth = self.layer.op, self.one, self.one.depth
        q = operands.rows(op.inputs[0], rows)
        k = operands.rows(op.inputs[1], self._of_head(op.inputs[1], head, keys))
        piece = self.context.costs.accumulator_piece(one.scores, rows.count, keys.count, DType.I8)
        drain = {"x_type": DType.I8, "out_type": DType.I8, "zp": op.attrs["zero"], "lo": -128, "hi": 127, "requant": 1,
                 "out_row_stride": keys.count, "out_pix_stride": keys.count} | _scale(op.attrs["requant"][0])  # fmt: skip
        for part in spans(rows.count, piece.rows):
            for columns in spans(keys.count, piece.channels):
                acc = self._accumulators(part.count * columns.count)
                a = Region(q.buffer, q.start + part.first * depth, part.count * depth)
                b = Region(k.buffer, k.start + columns.first * depth, columns.count * depth)
                fields = {"n": columns.count, "a_stride": depth, "b_stride": depth, "a_zp": self.zeros[0], "b_zp": self.zeros[1]}
                self._product(a, b, acc, (part.count, columns.count, depth), fields)
                y = Ref(at.buffer, at.offset + part.first * keys.count + columns.first)
                reads, residual = [acc], dict[str, Any]()
                if op.operand(3) is not None:
                    hidden, stride = operands.masks(
                        Span(rows.first % one.rows + part.first, part.count), Span(keys.first + columns.first, columns.count)
                    )
                    reads.append(hidden)
                    residual = {"residual": 1, "res_addr": Ref(hidden.buffer, hidden.start), "res_row_stride": stride, "res_pix_stride": stride,
                                "res_type": DType.I8, "res_zp": self.zeros[3]} | _scale(op.attrs["requant"][1], "res_")  # fmt: skip
                size = (part.count - 1) * keys.count + columns.count
                self._epilogue(drain | residual, acc, (part.count, columns.count), reads, Region(y.buffer, y.offset, size))

    def _powers(self, band: Span, tile: Tile) -> None:
        """Powers of the distance to the maximum, in the place of the scores."""
        self.count, self.size = band.count, self.tile_keys
        most, below = self.of_rows("most", DType.I8), self.of_elements("below", DType.I8)
        for keys in self.tiles:
            block, self.size = self._block(band, keys, tile), keys.count
            part = Data(below.at, Region(below.region.buffer, below.region.start, block.region.size), DType.I8, 1, keys.count)
            self.binary(Binary.SUB, block, most, part, **plain(), out_zp=127)
            self.look_up(part, self.constant("powers of e", self.layer.op.attrs["table"]), block)

    # -- results -----------------------------------------------------------------------

    def _factors(self, band: Span, tile: Tile) -> None:
        """The reciprocal of every row's sum of powers, as a multiplier and a shift."""
        self.count = band.count
        total, ones = self.of_rows("total", DType.I32), self.constant("ones", np.ones(self.tile_keys, np.int8))
        acc = self._accumulators(band.count)
        for number, keys in enumerate(self.tiles):
            block = self._block(band, keys, tile)
            fields = {"a_stride": keys.count, "b_stride": keys.count, "b_zp": POWER_ZERO, "accumulate": int(number > 0)}
            a = Region(ones.region.buffer, ones.region.start, keys.count)
            self._product(a, block.region, acc, (1, band.count, keys.count), fields)
        drain = {"x_type": DType.I8, "out_type": DType.I32, "lo": -(1 << 31), "hi": (1 << 31) - 1, "out_row_stride": 0, "out_pix_stride": 0}
        self._epilogue(drain, acc, (1, band.count), [acc], total.region)
        zeros, code, factor = self.of_rows("zeros", DType.I32), self.of_rows("code", DType.I16), self.of_rows("factor", DType.I16)
        self.unary(Unary.CLZ, total, zeros, **times(0), a_zp=1)
        self.binary(Binary.SHL, total, zeros, total)
        self.unary(Unary.CAST, total, code, **times(-15, rounding=Rounding.FLOOR), out_zp=-32768)
        self.look_up(code, self.constant("reciprocals", RECIPROCAL), factor)
        self.unary(Unary.CAST, factor, self.of_rows("multiplier", DType.I32), **times(16))
        self.binary(Binary.SUB, self.constant("most shift", np.array([61], np.int32)), zeros, self.of_rows("shift", DType.U8))

    def _mix(self, band: Span, tile: Tile, operands: Operands) -> Region:
        """Powers times values, summed up over the tiles of keys."""
        op, width = self.layer.op, self.one.width
        acc = self._accumulators(band.count * width)
        cell = self.context.costs.cell_bytes(DType.I8)
        for number, keys in enumerate(self.tiles):
            block = self._block(band, keys, tile).region
            for head, rows in self._heads(band):
                v = operands.rows(op.inputs[2], self._of_head(op.inputs[2], head, keys))
                first = rows.first - band.first
                a = Region(block.buffer, block.start + first * keys.count, rows.count * keys.count)
                fields = {"b_kn": 1, "a_stride": keys.count, "b_stride": width, "a_zp": POWER_ZERO, "b_zp": self.zeros[2],
                          "accumulate": int(number > 0)}  # fmt: skip
                part = Region(acc.buffer, acc.start + first * width * cell, rows.count * width * cell)
                self._product(a, v, part, (rows.count, width, keys.count), fields)
        return acc

    def _drain(self, band: Span, acc: Region, operands: Operands) -> None:
        """Sums of values by the reciprocal of their row, times the scale of all."""
        requant: Requant = self.layer.op.attrs["requant"][-1]
        width, y = self.one.width, operands.results(band)
        self.count = band.count
        multiplier, shift = self.of_rows("multiplier", DType.I32), self.of_rows("shift", DType.U8)
        numbers = ("scale", requant.multiplier), ("scale's shift", requant.shift.view(np.uint8))
        scales = [self.constant(name, np.repeat(values, width)) for name, values in numbers]
        drain = {"x_type": DType.I8, "out_type": DType.I8, "zp": self.zeros[-1], "lo": -128, "hi": 127, "requant": 1,
                 "rounding": requant.rounding, "per_row": 1, "row_multiplier_addr": multiplier.at, "row_shift_addr": shift.at,
                 "per_channel": 1, "multiplier_addr": scales[0].at, "shift_addr": scales[1].at,
                 "out_row_stride": width, "out_pix_stride": width}  # fmt: skip
        reads = [acc, multiplier.region, shift.region, *(s.region for s in scales)]
        self._epilogue(drain, acc, (band.count, width), reads, y)
        operands.finish(band, y)

    # -- steps of the array --------------------------------------------------------------

    def _accumulators(self, cells: int) -> Region:
        acc: Buffer = self.context.program.buffer(ACC, cells * self.context.costs.cell_bytes(DType.I8), "acc", alignment=64)
        return Region(acc, 0, acc.size)

    def _product(self, a: Region, b: Region, acc: Region, size: tuple[int, int, int], fields: dict[str, int]) -> None:
        """acc[m, n] (+)= a[m, k] . b."""
        m, n, k = size
        whole: dict[str, Any] = {
            "a_addr": Ref(a.buffer, a.start), "b_addr": Ref(b.buffer, b.start), "m": m, "n": n, "k": k, "x_type": DType.I8, "w_type": DType.I8,
            "acc_addr": Ref(acc.buffer, acc.start),
        }  # fmt: skip
        reads = [a, b, acc] if fields.get("accumulate") else [a, b]
        cycles = self.context.costs.mma(product_window(m, k, n), m, 1, n, DType.I8)
        self.context.step("MMA", "MMA_MATMUL", whole | fields, reads, [acc], cycles)

    def _epilogue(self, drain: dict[str, Any], acc: Region, size: tuple[int, int], reads: Sequence[Region], y: Region) -> None:
        """Rows and columns of accumulators to `y`."""
        rows, columns = size
        whole = {"acc_addr": Ref(acc.buffer, acc.start), "oh": rows, "ow": 1, "oc": columns, "out_addr": Ref(y.buffer, y.start)}
        self.context.step("MMA", "EPI", drain | whole, reads, [y], self.context.costs.epi(rows * columns))


def _scale(requant: Requant, prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {f"{prefix}multiplier": int(requant.multiplier[0]), f"{prefix}shift": int(requant.shift[0])}
    return fields if prefix else fields | {"rounding": requant.rounding}


def _data(value: Value) -> Array:
    if value.data is None:
        raise ValueError(f"'{value.name}' is not constant")
    return np.ascontiguousarray(value.data)
