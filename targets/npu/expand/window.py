# SPDX-License-Identifier: Apache-2.0
"""Convolutions and products with constant weights: an output block in SRAM is made of pieces that fit the accumulators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.types import Array, DType
from gadl.passes.plan.plan import LayerPlan, LoopOrder
from gadl.passes.plan.program import Buffer, Ref, Region

from ..costs import Piece
from ..layers import Layer, Window, window_of
from .bands import Band, Span, spans
from .context import ACC, Expansion, Place, Tile
from .copying import CopyDim
from .drain import drain_fields
from .weights import WeightChunk, packed_weights, weight_chunk


@dataclass(frozen=True)
class Weights:
    """A chunk of weights on chip, with the parameters of its drain."""

    tile: Tile
    chunk: WeightChunk
    channels: Span


class WindowCompute:
    """The products of a window layer, or of one phase of a transposed convolution, between bands in SRAM."""

    def __init__(self, context: Expansion, layer: Layer, window: Window, weights: Array, table: Tile | None) -> None:
        self.context, self.layer, self.window, self.weights, self.table = context, layer, window, weights, table
        self.x = layer.op.inputs[0]
        self.residual = layer.op.operand(3)
        self.weight_bytes = int(weights.dtype.itemsize)

    def load_weights(self, channels: Span) -> Weights:
        """Put a chunk of weights on chip."""
        chunk = weight_chunk(self.weights, self.window.depthwise, self.layer.op, channels.first, channels.count)
        return Weights(self.context.load_constant(chunk.data, "w"), chunk, channels)

    def block(
        self, rows: Span, weights: Weights, piece: Piece, x: Band, y: Band, residual: Band | None, only: Span | None = None
    ) -> None:
        """Output rows `rows` of the channels of `weights`, or `only` of some. `x` holds every row that they read."""
        all_channels = only or weights.channels
        for part_rows in spans(rows.count, piece.rows, rows.first):
            for columns in spans(self.window.ow, piece.columns):
                for channels in spans(all_channels.count, piece.channels, all_channels.first):
                    self._piece(part_rows, columns, channels, weights, x, y, residual)

    def _piece(
        self, rows: Span, columns: Span, channels: Span, weights: Weights, x: Band, y: Band, residual: Band | None
    ) -> None:
        """One accumulator's worth: a product and its drain."""
        context, costs = self.context, self.context.costs
        cells = rows.count * columns.count * channels.count
        acc = context.program.buffer(ACC, cells * costs.cell_bytes(self.x.dtype), "acc", alignment=64)
        acc_region = Region(acc, 0, acc.size)
        weight_region = weights.tile.region(0, len(weights.chunk.data))
        cycles = costs.mma(self.window, rows.count, columns.count, channels.count, self.x.dtype)
        instruction = "MMA_DW" if self.window.depthwise else "MMA_CONV"
        reads = [*self._input_region(rows, columns, channels, x), weight_region]
        context.step("MMA", instruction, self._product(rows, columns, channels, weights, x, acc), reads, [acc_region], cycles)
        reads = [acc_region, weight_region]
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

    def _input_region(self, rows: Span, columns: Span, channels: Span, x: Band) -> list[Region]:
        """What the product reads of its operand; nothing where only padding is read."""
        window = self.window
        first, end = window.input_rows(rows.first, rows.count)
        _, column, _, _ = self._input(rows, columns)
        right = (columns.end - 1) * window.stride_w - window.pad_left + (window.kw - 1) * window.dilation_w + 1
        if end <= first or min(right, window.iw) <= column:
            return []
        read = channels if window.depthwise else Span(0, window.ic)
        return [x.region(Span(first, end - first), Span(column, min(right, window.iw) - column), read)]

    def _product(self, rows: Span, columns: Span, channels: Span, weights: Weights, x: Band, acc: Buffer) -> dict[str, Any]:
        """Operands of the product: the input window of the piece, the weights of its channels."""
        window = self.window
        row, column, pad_top, pad_left = self._input(rows, columns)
        filter_bytes = self.weight_bytes * (1 if window.depthwise else window.kh * window.kw * window.ic)
        quant = self.x.quant
        kind = {DType.F16: DType.F16, DType.BF16: DType.BF16}.get(self.x.dtype, DType.I8)
        if window.depthwise:
            extra = {"w_tap_stride": weights.channels.count * self.weight_bytes, "w_type": kind}
        else:
            extra = {"oc": channels.count, "w_type": kind}
        return extra | {
            "x_addr": x.at(row, column, channels.first if window.depthwise else 0) if row < window.ih else x.at(x.first),
            "x_row_stride": x.row_bytes, "x_pix_stride": x.pixel_bytes,
            "ih": window.ih - row, "iw": max(0, window.iw - column), "ic": channels.count if window.depthwise else window.ic,
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


class WindowExpansion:
    """A conv or linear layer by itself, from memory to memory: tiles of rows and channels."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        self.context, self.layer, self.plan, self.op = context, layer, plan, layer.op
        self.window = window_of(layer.op)
        weights = packed_weights(layer.op, self.window.depthwise)
        self.compute = WindowCompute(context, layer, self.window, weights, load_table(context, layer))
        self.x, self.residual, self.result = layer.op.inputs[0], layer.op.operand(3), layer.result
        self.piece = context.costs.accumulator_piece(self.window, plan.rows, plan.channels, self.x.dtype)
        self._resident: dict[int, Weights] = {}

    def run(self) -> None:
        """Emit all steps of the layer."""
        rows = list(spans(self.window.oh, self.plan.rows))
        chunks = list(spans(self.window.oc, self.plan.channels))
        whole = Span(0, self.window.ic)
        for image in range(self.window.batch):
            if self.plan.order is LoopOrder.ROWS:
                for stripe in rows:
                    x = None if self.window.depthwise else self._load_input(image, stripe, whole)
                    for chunk in chunks:
                        self._tile(image, stripe, x or self._load_input(image, stripe, chunk), self._weights(chunk))
            else:
                for chunk in chunks:
                    weights = self._weights(chunk)
                    for stripe in rows:
                        channels = chunk if self.window.depthwise else whole
                        self._tile(image, stripe, self._load_input(image, stripe, channels), weights)

    def _weights(self, channels: Span) -> Weights:
        """A chunk of weights; resident chunks are loaded once."""
        kept = self._resident.get(channels.first)
        if kept is None:
            kept = self.compute.load_weights(channels)
            if self.plan.weights_resident:
                self._resident[channels.first] = kept
        return kept

    def _load_input(self, image: int, stripe: Span, channels: Span) -> Band:
        """The input rows of a stripe."""
        first, end = self.window.input_rows(stripe.first, stripe.count)
        return self._load(self.x, image, Span(first, end - first), self.window.iw, channels)

    def _load(self, value: Value, image: int, rows: Span, width: int, channels: Span) -> Band:
        """Rows `[rows, width, channels]` of a value, dense."""
        element, place = value.dtype.size_bytes, self.context.place(value)
        image_stride, row_stride, pixel_stride = row_strides(value, place.strides, self.op)
        pixel = channels.count * element
        tile = self.context.tile(max(1, rows.count) * width * pixel, "x")
        dims = [
            CopyDim(rows.count, row_stride, width * pixel),
            CopyDim(width, pixel_stride, pixel),
            CopyDim(channels.count, element, element),
        ]
        offset = place.offset + image * image_stride + rows.first * row_stride + channels.first * element
        if rows.count > 0:
            self.context.load(place.buffer, offset, tile, dims, element)
        return Band(tile.buffer, width * pixel, pixel, element, rows.first, 0, channels.first)

    def _tile(self, image: int, stripe: Span, x: Band, weights: Weights) -> None:
        """One output tile: load the residual, all pieces, store."""
        channels, element, width = weights.channels, self.result.dtype.size_bytes, self.window.ow
        pixel = channels.count * element
        out = self.context.tile(stripe.count * width * pixel, "y")
        y = Band(out.buffer, width * pixel, pixel, element, stripe.first, 0, channels.first)
        residual = None if self.residual is None else self._load(self.residual, image, stripe, width, channels)
        self.compute.block(stripe, weights, self.piece, x, y, residual)
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
