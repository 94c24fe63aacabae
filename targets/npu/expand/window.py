# SPDX-License-Identifier: Apache-2.0
"""Convolutions and products with constant weights: an output block in SRAM is made of pieces that fit the accumulators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.types import Array, DType
from gadl.passes.plan.plan import LayerPlan, LoopOrder
from gadl.passes.plan.program import Buffer, Ref, Region
from gadl.passes.plan.spans import Span, spans

from ..costs import Piece
from ..layers import Layer, Window, window_of
from .bands import Band
from .context import ACC, Expansion, Place, Tile
from .copying import CopyDim
from .drain import drain_fields
from .weights import WeightChunk, packed_weights, weight_chunk


@dataclass(frozen=True)
class Weights:
    """Weights of some output channels for some input channels on chip; with the last of these, the parameters of the drain."""

    tile: Tile
    chunk: WeightChunk
    channels: Span
    depth: Span


class WindowCompute:
    """The products of a window layer, or of one phase of a transposed convolution, between bands in SRAM."""

    def __init__(self, context: Expansion, layer: Layer, window: Window, weights: Array, table: Tile | None) -> None:
        self.context, self.layer, self.window, self.weights, self.table = context, layer, window, weights, table
        self.x = layer.op.inputs[0]
        self.residual = layer.op.operand(3)
        self.weight_bytes = int(weights.dtype.itemsize)

    def load_weights(self, channels: Span, depth: Span | None = None) -> Weights:
        """Put a chunk of weights on chip, for some input channels only where `depth` names them.

        What holds some input channels is no run of the layer's weights, by which streams are bounded: it is loaded as it is.
        """
        part = None if depth is None else slice(depth.first, depth.end)
        chunk = weight_chunk(self.weights, self.window.depthwise, self.layer.op, slice(channels.first, channels.end), part)
        tile = self.context.load_constant(chunk.data, "w", packed=depth is None)
        return Weights(tile, chunk, channels, depth or Span(0, self.window.ic))

    def block(
        self, rows: Span, weights: Weights, piece: Piece, x: Band, y: Band, residual: Band | None, only: Span | None = None
    ) -> None:
        """Output rows `rows` of the channels of `weights`, or `only` of some. `x` holds every row that they read."""
        self.accumulate(rows, only or weights.channels, piece, lambda: [(x, weights)], y, residual)

    def accumulate(
        self, rows: Span, channels: Span, piece: Piece, operands: Callable[[], Iterable[tuple[Band, Weights]]], y: Band, residual: Band | None
    ) -> None:
        """Output rows `rows` of some channels, summed over `operands`: rows and weights of ascending input channels, for each piece."""
        for part_rows in spans(rows.count, piece.rows, rows.first):
            for columns in spans(self.window.ow, piece.columns):
                for part in spans(channels.count, piece.channels, channels.first):
                    self._piece(part_rows, columns, part, operands(), y, residual)

    def _piece(
        self, rows: Span, columns: Span, channels: Span, operands: Iterable[tuple[Band, Weights]], y: Band, residual: Band | None
    ) -> None:
        """One accumulator's worth: products and their drain."""
        context, costs = self.context, self.context.costs
        cells = rows.count * columns.count * channels.count
        acc = context.program.buffer(ACC, cells * costs.cell_bytes(self.x.dtype), "acc", alignment=64)
        acc_region = Region(acc, 0, acc.size)
        instruction = "MMA_DW" if self.window.depthwise else "MMA_CONV"
        for number, (x, weights) in enumerate(operands):
            cycles = costs.mma(replace(self.window, ic=weights.depth.count), rows.count, columns.count, channels.count, self.x.dtype)
            read = self._input_region(rows, columns, channels, weights, x)
            reads = [*read, weights.tile.region(0, len(weights.chunk.data))]
            product = self._product(rows, columns, channels, weights, x, acc)
            if not read:
                product |= {"x_addr": weights.tile.at(0), "ih": 0, "iw": 0}  # padding only: the rows may be nowhere
            if number:
                product["accumulate"] = 1
                reads.append(acc_region)
            context.step("MMA", instruction, product, reads, [acc_region], cycles)
        reads = [acc_region, weights.tile.region(0, len(weights.chunk.data))]
        drain = drain_fields(self.layer, weights.chunk, weights.tile, channels.first - weights.channels.first, self.table)
        drain |= {
            "acc_addr": Ref(acc), "oh": rows.count, "ow": columns.count, "oc": channels.count,
            "out_addr": y.at(rows.first, columns.first, channels.first), "out_row_stride": y.row_bytes, "out_pix_stride": y.pixel_bytes,
        }  # fmt: skip
        if residual is not None:
            reads.append(residual.region(rows, columns, channels))
            drain |= {
                "residual": 1, "res_addr": residual.at(rows.first, columns.first, channels.first),
                "res_row_stride": residual.row_bytes, "res_pix_stride": residual.pixel_bytes,
            }  # fmt: skip
        if self.table is not None:
            reads.append(self.table.region())
        context.step("MMA", "EPI", drain, reads, [y.region(rows, columns, channels)], costs.epi(cells))

    def _input(self, rows: Span, columns: Span) -> tuple[int, int, int, int]:
        """First row and column inside the image, and the padding before them."""
        window = self.window
        top = rows.first * window.stride_h - window.pad_top
        left = columns.first * window.stride_w - window.pad_left
        row, column = min(max(top, 0), window.ih), max(left, 0)
        return row, column, row - top, column - left

    def _input_region(self, rows: Span, columns: Span, channels: Span, weights: Weights, x: Band) -> list[Region]:
        """What the product reads of its operand; nothing where only padding is read."""
        window = self.window
        first, end = window.input_rows(rows.first, rows.count)
        _, column, _, _ = self._input(rows, columns)
        right = (columns.end - 1) * window.stride_w - window.pad_left + (window.kw - 1) * window.dilation_w + 1
        if end <= first or min(right, window.iw) <= column:
            return []
        read = channels if window.depthwise else weights.depth
        return [x.region(Span(first, end - first), Span(column, min(right, window.iw) - column), read)]

    def _product(self, rows: Span, columns: Span, channels: Span, weights: Weights, x: Band, acc: Buffer) -> dict[str, Any]:
        """Operands of the product: the input window of the piece, the weights of its channels."""
        window, depth = self.window, weights.depth
        row, column, pad_top, pad_left = self._input(rows, columns)
        filter_bytes = self.weight_bytes * (1 if window.depthwise else window.kh * window.kw * depth.count)
        quant = self.x.quant
        kind = {DType.F16: DType.F16, DType.BF16: DType.BF16}.get(self.x.dtype, DType.I8)
        if window.depthwise:
            extra = {"w_tap_stride": weights.channels.count * self.weight_bytes, "w_type": kind}
        else:
            extra = {"oc": channels.count, "w_type": kind}
        return extra | {
            "x_addr": x.at(row, column, channels.first if window.depthwise else depth.first),
            "x_row_stride": x.row_bytes, "x_pix_stride": x.pixel_bytes,
            "ih": window.ih - row, "iw": max(0, window.iw - column), "ic": channels.count if window.depthwise else depth.count,
            "kh": window.kh, "kw": window.kw, "stride_h": window.stride_h, "stride_w": window.stride_w,
            "dil_h": window.dilation_h, "dil_w": window.dilation_w, "pad_top": pad_top, "pad_left": pad_left,
            "x_zp": quant.zero_point if quant is not None else 0,
            "w_addr": weights.tile.at((channels.first - weights.channels.first) * filter_bytes), "acc_addr": Ref(acc),
            "oh": rows.count, "ow": columns.count, "x_type": self.x.dtype,
        }  # fmt: skip


def row_strides(value: Value, strides: tuple[int, ...], op: Op) -> tuple[int, int, int]:
    """Byte strides of (image, row, pixel) of an operand as the window sees it."""
    if op.name == "linear":
        return 0, strides[-2] if len(strides) > 1 else value.shape[-1] * value.dtype.size_bytes, 0
    row = strides[2]
    return strides[0], row, strides[3] if value.type.rank == 4 else row


@dataclass
class _Rows:
    """Rows `[.., end)` of some input channels that are on chip."""

    band: Band
    end: int


class WindowExpansion:
    """A conv or linear layer by itself, from memory to memory: tiles of rows and channels, loaded in the order in which they are read."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        self.context, self.layer, self.plan, self.op = context, layer, plan, layer.op
        self.window = window_of(layer.op)
        weights = packed_weights(layer.op, self.window.depthwise)
        self.compute = WindowCompute(context, layer, self.window, weights, load_table(context, layer))
        self.x, self.residual, self.result = layer.op.inputs[0], layer.op.operand(3), layer.result
        depth = plan.depth or self.window.ic
        self.depths = list(spans(self.window.ic, depth)) if depth < self.window.ic else [None]
        self.piece = context.costs.tile_piece(self.window, plan.rows, plan.channels, depth, self.x.dtype)
        self._rows: dict[Span | None, _Rows] = {}
        self._weights: dict[tuple[Span, Span | None], Weights] = {}

    def run(self) -> None:
        """Emit all steps of the layer."""
        rows = list(spans(self.window.oh, self.plan.rows))
        chunks = list(spans(self.window.oc, self.plan.channels))
        outside, resident = self.plan.order is LoopOrder.CHANNELS, self.plan.resident
        for image in range(self.window.batch):
            self._rows.clear()
            for first in chunks if outside else rows:
                if outside:
                    self._weights.clear()
                else:
                    self._rows.clear()
                for second in rows if outside else chunks:
                    stripe, chunk = (second, first) if outside else (first, second)
                    if self.window.depthwise or (outside and not resident):
                        self._rows.clear()
                    if not (outside or resident):
                        self._weights.clear()
                    self._tile(image, stripe, chunk)

    def _operands(self, image: int, stripe: Span, chunk: Span) -> Iterator[tuple[Band, Weights]]:
        """What a tile is computed from, part by part of the input channels; each is loaded when it is first asked for."""
        for depth in self.depths:
            channels = depth or (chunk if self.window.depthwise else Span(0, self.window.ic))
            band = self._input_rows(image, stripe, depth, channels)
            if (chunk, depth) not in self._weights:
                self._weights[chunk, depth] = self.compute.load_weights(chunk, depth)
            yield band, self._weights[chunk, depth]

    def _input_rows(self, image: int, stripe: Span, depth: Span | None, channels: Span) -> Band:
        """The input rows of a stripe; where an image's rows are resident, those that are not on chip yet join the others."""
        first, end = self.window.input_rows(stripe.first, stripe.count)
        there = self._rows.get(depth)
        if there is None:
            whole = self.plan.resident and self.plan.order is LoopOrder.CHANNELS and not self.window.depthwise
            room = Span(0, self.window.ih) if whole else Span(first, end - first)
            there = self._rows[depth] = _Rows(self._room(self.x, room, self.window.iw, channels), first)
        if end > there.end:
            fresh = max(first, there.end)
            self._load(self.x, image, Span(fresh, end - fresh), self.window.iw, channels, there.band)
            there.end = end
        return there.band

    def _room(self, value: Value, rows: Span, width: int, channels: Span) -> Band:
        """A dense block for `[rows, width, channels]` of a value."""
        element = value.dtype.size_bytes
        pixel = channels.count * element
        tile = self.context.tile(max(1, rows.count) * width * pixel, "x")
        return Band(tile.buffer, width * pixel, pixel, element, rows.first, 0, channels.first)

    def _load(self, value: Value, image: int, rows: Span, width: int, channels: Span, into: Band) -> None:
        """Bring rows `[rows, width, channels]` of a value into a block."""
        element, place = value.dtype.size_bytes, self.context.place(value)
        image_stride, row_stride, pixel_stride = row_strides(value, place.strides, self.op)
        dims = [
            CopyDim(rows.count, row_stride, into.row_bytes),
            CopyDim(width, pixel_stride, into.pixel_bytes),
            CopyDim(channels.count, element, element),
        ]
        offset = place.offset + image * image_stride + rows.first * row_stride + channels.first * element
        self.context.load(place.buffer, offset, Tile(into.buffer, into.byte(rows.first)), dims, element)

    def _tile(self, image: int, stripe: Span, channels: Span) -> None:
        """One output tile: load the residual, all pieces, store."""
        element, width = self.result.dtype.size_bytes, self.window.ow
        next(self._operands(image, stripe, channels))  # what is read first is loaded first
        residual = None if self.residual is None else self._room(self.residual, stripe, width, channels)
        if self.residual is not None and residual is not None:
            self._load(self.residual, image, stripe, width, channels, residual)
        y = self._room(self.result, stripe, width, channels)
        out, pixel = Tile(y.buffer), channels.count * element
        self.compute.accumulate(stripe, channels, self.piece, lambda: self._operands(image, stripe, channels), y, residual)
        place: Place = self.context.place(self.result)
        image_stride, row_stride, pixel_stride = row_strides(self.result, place.strides, self.op)
        dims = [
            CopyDim(stripe.count, width * pixel, row_stride),
            CopyDim(width, pixel, pixel_stride),
            CopyDim(channels.count, element, element),
        ]
        offset = place.offset + image * image_stride + stripe.first * row_stride + channels.first * element
        self.context.store(out, place.buffer, offset, dims, element)


def load_table(context: Expansion, layer: Layer) -> Tile | None:
    """The drain's table, if the layer has one."""
    return None if layer.lut is None else context.load_constant(layer.lut.attrs["table"], "table")
