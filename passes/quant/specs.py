# SPDX-License-Identifier: Apache-2.0
"""What a target wants from quantisation, as data. How it is done is `gadl.passes.quant.convert`."""

from __future__ import annotations

from dataclasses import dataclass, field

from gadl.compiler.ir.types import DType, Rounding


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor is quantised.

    `symmetric`: zero point 0. `narrow`: the most negative value is not used. `per_channel`: one scale per output channel.
    """

    dtype: DType
    symmetric: bool = False
    narrow: bool = False
    per_channel: bool = False


@dataclass(frozen=True)
class QuantRules:
    """A target's rules.

    `integer_ops` have an integer form on the target; all others stay float. `tables`: any function of one i8 tensor becomes a
    table. `accumulator_bits` bounds products, `multiplier_bits` the requantisation multiplier. `attention_keys`: the fewest keys over which
    products and a softmax become attention (0: they never do).
    """

    activations: QuantSpec
    weights: QuantSpec
    integer_ops: frozenset[str]
    rounding: Rounding = Rounding.UP
    multiplier_bits: int = 31
    accumulator_bits: int = 32
    tables: bool = True
    attention_keys: int = 0
    #: Real range of an op's result that is known without calibration.
    fixed_ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0)})


#: Ops whose operands and result are one tensor as far as scales go.
SHARED_SCALE = frozenset({
    "max_pool", "reshape", "transpose", "slice", "pad", "gather", "gather_elements", "concat", "expand", "tile", "relayout",
    "reduce_max", "reduce_min", "min", "max", "relu", "clamp",
})  # fmt: skip
