# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution as ordinary convolutions, one per output phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadl.passes.plan.plan import LayerPlan

from ..layers import Layer, Window
from .context import Expansion, Place
from .window import WindowExpansion, WindowWork, load_table


@dataclass(frozen=True)
class Phase:
    """Outputs `first, first + stride, …` along one axis: `count` of them, from taps `tap, tap + stride, …` (`taps` many)."""

    first: int
    count: int
    tap: int
    taps: int
    pad: int


def phases(out: int, kernel: int, stride: int, pad: int) -> list[Phase]:
    """The phases of one axis.

    Output o reads input (o + pad - i) / stride for every tap i that makes it whole. With o + pad = stride * m + r these are
    the taps i = r + stride * t and the inputs m - t: a convolution over m with the taps in reverse.
    """
    found = []
    for rest in range(stride):
        taps = max(0, -(-(kernel - rest) // stride))
        start = -(-(pad - rest) // stride) if pad > rest else 0
        first = stride * start + rest - pad
        count = max(0, -(-(out - first) // stride))
        if count:
            found.append(Phase(first, count, rest, taps, taps - 1 - start))
    return found


def phase_windows(layer: Layer) -> list[tuple[Phase, Phase, Window]]:
    """The windows of a transposed convolution's phases (rows, columns)."""
    op = layer.op
    x, y, w = op.inputs[0], op.result, op.inputs[1]
    flat = x.type.rank == 3
    kernel = (*w.shape[2:], 1)[:2]
    strides, pads = (*op.attrs["strides"], 1)[:2], op.attrs["pads"]
    ih, iw = (*x.shape[2:], 1)[:2]
    oh, ow = (*y.shape[2:], 1)[:2]
    found = []
    for row in phases(oh, kernel[0], strides[0], pads[0]):
        for column in phases(ow, kernel[1], strides[1], 0 if flat else pads[1]):
            window = Window(
                x.shape[0], ih, iw, x.shape[1], row.count, column.count, y.shape[1], row.taps, column.taps, 1, 1, 1, 1,
                row.pad, column.pad,
            )  # fmt: skip
            found.append((row, column, window))
    return found


def expand_transposed(context: Expansion, layer: Layer, plan: LayerPlan) -> None:
    """Expand every phase with the same plan; results interleave in memory by strides."""
    op = layer.op
    data = op.inputs[1].data
    if data is None:
        raise ValueError("weights must be constant")
    if data.ndim == 3:
        data = data[..., None]
    strides = (*op.attrs["strides"], 1)[:2]
    place, table = context.place(layer.result), load_table(context, layer)
    flat = layer.result.type.rank == 3
    row_stride = place.strides[2]
    pixel_stride = row_stride if flat else place.strides[3]
    for row, column, window in phase_windows(layer):
        part = data[:, :, row.tap :: strides[0], column.tap :: strides[1]][:, :, ::-1, ::-1]
        weights = np.ascontiguousarray(np.transpose(part, (1, 2, 3, 0)))
        offset = place.offset + row.first * row_stride + column.first * pixel_stride
        scaled = (*place.strides[:2], row_stride * strides[0], *(() if flat else (pixel_stride * strides[1],)))
        work = WindowWork(window, weights, context.place(op.inputs[0]), Place(place.buffer, offset, scaled), None)
        rows = min(plan.rows, window.oh)
        chosen = LayerPlan(plan.ops, rows, plan.channels, plan.order, plan.weights_resident)
        WindowExpansion(context, layer, chosen, work, table).run()
