# SPDX-License-Identifier: Apache-2.0
"""Scales of weights."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import Array, QuantParams

from .specs import QuantRules

#: Ops with constant weights, one scale per output channel.
WEIGHTED = ("conv", "conv_transpose", "linear")


def params_of_weights(weights: Array, axis: int, bits_high: int, floor: Array | float = 0.0) -> QuantParams:
    """Symmetric per-channel scales of a weight tensor; `floor` is the least scale of each channel."""
    other = tuple(i for i in range(weights.ndim) if i != axis)
    reach = np.abs(weights.astype(np.float64)).max(other) / bits_high
    scales = np.maximum(np.maximum(reach, floor), 1e-12).astype(np.float32)
    return QuantParams(tuple(float(s) for s in scales), 0, axis) if len(scales) > 1 else QuantParams((float(scales[0]),))


def weight_axis(op: Op) -> int:
    """The axis of output channels in an op's weights."""
    return 1 if op.name == "conv_transpose" else 0


def real_bias(op: Op) -> Array:
    """The bias in real numbers, f64 per output channel; zeros where there is none."""
    bias = op.operand(2)
    channels = op.result.shape[-1 if op.name == "linear" else 1]
    return np.zeros(channels) if bias is None or bias.data is None else bias.data.astype(np.float64)


def weight_params(op: Op, in_scale: float, rules: QuantRules, weights: Array | None) -> QuantParams:
    """Scales of weights of an op: per channel, but for the rules' `one_scale`, and where a transposed convolution's groups share the axis.

    A channel of tiny weights gets a scale that its bias can be written in.
    """
    if weights is None:
        raise ValueError("weights must be constant")
    axis, bias = weight_axis(op), real_bias(op)
    floor = np.abs(bias) / (in_scale * 2.0**30)
    if weights.shape[axis] != len(bias) or op.name in rules.one_scale:
        return params_of_weights(weights.reshape(1, -1), 0, 127, floor.max())
    return params_of_weights(weights, axis, 127, floor)
