# SPDX-License-Identifier: Apache-2.0
"""How the CV18xx wants numbers; facts read from the vendor's published sources."""

from __future__ import annotations

from gadl.compiler.ir.types import DType, Rounding
from gadl.passes.quant.observers import ObserverKind
from gadl.passes.quant.specs import QuantRules, QuantSpec

#: Symmetric int8 but for what tables make, which convolutions and products read with a zero point, 31-bit multipliers with two roundings, signed 8-bit multipliers in sums, and no clamp but a relu.
QUANT_RULES = QuantRules(
    activations=QuantSpec(DType.I8, symmetric=True),
    weights=QuantSpec(DType.I8, symmetric=True, narrow=True, per_channel=True),
    integer_ops=frozenset({
        "conv", "conv_transpose", "linear", "matmul", "add", "sub", "mul", "min", "max", "max_pool", "avg_pool", "reduce_mean",
        "reduce_sum", "reduce_max", "reduce_min", "reshape", "transpose", "slice", "pad", "concat", "gather", "expand", "tile",
        "resize", "relu", "clamp",
    }),
    rounding=Rounding.TFL2,
    residuals=False,
    any_clamp=False,
    sum_bits=7,
    mean_bits=8,
    offset_operands=frozenset({"conv", "conv_transpose", "linear"}),
    one_scale=frozenset({"linear"}),
    decomposed=frozenset({"softmax", "layer_norm", "rms_norm"}),
    equalize=0.5,
    observer=ObserverKind.LONG_TAILS,
)  # fmt: skip
