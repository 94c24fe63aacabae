# SPDX-License-Identifier: Apache-2.0
"""Convolutions: dense, depthwise and transposed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import Array
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.spans import Span

from ..layers import Layer, Window, is_depthwise
from ..local import Tile, View, align
from .context import Block, Expansion
from .instructions import RECORD, Padding, convolution, depthwise
from .kernel import WindowKernel, by_lane, folded_bias, integers, packed, records, relu_of


def dense_weights(op: Op) -> Array:
    """i8[oc, ic, kh, kw] of a dense convolution: groups become zeros, a transposed kernel is turned round."""
    data = integers(op.inputs[1])
    if data is None:
        raise ValueError("weights must be constant")
    groups = int(op.attrs["groups"])
    if op.name == "conv_transpose":
        ic, per_group = data.shape[:2]
        spatial = tuple(range(2, data.ndim))
        data = np.flip(data, spatial).reshape(groups, ic // groups, per_group, *data.shape[2:]).swapaxes(1, 2)
        data = data.reshape(groups * per_group, ic // groups, *data.shape[3:])
    if data.ndim == 3:
        data = data[:, :, None]
    if groups == 1:
        return data
    oc, per_ic = data.shape[:2]
    found = np.zeros((oc, per_ic * groups, *data.shape[2:]), np.int8)
    for group in range(groups):
        some = slice(group * oc // groups, (group + 1) * oc // groups)
        found[some, group * per_ic : (group + 1) * per_ic] = data[some]
    return found


def depthwise_weights(op: Op) -> Array:
    """i8[c, kh, kw], with zeros where the kernel is dilated."""
    data = integers(op.inputs[1])
    if data is None:
        raise ValueError("weights must be constant")
    data = data.reshape(-1, *((1,) if data.ndim == 3 else ()), *data.shape[2:])
    if op.name == "conv_transpose":
        data = np.flip(data, (1, 2))
    dilations = (1, *op.attrs["dilations"])[-2:]
    reach = [(k - 1) * d + 1 for k, d in zip(data.shape[1:], dilations)]
    found = np.zeros((len(data), *reach), np.int8)
    found[:, :: dilations[0], :: dilations[1]] = data
    return found


def summed_channels(channels: int) -> int:
    """Input channels that an instruction names: an even number is done two at a time, where there are at least four."""
    return channels + channels % 2 if channels > 2 else channels


class Convolution(WindowKernel):
    """Dense convolution, output channels in chunks."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self._weights: Array | None = None
        self._loaded: dict[int, tuple[Block, int]] = {}

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        x, padding = self.prepared(self.source(sources), rows)
        made = self.even_result(target, rows)
        for channels in self.channel_chunks():
            self.chunk(x.view(), padding, channels, made.view(rows, channels))
        self.settle(made, target, rows)

    def chunk(self, x: View, padding: Padding, channels: Span, y: View) -> None:
        """Some output channels from a whole operand."""
        block, at = self.load(channels)
        x = View(
            x.address, x.n, summed_channels(x.c), x.h, x.w, x.n_str, x.c_str, x.h_str, x.w_str, x.aligned, x.region
        )
        fields = convolution(x, y, block.at(), block.at(at), self.window, padding, relu_of(self.layer))
        self.emit(fields, [x, block], y)

    def load(self, channels: Span) -> tuple[Block, int]:
        """Weights and records of some channels; where the records begin."""
        if channels.first not in self._loaded:
            slots = -(-channels.count // self.lanes)
            at = align(slots * self.window.kh * self.window.kw * summed_channels(self.operand.c))

            def make() -> Array:
                if self._weights is None:
                    self._weights = dense_weights(self.op)
                return packed(by_lane(weight_rows(self._weights, channels), self.lanes), self._records(channels))

            block = self.context.constant(at + slots * RECORD, make, f"{self.layer.name}.weights")
            self._loaded[channels.first] = block, at
        return self._loaded[channels.first]

    def _records(self, channels: Span) -> Array:
        if self._weights is None:
            self._weights = dense_weights(self.op)
        return by_lane(records(folded_bias(self.op, self._weights), self.op.attrs["requant"], channels, self.shape.c), self.lanes)

    def end_iteration(self) -> None:
        if not self.plan.resident:
            self._loaded.clear()


def weight_rows(weights: Array, channels: Span, inputs: Span | None = None) -> Array:
    """u8[channels, kh * kw * ic]: kernel positions outside, input channels innermost, an even number of them."""
    some = weights[channels.first : channels.end]
    if inputs is not None:
        some = some[:, inputs.first : inputs.end]
    count = some.shape[1]
    some = np.pad(some, ((0, 0), (0, summed_channels(count) - count), (0, 0), (0, 0)))
    return np.ascontiguousarray(some.transpose(0, 2, 3, 1)).reshape(channels.count, -1).view(np.uint8)


class Depthwise(WindowKernel):
    """One filter for each channel."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        window = self.window
        self.stored = Window(
            window.reach_h, window.reach_w, window.stride_h, window.stride_w, 1, 1, window.insert_h, window.insert_w, window.up, window.left
        )
        self._loaded: dict[int, tuple[Block, int]] = {}

    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        x, held, padding = self.operand_and_padding(self.source(sources), rows)
        made = self.even_result(target, rows)
        for channels in self.channel_chunks():
            block, at = self.load(Span(self.first + channels.first, channels.count))
            view, result = x.view(held, channels), made.view(rows, channels)
            fields = depthwise(view, result, block.at(), block.at(at), self.stored, padding, relu_of(self.layer))
            self.emit(fields, [view, block], result)
        self.settle(made, target, rows)

    def operand_and_padding(self, tile: Tile, rows: Span) -> tuple[Tile, Span, Padding]:
        """Strides are free here, so rows are read where they lie, unless padding has to be made of zeros."""
        held = self.reads(rows)
        padding = self.padding(rows, held)
        if max(padding.up, padding.down, padding.left, padding.right) <= 15:
            return self.even(tile, held), held, padding
        made, rest = self.prepared(tile, rows)
        return made, made.rows, rest

    def load(self, channels: Span) -> tuple[Block, int]:
        """Filters and records of some channels; where the records begin."""
        if channels.first not in self._loaded:
            slots = -(-channels.count // self.lanes)
            at = slots * align(self.stored.kh * self.stored.kw)

            def make() -> Array:
                filters = self.filters()[channels.first : channels.end].reshape(channels.count, -1)
                filters = np.pad(filters, ((0, 0), (0, -filters.shape[1] % 16))).view(np.uint8)
                return packed(by_lane(filters, self.lanes), self._records(channels))

            block = self.context.constant(at + slots * RECORD, make, f"{self.layer.name}.weights")
            self._loaded[channels.first] = block, at
        return self._loaded[channels.first]

    def filters(self) -> Array:
        """i8[c, kh, kw]."""
        return depthwise_weights(self.op)

    def bias(self) -> Array | None:
        """i32[c]."""
        return folded_bias(self.op, depthwise_weights(self.op))

    def _records(self, channels: Span) -> Array:
        return by_lane(records(self.bias(), self.op.attrs["requant"], channels, self.operand.c), self.lanes)

    def end_iteration(self) -> None:
        if not self.plan.resident:
            self._loaded.clear()


class Sum(Depthwise):
    """Average pooling, and sums and means over all pixels: filters of ones."""

    def filters(self) -> Array:
        return np.ones((self.operand.c, self.window.kh, self.window.kw), np.int8)

    def bias(self) -> Array | None:
        return None


def convolution_kernel(context: Expansion, layer: Layer, plan: LayerPlan) -> WindowKernel:
    """The kernel of a `conv` or `conv_transpose`."""
    return (Depthwise if is_depthwise(layer.op) else Convolution)(context, layer, plan)


