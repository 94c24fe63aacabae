# SPDX-License-Identifier: Apache-2.0
"""Weights and biases that reproduce what a layer computes in float, from the integers that it will really be given.

Ops are fitted in topological order while the quantised graph grows, so that each sees the errors of all before it. The rows of some
samples fit, those of others choose between the ways to round, by the squared error of the layer's result:

- `nearest`;
- `second-order`: errors of a row's weights cancel over the operands seen (`rounding.py`);
- `regression`: the same, for weights that also take back, as far as they can, what the operands have lost already.

In each way the bias takes back the mean error of every channel.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.types import Array, QuantParams

from .operands import groups_of, matrix_of, positions, results_at, rows_at, spread, weights_of
from .rounding import inverse_factor, nearest, regression, second_order
from .samples import Samples

#: Numbers in the rows of a layer; the fewest and most rows.
MOST_NUMBERS, FEWEST_ROWS, MOST_ROWS = 16 << 20, 3072, 12288
#: Part of the samples that choose.
CHOOSING = 4
#: Part of the diagonal's mean that keeps regression near the weights as they are.
CAUTION = 0.05
#: Positions at which a channel must not be cut for their mean error to count.
FEWEST_ACTIVE = 32
#: Rows from which biases are corrected and weights rounded other than to the nearest.
FEWEST_FITTING = 16


class RoundingKind(enum.Enum):
    """Ways to round weights, each of which has those before it to choose from too. The value is the option's spelling."""

    NEAREST = "nearest"
    SECOND_ORDER = "second-order"
    REGRESSION = "regression"


@dataclass(frozen=True)
class Fitted:
    """Integer weights in the op's layout, their scales, and the real bias."""

    weights: Array
    quant: QuantParams
    bias: Array


@dataclass
class WeightFit:
    """Fits the ops of one graph to samples. `chosen` counts the ways that were chosen, by name."""

    kind: RoundingKind
    feeds: Sequence[Mapping[str, Array]]
    correct_bias: bool = True
    chosen: Counter[str] = field(default_factory=Counter)

    def begin(self, source: Graph, grown: Graph, limits: Mapping[int, tuple[float, float]]) -> None:
        """Conversion begins; `limits` are the real ends of what tensors hold, by `id`."""
        self.samples, self._number = Samples(source, self.feeds, limits), 0
        self.samples.begin(grown)

    def follow(self, op: Op, grown: Graph, alive: Sequence[tuple[int, Value]]) -> None:
        """An op was converted."""
        self._number += 1
        self.samples.follow(op, grown, alive)

    def fit(
        self, op: Op, grown: Graph, x: Value, residual: Value | None, bias: Array, params: Callable[[Array], QuantParams], reach: int
    ) -> Fitted:
        """Weights of `op`, of which `x` and `residual` are the operands in integers and `bias` is the real bias.

        `params` chooses scales for weights in the op's layout.
        """
        rows = _Rows.of(op, self.samples, grown, x, residual, self._number)
        weights = matrix_of(op, np.asarray(op.inputs[1].data, np.float64))
        groups = groups_of(op)
        target = rows.real @ weights.swapaxes(1, 2).astype(np.float32) + bias.reshape(groups, 1, -1).astype(np.float32) + rows.lost
        fits, chooses, mean, gram = _moments(rows)
        low, high = op.attrs.get("clamp") or (-np.inf, np.inf)
        wanted, active, result = target[:, fits], (target[:, fits] > low) & (target[:, fits] < high), np.clip(target[:, chooses], low, high)
        kinds = list(RoundingKind)[: list(RoundingKind).index(self.kind) + 1] if len(fits) >= FEWEST_FITTING else [RoundingKind.NEAREST]
        factor = inverse_factor(gram) if len(kinds) > 1 else None
        best: Fitted | None = None
        least = np.inf
        for kind in kinds:
            aimed = weights
            if kind is RoundingKind.REGRESSION:
                error = wanted - rows.seen[:, fits] @ weights.swapaxes(1, 2).astype(np.float32)
                error -= error.mean(1, keepdims=True)
                centred = rows.seen[:, fits] - mean[:, None].astype(np.float32)
                aimed = weights + regression(gram, (centred.swapaxes(1, 2) @ error).astype(np.float64), CAUTION)
            quant = params(weights_of(op, aimed))
            steps = np.broadcast_to(quant.scales, (weights.shape[0] * weights.shape[1],)).reshape(groups, -1)
            rounded = nearest(aimed, steps, reach) if factor is None or kind is RoundingKind.NEAREST else second_order(aimed, factor, steps, reach)
            made = rows.seen @ (rounded * steps[..., None]).swapaxes(1, 2).astype(np.float32)
            shifts = [bias.reshape(groups, -1)]
            if self.correct_bias and len(fits) >= FEWEST_FITTING:
                shifts.insert(0, _shift(wanted - made[:, fits], active))
            for shift in shifts:
                loss = float(np.square(result - np.clip(made[:, chooses] + shift[:, None].astype(np.float32), low, high)).mean(dtype=np.float64))
                if best is None or loss < least:
                    best, least, name = Fitted(weights_of(op, rounded).astype(np.int8), quant, shift.reshape(-1)), loss, kind.value
        if best is None:
            raise ValueError("there is no way to round")
        self.chosen[name] += 1
        return best


@dataclass(frozen=True)
class _Rows:
    """Positions of a layer's result: f32[G, R, K] of operands in float and as the device has them, what a residual lost, and the sample of each."""

    real: Array
    seen: Array
    lost: Array
    sample: Array

    @staticmethod
    def of(op: Op, samples: Samples, grown: Graph, x: Value, residual: Value | None, seed: int) -> _Rows:
        wanted = int(np.clip(MOST_NUMBERS // (op.inputs[0].shape[-1 if op.name == "linear" else 1] * _taps(op)), FEWEST_ROWS, MOST_ROWS))
        picked = spread(positions(op), wanted, samples.count, seed)
        held, known = samples.real(op.inputs[0]), [_centred(a, x) for a in samples.grown(grown, x)]
        real = np.concatenate([rows_at(op, a, p) for a, p in zip(held, picked)]).swapaxes(0, 1).astype(np.float32)
        seen = np.concatenate([rows_at(op, a, p) for a, p in zip(known, picked)]).swapaxes(0, 1)
        lost: Array = np.zeros((1, 1, 1), np.float32)
        before = op.operand(3)
        if residual is not None and before is not None:
            pairs = zip(samples.real(before), samples.grown(grown, residual), picked)
            lost = np.concatenate([results_at(op, a, p) - results_at(op, _centred(b, residual), p) for a, b, p in pairs]).swapaxes(0, 1)
        return _Rows(real, seen, lost, np.repeat(np.arange(samples.count), [len(p) for p in picked]))


def _moments(rows: _Rows) -> tuple[Array, Array, Array, Array]:
    """Which rows fit and which choose, the mean of the operands of those that fit, and their centred products."""
    count, number = rows.sample.max() + 1, np.arange(len(rows.sample))
    # Whole samples choose where there are some to spare; of very few rows all do both.
    choosing = (rows.sample if count >= CHOOSING else number) % CHOOSING == CHOOSING - 1
    fits = np.flatnonzero(~choosing) if choosing.any() else number
    chooses = np.flatnonzero(choosing) if choosing.any() else number
    mean = rows.seen[:, fits].mean(1, dtype=np.float64)
    centred = rows.seen[:, fits] - mean[:, None].astype(np.float32)
    return fits, chooses, mean, (centred.swapaxes(1, 2) @ centred).astype(np.float64)


def _shift(error: Array, active: Array) -> Array:
    """The mean error of every channel where its result is not cut, or of all positions where it nearly always is; f64[G, O]."""
    count = active.sum(1)
    inside = np.where(active, error, 0).sum(1, dtype=np.float64) / np.maximum(count, 1)
    return np.where(count >= FEWEST_ACTIVE, inside, error.mean(1, dtype=np.float64))


def _taps(op: Op) -> int:
    return int(np.prod(op.inputs[1].shape[2:], dtype=np.int64))


def _centred(values: Array, value: Value) -> Array:
    """The real numbers that integers stand for."""
    if value.quant is None:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(value.quant.zero_point)) * np.float32(value.quant.scale[0])
