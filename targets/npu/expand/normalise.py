# SPDX-License-Identifier: Apache-2.0
"""Softmax and normalisation over the last axis on the vector unit, rows between bands.

Statistics of all rows lie side by side, so that what is done once per row is done for many rows by one instruction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.ops.integer_norm import RECIPROCAL, RECIPROCAL_ROOT
from gadl.compiler.ir.requant import quantize_multiplier
from gadl.compiler.ir.types import Array, DType, Requant, Rounding
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref, Region

from ..costs import Costs
from ..isa import Binary, Reduce, Unary
from ..layers import Layer
from .bands import Band, Span, row_shape, spans
from .context import Expansion, Tile
from .kernel import Kernel

OVER_LAST_AXIS = frozenset({"softmax", "layer_norm", "rms_norm"})
#: What lies between instructions: more rows at once make fewer instructions, and take more room.
WORKING_BYTES = 24 << 10


def _scaled(prefix: str, multiplier: int, shift: int, rounding: Rounding = Rounding.UP) -> dict[str, Any]:
    return {"rescale": 1, f"{prefix}multiplier": multiplier, f"{prefix}shift": shift, "rounding": rounding}


def _by(requant: Requant, prefix: str = "out_") -> dict[str, Any]:
    return _scaled(prefix, int(requant.multiplier[0]), int(requant.shift[0]), requant.rounding)


def _times(exponent: int, prefix: str = "out_", rounding: Rounding = Rounding.UP) -> dict[str, Any]:
    """A rescale by a power of two: exact where it is positive, or nothing is lost."""
    return _scaled(prefix, 1 << 30, 30 - exponent, rounding)


def _sum() -> dict[str, Any]:
    """A sum or difference as it is, but for zero points."""
    return _times(0, "a_") | _times(0, "b_") | _times(0)


@dataclass(frozen=True)
class Data:
    """Elements on chip: address, type, bytes they lie in, and strides in elements from element to element and from row to row."""

    at: Ref
    region: Region
    type: DType
    inner: int = 1
    outer: int = 0


class _RowKernel(Kernel):
    """Vector instructions over `count` rows of `size` elements, in parts that the working memory holds."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self.size = layer.result.shape[-1]
        self.most = _working_rows(layer)
        self.work: dict[str, Tile] = {}
        self.tables: dict[str, Tile] = {}
        self.count = 0

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

    def of_elements(self, name: str, type: DType) -> Data:
        """Working memory of one number per element."""
        return self._data(name, type, self.size, 1, self.size)

    def of_rows(self, name: str, type: DType) -> Data:
        """Working memory of one number per row."""
        return self._data(name, type, 1, 0, 1)

    def _data(self, name: str, type: DType, per_row: int, inner: int, outer: int) -> Data:
        if name not in self.work:
            self.work[name] = self.context.tile(self.most * per_row * type.size_bytes, name)
        tile = self.work[name]
        return Data(tile.at(0), tile.region(0, self.count * per_row * type.size_bytes), type, inner, outer)

    def constant(self, name: str, values: Array) -> Data:
        """A vector for all rows, or one number."""
        if name not in self.tables:
            self.tables[name] = self.context.load_constant(np.ascontiguousarray(values), name)
        tile = self.tables[name]
        return Data(tile.at(0), tile.region(), DType.of(values.dtype), int(values.size > 1), 0)

    def reduce(self, function: Reduce, x: Data, out: Data, **fields: Any) -> None:
        """One number of each row."""
        fields = {"function": function, "x_addr": x.at, "type": x.type, "n": self.size, "n_stride": 1, "m": self.count, "m_stride": self.size,
                  "out_addr": out.at, "out_type": out.type} | _limits(out.type) | fields  # fmt: skip
        if fields.get("rescale"):
            fields |= {"multiplier": fields.pop("out_multiplier"), "shift": fields.pop("out_shift")}
        self._step("VRED", fields, [x], out, self.context.costs.vector(self.size * self.count, x.type.size_bytes))

    def binary(self, function: Binary, a: Data, b: Data, out: Data, **fields: Any) -> None:
        """Elementwise over rows; over one number per row where the result is that."""
        count = self.size if out.inner else 1
        fields = {"function": function, "n0": count, "n1": self.count, "a_addr": a.at, "b_addr": b.at, "out_addr": out.at,
                  "a_type": a.type, "b_type": b.type, "out_type": out.type, "a_s0": a.inner, "a_s1": a.outer, "b_s0": b.inner,
                  "b_s1": b.outer, "out_s0": out.inner, "out_s1": out.outer} | _limits(out.type) | fields  # fmt: skip
        if not out.inner:
            # One number per row is one dimension.
            fields |= {"n0": self.count, "n1": 1, "a_s0": a.outer, "b_s0": b.outer, "out_s0": out.outer}
        widest = max(d.type.size_bytes for d in (a, b, out))
        self._step("VBIN", fields, [a, b], out, self.context.costs.vector(count * self.count, widest))

    def unary(self, function: Unary, a: Data, out: Data, **fields: Any) -> None:
        """Of one number per row."""
        fields = {"function": function, "a_addr": a.at, "out_addr": out.at, "a_type": a.type, "out_type": out.type,
                  "count": self.count} | _limits(out.type) | fields  # fmt: skip
        self._step("VUN", fields, [a], out, self.context.costs.vector(self.count, max(a.type.size_bytes, out.type.size_bytes)))

    def look_up(self, a: Data, table: Data, out: Data) -> None:
        """Of every element of `a`."""
        count = self.count * (self.size if a.inner else 1)
        fields = {"a_addr": a.at, "table_addr": table.at, "out_addr": out.at, "a_type": a.type, "out_type": out.type, "count": count}
        special = self.context.costs.machine.integer("vec.sfu_lanes") if a.type is DType.I16 else 0
        cycles = -(-count // special) if special else self.context.costs.vector(count, out.type.size_bytes)
        self._step("VLUT", fields, [a, table], out, cycles)

    def _step(self, instruction: str, fields: dict[str, Any], reads: list[Data], out: Data, cycles: float) -> None:
        regions = list({id(d.region.buffer): d.region for d in reads}.values())
        self.context.step("VEC", instruction, fields, regions, [out.region], cycles)


class SoftmaxKernel(_RowKernel):
    """y = R(e / sum(e)) with e = table[x - max(x)]."""

    def part(self, x: Data, y: Data) -> None:
        op = self.layer.op
        most, below = self.of_rows("most", DType.I8), self.of_elements("below", DType.I8)
        self.reduce(Reduce.MAX, x, most)
        self.binary(Binary.SUB, x, most, below, **_sum(), out_zp=127)
        powers, total = self.of_elements("powers", DType.I16), self.of_rows("total", DType.I32)
        self.look_up(below, self.constant("powers of e", op.attrs["table"]), powers)
        self.reduce(Reduce.SUM, powers, total)
        zeros, code, factor = self.of_rows("zeros", DType.I32), self.of_rows("code", DType.I16), self.of_rows("factor", DType.I16)
        self.unary(Unary.CLZ, total, zeros, **_times(0), a_zp=1)
        self.binary(Binary.SHL, total, zeros, total)
        self.unary(Unary.CAST, total, code, **_times(-15, rounding=Rounding.FLOOR), out_zp=-32768)
        self.look_up(code, self.constant("reciprocals", RECIPROCAL), factor)
        self.binary(Binary.SHL, factor, zeros, total)
        self.unary(Unary.CAST, total, factor, **_times(op.attrs["fraction"] - 16))
        self.binary(Binary.MUL, powers, factor, y, **_by(op.attrs["requant"]), **_result(self.layer))


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
            self.reduce(Reduce.SUMSQ, x, square, x_zp=zero, **_by(steps.pop(0)))
        self.binary(Binary.ADD, square, self.constant("offset", np.array([op.attrs["offset"]], np.int32)), square, lo=1)
        half, twice = self.of_rows("half", DType.I32), self.of_rows("twice", DType.I32)
        code, root = self.of_rows("code", DType.I16), self.of_rows("root", DType.I16)
        self.unary(Unary.CLZ, square, half, **_times(-1, rounding=Rounding.FLOOR), a_zp=1)
        self.binary(Binary.ADD, half, half, twice)
        self.binary(Binary.SHL, square, twice, square)
        self.unary(Unary.CAST, square, code, **_times(-15, rounding=Rounding.FLOOR), out_zp=-32768)
        self.look_up(code, self.constant("reciprocal roots", RECIPROCAL_ROOT), root)
        self.binary(Binary.SHL, root, half, square)
        results = list(self._results(y))
        self.binary(Binary.MUL, x, square, results[0], **_by(steps.pop(0)), a_zp=zero, **self._last(results[0], y))
        for number, (out, step) in enumerate(zip(results[1:], steps, strict=True), 1):
            vector = self.constant("scale" if number == 1 else "bias", _values(op.inputs[number]))
            rescale = _by(step) if number == 1 else _sum() | _by(step)
            self.binary(Binary.MUL if number == 1 else Binary.ADD, results[number - 1], vector, out, **rescale, **self._last(out, y))

    def _centre(self, x: Data, zero: int, square: Data, fraction: Requant, parts: Sequence[Requant]) -> Data:
        """x - mean(x); `square` becomes the variance: Q = sum(x^2) - M (2 sum(x) - n M) with the mean as an integer M, less what is left."""
        whole, of_square, of_rest = parts
        total, rest, mean = self.of_rows("total", DType.I32), self.of_rows("rest", DType.I32), self.of_rows("mean", DType.I16)
        self.reduce(Reduce.SUM, x, total, x_zp=zero)
        self.reduce(Reduce.SUMSQ, x, square, x_zp=zero)
        self.unary(Unary.CAST, total, mean, **_by(whole))
        times = _scaled("b_", *quantize_multiplier(self.size))
        self.binary(Binary.SUB, total, mean, rest, **_sum() | times | _times(1, "a_"))
        self.binary(Binary.MUL, rest, mean, rest)
        self.binary(Binary.SUB, square, rest, square)
        self.binary(Binary.SUB, total, mean, rest, **_sum() | times)
        self.binary(Binary.MUL, rest, rest, rest)
        self.binary(Binary.SUB, square, rest, square, **_by(of_square, "a_") | _by(of_rest, "b_") | _times(0))
        self.unary(Unary.CAST, total, mean, **_by(fraction))
        centred = self.of_elements("centred", DType.I16)
        self.binary(Binary.SUB, x, mean, centred, **_sum() | _times(self.layer.op.attrs["fraction"], "a_"), a_zp=zero)
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


def _limits(dtype: DType) -> dict[str, int]:
    low, high = dtype.range
    return {"lo": low, "hi": high}


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
