# SPDX-License-Identifier: Apache-2.0
"""What a target wants from quantisation, as data. How it is done is `gadl.passes.quant.convert`."""

from __future__ import annotations

from dataclasses import dataclass, field

from gadl.compiler.ir.types import DType, Rounding

from .observers import ObserverKind


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

    `residuals`: convolutions add a further operand while they drain. `any_clamp`: every op with arithmetic cuts its result to
    any bounds; otherwise only a lower bound of zero comes with it (a relu), and other bounds are an op of their own.
    `sum_bits`: 0 where `add` and `sub` rescale each operand by a wide multiplier; otherwise they multiply it by an integer of so
    many bits and shift the sum, half up (`passes/quant/sums.py`).
    `offset_operands`: with symmetric activations, ops that take an operand with a zero point all the same. Tensors that only these,
    tables and host ops read, and that only tables and `quantize` make, have one.
    `equalize`: how far channels are brought towards one range before scales are chosen, as a power
    (`passes/quant/equalize.py`); 0 leaves the model as it is. `observer`: how ranges are measured unless the user says.
    """

    activations: QuantSpec
    weights: QuantSpec
    integer_ops: frozenset[str]
    rounding: Rounding = Rounding.UP
    multiplier_bits: int = 31
    accumulator_bits: int = 32
    tables: bool = True
    residuals: bool = True
    any_clamp: bool = True
    sum_bits: int = 0
    #: 0 where averages are rescaled by a wide multiplier; otherwise by an integer of so many bits and a shift, half up, wherever the
    #: scales allow (`passes/quant/fit_means.py`).
    mean_bits: int = 0
    #: Weighted ops whose weights have one scale for all output channels.
    one_scale: frozenset[str] = frozenset()
    #: Softmax and normalisations that become simpler ops in front of calibration (`passes/canonicalize/decompose_rows.py`).
    decomposed: frozenset[str] = frozenset()
    offset_operands: frozenset[str] = frozenset()
    equalize: float = 0.0
    observer: ObserverKind = ObserverKind.MIN_MAX
    attention_keys: int = 0
    #: Real range of an op's result that is known without calibration.
    fixed_ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0)})

    @property
    def only_shrinks(self) -> bool:
        """True where a requantisation by 1 or more has no encoding: scales must be chosen so that every ratio is smaller."""
        return self.rounding is Rounding.TFL2


#: Ops whose operands and result are one tensor as far as scales go.
SHARED_SCALE = frozenset({
    "max_pool", "reshape", "transpose", "slice", "pad", "gather", "gather_elements", "concat", "expand", "tile", "relayout",
    "reduce_max", "reduce_min", "min", "max", "relu", "clamp",
})  # fmt: skip
