# SPDX-License-Identifier: Apache-2.0
"""Weights and drain parameters in the order that the MMA engine reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import Array, DType, Requant


@dataclass(frozen=True)
class WeightChunk:
    """One chunk of output channels: bytes, and the offsets of its parts."""

    data: bytes
    bias: int | None
    multiplier: int | None
    shift: int | None


def packed_weights(op: Op, depthwise: bool) -> Array:
    """Weights as `[oc, kh, kw, ic]`, or `[kh, kw, c]` for depthwise; `linear` weights are `[oc, ic]` already."""
    data = op.inputs[1].data
    if data is None:
        raise ValueError("weights must be constant")
    if op.name == "linear":
        return data
    order = (0, *range(2, data.ndim), 1)
    packed = np.transpose(data, order)
    return np.moveaxis(packed[..., 0], 0, -1) if depthwise else packed


def weight_chunk(weights: Array, depthwise: bool, op: Op, channels: slice, depth: slice | None = None) -> WeightChunk:
    """Weights of some output channels, for some input channels (None: all); then, behind the last of these, bias, multipliers and
    shifts. Each part is aligned to 16 bytes."""
    part = weights[..., channels] if depthwise else weights[channels] if depth is None else weights[channels, ..., depth]
    data = bytearray(np.ascontiguousarray(part).tobytes())
    if depth is not None and depth.stop < weights.shape[-1]:
        return WeightChunk(bytes(data), None, None, None)

    def append(vector: Array | None) -> int | None:
        if vector is None:
            return None
        data.extend(b"\0" * (-len(data) % 16))
        offset = len(data)
        data.extend(np.ascontiguousarray(vector).tobytes())
        return offset

    bias = op.operand(2)
    requant: Requant | None = op.attrs.get("requant")
    vectors = requant if requant is not None and requant.per_channel else None
    bias_at = append(None if bias is None or bias.data is None else _accumulator_bias(bias.data[channels]))
    multiplier_at = append(None if vectors is None else vectors.multiplier[channels].astype(np.int32))
    shift_at = append(None if vectors is None else vectors.shift[channels].astype(np.int8))
    return WeightChunk(bytes(data), bias_at, multiplier_at, shift_at)


def _accumulator_bias(bias: Array) -> Array:
    """The bias in the accumulator's type: half precision is widened."""
    return bias.astype(np.float32) if DType.of(bias.dtype).is_float else bias
