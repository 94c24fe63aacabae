# SPDX-License-Identifier: Apache-2.0
"""How the reference NPU wants numbers (`docs/npu-reference.md`, arithmetic)."""

from __future__ import annotations

from gadl.compiler.ir.types import DType, Rounding
from gadl.passes.quant.specs import QuantRules, QuantSpec

#: int8 activations with zero points, int8 weights per output channel, 31-bit multipliers, round half up.
QUANT_RULES = QuantRules(
    activations=QuantSpec(DType.I8),
    weights=QuantSpec(DType.I8, symmetric=True, narrow=True, per_channel=True),
    integer_ops=frozenset({
        "conv", "conv_transpose", "linear", "matmul", "add", "sub", "mul", "min", "max", "max_pool", "avg_pool", "reduce_mean",
        "reduce_sum", "reduce_max", "reduce_min", "reshape", "transpose", "slice", "pad", "concat", "gather", "expand", "tile",
        "resize", "relu", "clamp", "softmax", "layer_norm", "rms_norm",
    }),
    rounding=Rounding.UP,
    attention_keys=96,  # shorter rows of scores take the vector unit as little time by themselves
)  # fmt: skip
