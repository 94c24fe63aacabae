# SPDX-License-Identifier: Apache-2.0
"""Softmax and normalisation over the last axis on the vector unit, rows between bands.

Statistics of all rows lie side by side, so that what is done once per row is done for many rows by one instruction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gadl.compiler.ir.ops.integer_norm import RECIPROCAL, RECIPROCAL_ROOT
from gadl.compiler.ir.requant import quantize_multiplier
from gadl.compiler.ir.types import Array, DType, Requant, Rounding
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref, Region
from gadl.passes.plan.spans import Span, spans

from ..costs import Costs
from ..isa import Binary, Reduce, Unary
from ..layers import Layer
from .bands import Band, row_shape
from .context import Expansion
from .vectors import Data, VectorKernel, by, plain, scaled, times

OVER_LAST_AXIS = frozenset({"softmax", "layer_norm", "rms_norm"})
#: What lies between instructions: more rows at once make fewer instructions, and take more room.
WORKING_BYTES = 24 << 10


class _RowKernel(VectorKernel):
    """Rows between bands, in parts that the working memory holds."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan, layer.result.shape[-1], _working_rows(layer))

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        x, y, each = self.layer.op.inputs[0], self.layer.result, _each(self.layer)
        for part in spans(rows.count * each, self.most):
            self.count, start = part.count, part.first * self.size
            region = [Region(b.buffer, b.byte(rows.first) + start, part.count * self.size) for b in (sources[id(x)], target)]
            at = [Ref(r.buffer, r.start) for r in region]
            self.part(Data(at[0], region[0], x.dtype, 1, self.size), Data(at[1], region[1], y.dtype, 1, self.size))

    @abstractmethod
    def part(self, x: Data, y: Data) -> None:
        """Some rows."""


class SoftmaxKernel(_RowKernel):
    """y = R(e / sum(e)) with e = table[x - max(x)]."""

    def part(self, x: Data, y: Data) -> None:
        op = self.layer.op
        most, below = self.of_rows("most", DType.I8), self.of_elements("below", DType.I8)
        self.reduce(Reduce.MAX, x, most)
        self.binary(Binary.SUB, x, most, below, **plain(), out_zp=127)
        powers, total = self.of_elements("powers", DType.I16), self.of_rows("total", DType.I32)
        self.look_up(below, self.constant("powers of e", op.attrs["table"]), powers)
        self.reduce(Reduce.SUM, powers, total)
        zeros, code, factor = self.of_rows("zeros", DType.I32), self.of_rows("code", DType.I16), self.of_rows("factor", DType.I16)
        self.unary(Unary.CLZ, total, zeros, **times(0), a_zp=1)
        self.binary(Binary.SHL, total, zeros, total)
        self.unary(Unary.CAST, total, code, **times(-15, rounding=Rounding.FLOOR), out_zp=-32768)
        self.look_up(code, self.constant("reciprocals", RECIPROCAL), factor)
        self.binary(Binary.SHL, factor, zeros, total)
        self.unary(Unary.CAST, total, factor, **times(op.attrs["fraction"] - 16))
        self.binary(Binary.MUL, powers, factor, y, **by(op.attrs["requant"]), **_result(self.layer))


class NormKernel(_RowKernel):
    """layer_norm and rms_norm: t = R(c / deviation), then scale and bias of each element."""

    def part(self, x: Data, y: Data) -> None:
        op, steps = self.layer.op, list(self.layer.op.attrs["requant"])
        zero = op.inputs[0].quant.zero_point if op.inputs[0].quant is not None else 0
        square = self.of_rows("square", DType.I32)
        if op.name == "layer_norm":
            fraction, *parts = (steps.pop(0) for _ in range(4))
            x = self._centre(x, zero, square, fraction, parts)
            zero = 0
        else:
            self.reduce(Reduce.SUMSQ, x, square, x_zp=zero, **by(steps.pop(0)))
        self.binary(Binary.ADD, square, self.constant("offset", np.array([op.attrs["offset"]], np.int32)), square, lo=1)
        half, twice = self.of_rows("half", DType.I32), self.of_rows("twice", DType.I32)
        code, root = self.of_rows("code", DType.I16), self.of_rows("root", DType.I16)
        self.unary(Unary.CLZ, square, half, **times(-1, rounding=Rounding.FLOOR), a_zp=1)
        self.binary(Binary.ADD, half, half, twice)
        self.binary(Binary.SHL, square, twice, square)
        self.unary(Unary.CAST, square, code, **times(-15, rounding=Rounding.FLOOR), out_zp=-32768)
        self.look_up(code, self.constant("reciprocal roots", RECIPROCAL_ROOT), root)
        self.binary(Binary.SHL, root, half, square)
        results = list(self._results(y))
        self.binary(Binary.MUL, x, square, results[0], **by(steps.pop(0)), a_zp=zero, **self._last(results[0], y))
        for number, (out, step) in enumerate(zip(results[1:], steps, strict=True), 1):
            vector = self.constant("scale" if number == 1 else "bias", _values(op.inputs[number]))
            rescale = by(step) if number == 1 else plain() | by(step)
            self.binary(Binary.MUL if number == 1 else Binary.ADD, results[number - 1], vector, out, **rescale, **self._last(out, y))

    def _centre(self, x: Data, zero: int, square: Data, fraction: Requant, parts: Sequence[Requant]) -> Data:
        """x - mean(x); `square` becomes the variance: Q = sum(x^2) - M (2 sum(x) - n M) with the mean as an integer M, less what is left."""
        whole, of_square, of_rest = parts
        total, rest, mean = self.of_rows("total", DType.I32), self.of_rows("rest", DType.I32), self.of_rows("mean", DType.I16)
        self.reduce(Reduce.SUM, x, total, x_zp=zero)
        self.reduce(Reduce.SUMSQ, x, square, x_zp=zero)
        self.unary(Unary.CAST, total, mean, **by(whole))
        by_size = scaled("b_", *quantize_multiplier(self.size))
        self.binary(Binary.SUB, total, mean, rest, **plain() | by_size | times(1, "a_"))
        self.binary(Binary.MUL, rest, mean, rest)
        self.binary(Binary.SUB, square, rest, square)
        self.binary(Binary.SUB, total, mean, rest, **plain() | by_size)
        self.binary(Binary.MUL, rest, rest, rest)
        self.binary(Binary.SUB, square, rest, square, **by(of_square, "a_") | by(of_rest, "b_") | times(0))
        self.unary(Unary.CAST, total, mean, **by(fraction))
        centred = self.of_elements("centred", DType.I16)
        self.binary(Binary.SUB, x, mean, centred, **plain() | times(self.layer.op.attrs["fraction"], "a_"), a_zp=zero)
        return centred

    def _results(self, y: Data) -> Iterator[Data]:
        """Where the normalised, the scaled and the final values go."""
        for number in range(len(self.layer.op.inputs) - 1):
            yield self.of_elements(("normal", "scaled")[number], DType.I16)
        yield y

    def _last(self, out: Data, y: Data) -> dict[str, Any]:
        return _result(self.layer) if out is y else {}


def _values(value: Any) -> Array:
    if value.data is None:
        raise ValueError(f"'{value.name}' is not constant")
    return np.asarray(value.data)


def _result(layer: Layer) -> dict[str, Any]:
    quant = layer.result.quant
    return {"out_zp": 0 if quant is None else quant.zero_point}


def _each(layer: Layer) -> int:
    """Rows over the last axis in a row of the band."""
    shape = row_shape(layer.result)
    return 1 if shape is None else shape.row_bytes // max(1, layer.result.shape[-1])


def _row_bytes(layer: Layer) -> int:
    """Bytes that one row over the last axis needs while it runs."""
    size, name = layer.result.shape[-1], layer.op.name
    if name == "softmax":
        return 3 * size + 13
    return 2 * size * (len(layer.op.inputs) - 1 + (name == "layer_norm")) + (28 if name == "layer_norm" else 16)


def _working_rows(layer: Layer) -> int:
    """Rows that run at once."""
    shape = row_shape(layer.result)
    rows = 1 if shape is None else shape.rows * _each(layer)
    return max(1, min(rows, WORKING_BYTES // _row_bytes(layer)))


def working_bytes(layer: Layer) -> int:
    """SRAM that a layer takes between its instructions; 0 for all but softmax and normalisation."""
    return _working_rows(layer) * _row_bytes(layer) + 256 if layer.op.name in OVER_LAST_AXIS else 0


def most_iterations(layer: Layer) -> int:
    """More of them have less than half of the rows that the working memory holds, and save no room worth their instructions."""
    shape = row_shape(layer.result)
    rows = 1 if shape is None else shape.rows * _each(layer)
    return 2 * -(-rows // _working_rows(layer)) if layer.op.name in OVER_LAST_AXIS else rows


def vector_cycles(costs: Costs, layer: Layer, rows: int) -> float:
    """Cycles of some rows of the band, from the bytes that the instructions over all elements, and over one number per row, take."""
    vectors = len(layer.op.inputs) - 1
    # Bytes for each element, instructions over elements, and instructions over rows, of 4 bytes for each.
    each, over_elements, over_rows = {
        "softmax": (8, 5, 6), "layer_norm": (8 + 2 * vectors, 4 + vectors, 15), "rms_norm": (5 + 2 * vectors, 2 + vectors, 7),
    }[layer.op.name]  # fmt: skip
    count = rows * _each(layer)
    parts = -(-count // _working_rows(layer))
    row_work = over_rows * costs.vector(-(-count // parts), 4)
    return costs.vector(count * layer.result.shape[-1] * each, 1) + parts * (row_work + over_elements * costs.machine["vec.issue"])
