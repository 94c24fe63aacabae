# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution as ordinary convolutions, one per output phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.types import Array

from ..layers import Layer, Window


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


def phase_weights(layer: Layer, row: Phase, column: Phase) -> Array:
    """The taps of one phase as `[oc, kh, kw, ic]`."""
    data = layer.op.inputs[1].data
    if data is None:
        raise ValueError("weights must be constant")
    if data.ndim == 3:
        data = data[..., None]
    strides = (*layer.op.attrs["strides"], 1)[:2]
    part = data[:, :, row.tap :: strides[0], column.tap :: strides[1]][:, :, ::-1, ::-1]
    return np.ascontiguousarray(np.transpose(part, (1, 2, 3, 0)))


def transposed_rows(layer: Layer) -> tuple[Array, Array]:
    """First and one past the last operand row of every result row."""
    result = (*layer.result.shape[2:], 1)[0]
    low, high = np.zeros(result, np.int64), np.zeros(result, np.int64)
    stride = layer.op.attrs["strides"][0]
    for row, _, window in phase_windows(layer):
        for index in range(row.count):
            low[row.first + index * stride], high[row.first + index * stride] = window.input_rows(index, 1)
    return low, high
