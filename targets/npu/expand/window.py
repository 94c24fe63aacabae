# SPDX-License-Identifier: Apache-2.0
"""Convolutions and products with constant weights: tiles in SRAM, pieces of a tile in the accumulators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.types import Array, DType
from gadl.passes.plan.plan import LayerPlan, LoopOrder
from gadl.passes.plan.program import Buffer, Ref, Region

from ..layers import Layer, Window, window_of
from .context import ACC, Expansion, Place, Tile
from .copying import CopyDim
from .drain import drain_fields
from .weights import WeightChunk, packed_weights, weight_chunk


@dataclass(frozen=True)
class Span:
    """`count` items from `first`."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """One past the last."""
        return self.first + self.count


def spans(extent: int, size: int, start: int = 0) -> Iterator[Span]:
    """`extent` items in parts of `size`."""
    for first in range(start, start + extent, size):
        yield Span(first, min(size, start + extent - first))


@dataclass(frozen=True)
class _Weights:
    """A chunk of weights on chip."""

    tile: Tile
    chunk: WeightChunk
    channels: Span


def row_strides(value: Value, strides: tuple[int, ...], op: Op) -> tuple[int, int, int]:
    """Byte strides of (image, row, pixel) of an operand as the window sees it."""
    if op.name == "linear":
        return 0, strides[-2] if len(strides) > 1 else value.shape[-1] * value.dtype.size_bytes, 0
    row = strides[2]
    return strides[0], row, strides[3] if value.type.rank == 4 else row


@dataclass(frozen=True)
class WindowWork:
    """A window layer, or one phase of a transposed convolution: geometry, packed weights, where operands and result lie."""

    window: Window
    weights: Array
    x: Place
    y: Place
    residual: Place | None


class WindowExpansion:
    """Expands one conv or linear layer, or one phase of a transposed convolution."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan, work: WindowWork, table: Tile | None) -> None:
        self.context, self.layer, self.plan, self.work = context, layer, plan, work
        self.op, self.table = layer.op, table
        self.window = work.window
        self.x = layer.op.inputs[0]
        self.residual = layer.op.operand(3)
        self.element = self.x.dtype.size_bytes
        self.out_element = layer.result.dtype.size_bytes
        self.piece = context.costs.accumulator_piece(self.window, plan.rows, plan.channels, self.x.dtype)
        self._resident: dict[int, _Weights] = {}

    def run(self) -> None:
        """Emit all steps of the layer."""
        rows = list(spans(self.window.oh, self.plan.rows))
        chunks = list(spans(self.window.oc, self.plan.channels))
        for image in range(self.window.batch):
            if self.plan.order is LoopOrder.ROWS:
                for stripe in rows:
                    x = None if self.window.depthwise else self._load_input(image, stripe, Span(0, self.window.ic))
                    for chunk in chunks:
                        mine = x or self._load_input(image, stripe, chunk)
                        self._compute(image, stripe, mine, self._load_weights(chunk))
            else:
                for chunk in chunks:
                    weights = self._load_weights(chunk)
                    for stripe in rows:
                        channels = chunk if self.window.depthwise else Span(0, self.window.ic)
                        self._compute(image, stripe, self._load_input(image, stripe, channels), weights)

    def _load_input(self, image: int, stripe: Span, channels: Span) -> Tile:
        """Input rows of a stripe, `[rows, iw, channels]` dense."""
        first, end = self.window.input_rows(stripe.first, stripe.count)
        place = self.work.x
        image_stride, row_stride, pixel_stride = row_strides(self.x, place.strides, self.op)
        width = channels.count * self.element
        tile = self.context.tile(max(1, end - first) * self.window.iw * width, "x")
        dims = [
            CopyDim(end - first, row_stride, self.window.iw * width),
            CopyDim(self.window.iw, pixel_stride, width),
            CopyDim(channels.count, self.element, self.element),
        ]
        offset = place.offset + image * image_stride + first * row_stride + channels.first * self.element
        if end > first:
            self.context.load(place.buffer, offset, tile, dims, self.element)
        return tile

    def _load_weights(self, channels: Span) -> _Weights:
        """A chunk of weights with its parameters; resident chunks are loaded once."""
        kept = self._resident.get(channels.first)
        if kept is not None:
            return kept
        chunk = weight_chunk(self.work.weights, self.window.depthwise, self.op, channels.first, channels.count)
        loaded = _Weights(self.context.load_constant(chunk.data, "w"), chunk, channels)
        if self.plan.weights_resident:
            self._resident[channels.first] = loaded
        return loaded

    def _compute(self, image: int, stripe: Span, x: Tile, weights: _Weights) -> None:
        """One output tile: load the residual, all pieces, store."""
        channels, width = weights.channels, weights.channels.count * self.out_element
        shape = [stripe.count, self.window.ow, channels.count]
        out = self.context.tile(stripe.count * self.window.ow * width, "y")
        residual = None if self.residual is None else self._load_residual(image, stripe, channels)
        for rows in spans(stripe.count, self.piece.rows):
            for columns in spans(self.window.ow, self.piece.columns):
                for part in spans(channels.count, self.piece.channels):
                    self._piece(stripe, rows, columns, part, x, weights, residual, out, shape)
        place = self.work.y
        image_stride, row_stride, pixel_stride = row_strides(self.layer.result, place.strides, self.op)
        dims = [
            CopyDim(stripe.count, self.window.ow * width, row_stride),
            CopyDim(self.window.ow, width, pixel_stride),
            CopyDim(channels.count, self.out_element, self.out_element),
        ]
        offset = place.offset + image * image_stride + stripe.first * row_stride + channels.first * self.out_element
        self.context.store(out, place.buffer, offset, dims, self.out_element)

    def _load_residual(self, image: int, stripe: Span, channels: Span) -> Tile:
        """The residual's part of an output tile, dense."""
        place = self.work.residual
        if self.residual is None or place is None:
            raise ValueError("the layer has no residual")
        element = self.residual.dtype.size_bytes
        image_stride, row_stride, pixel_stride = row_strides(self.residual, place.strides, self.op)
        width = channels.count * element
        tile = self.context.tile(stripe.count * self.window.ow * width, "residual")
        dims = [
            CopyDim(stripe.count, row_stride, self.window.ow * width),
            CopyDim(self.window.ow, pixel_stride, width),
            CopyDim(channels.count, element, element),
        ]
        offset = place.offset + image * image_stride + stripe.first * row_stride + channels.first * element
        self.context.load(place.buffer, offset, tile, dims, element)
        return tile

    def _piece(
        self, stripe: Span, rows: Span, columns: Span, part: Span, x: Tile, weights: _Weights,
        residual: Tile | None, out: Tile, shape: list[int],
    ) -> None:  # fmt: skip
        """One accumulator's worth: a product and its drain."""
        context, window = self.context, self.window
        cells = rows.count * columns.count * part.count
        acc = context.program.buffer(ACC, cells * context.costs.cell_bytes(self.x.dtype), "acc", alignment=64)
        acc_region = Region(acc, 0, acc.size)
        cycles = context.costs.mma(window, rows.count, columns.count, part.count, self.x.dtype)
        weight_region = weights.tile.region(0, len(weights.chunk.data))
        instruction = "MMA_DW" if window.depthwise else "MMA_CONV"
        fields = self._mma_fields(stripe, rows, columns, part, x, weights, acc)
        context.step("MMA", instruction, fields, [x.region(), weight_region], [acc_region], cycles)
        pixel = shape[2] * self.out_element
        start = (rows.first * shape[1] + columns.first) * pixel + part.first * self.out_element
        hull = ((rows.count - 1) * shape[1] + columns.count - 1) * pixel + part.count * self.out_element
        reads = [acc_region, weight_region]
        if residual is not None:
            reads.append(residual.region())
        if self.table is not None:
            reads.append(self.table.region())
        drain = drain_fields(self.layer, weights.chunk, weights.tile, part.first, self.table)
        drain |= {
            "acc_addr": Ref(acc), "oh": rows.count, "ow": columns.count, "oc": part.count,
            "out_addr": out.at(start), "out_row_stride": shape[1] * pixel, "out_pix_stride": pixel,
        }  # fmt: skip
        if residual is not None and self.residual is not None:
            element = self.residual.dtype.size_bytes
            pixel = shape[2] * element
            at = (rows.first * shape[1] + columns.first) * pixel + part.first * element
            drain |= {"residual": 1, "res_addr": residual.at(at), "res_row_stride": shape[1] * pixel, "res_pix_stride": pixel}
        cycles = context.costs.epi(cells)
        context.step("MMA", "EPI", drain, reads, [out.region(start, hull)], cycles)

    def _mma_fields(
        self, stripe: Span, rows: Span, columns: Span, part: Span, x: Tile, weights: _Weights, acc: Buffer
    ) -> dict[str, Any]:
        """Operands of the product: the input window of the piece inside the tile, the weights of its channels."""
        window = self.window
        tile_first, tile_end = window.input_rows(stripe.first, stripe.count)
        top = (stripe.first + rows.first) * window.stride_h - window.pad_top
        left = columns.first * window.stride_w - window.pad_left
        row, column = max(top, tile_first), max(left, 0)
        tile_channels = weights.channels.count if window.depthwise else window.ic
        pixel = tile_channels * self.element
        channel = part.first * self.element if window.depthwise else 0
        taps = window.kh * window.kw
        filter_bytes = self.element_of_weights * (1 if window.depthwise else taps * window.ic)
        quant = self.x.quant
        kind = {DType.F16: DType.F16, DType.BF16: DType.BF16}.get(self.x.dtype, DType.I8)
        if window.depthwise:
            extra = {"w_tap_stride": weights.channels.count * self.element_of_weights, "w_type": kind}
        else:
            extra = {"oc": part.count, "w_type": kind}
        return extra | {
            "x_addr": x.at(((row - tile_first) * window.iw + column) * pixel + channel),
            "x_row_stride": window.iw * pixel, "x_pix_stride": pixel,
            "ih": max(0, tile_end - row), "iw": max(0, window.iw - column),
            "ic": part.count if window.depthwise else window.ic,
            "kh": window.kh, "kw": window.kw, "stride_h": window.stride_h, "stride_w": window.stride_w,
            "dil_h": window.dilation_h, "dil_w": window.dilation_w, "pad_top": row - top, "pad_left": column - left,
            "x_zp": quant.zero_point if quant is not None else 0,
            "w_addr": weights.tile.at(part.first * filter_bytes), "acc_addr": Ref(acc),
            "oh": rows.count, "ow": columns.count, "x_type": self.x.dtype,
        }  # fmt: skip

    @property
    def element_of_weights(self) -> int:
        """Bytes of one weight."""
        return int(self.work.weights.dtype.itemsize)



def expand_window(context: Expansion, layer: Layer, plan: LayerPlan) -> None:
    """Expand a conv or linear layer."""
    window = window_of(layer.op)
    residual = layer.op.operand(3)
    work = WindowWork(
        window,
        packed_weights(layer.op, window.depthwise),
        context.place(layer.op.inputs[0]),
        context.place(layer.result),
        None if residual is None else context.place(residual),
    )
    WindowExpansion(context, layer, plan, work, load_table(context, layer)).run()


def load_table(context: Expansion, layer: Layer) -> Tile | None:
    """The drain's table, if the layer has one."""
    return None if layer.lut is None else context.load_constant(layer.lut.attrs["table"], "table")
