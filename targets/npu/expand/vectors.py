# SPDX-License-Identifier: Apache-2.0
"""Vector instructions over rows of elements on chip, and over one number of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.types import Array, DType, Requant, Rounding
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref, Region

from ..isa import Binary, Reduce, Unary
from ..layers import Layer
from .context import Expansion, Tile
from .kernel import Kernel


def scaled(prefix: str, multiplier: int, shift: int, rounding: Rounding = Rounding.UP) -> dict[str, Any]:
    """Fields of a rescale of an operand or of the result."""
    return {"rescale": 1, f"{prefix}multiplier": multiplier, f"{prefix}shift": shift, "rounding": rounding}


def by(requant: Requant, prefix: str = "out_") -> dict[str, Any]:
    """A rescale by a requantisation."""
    return scaled(prefix, int(requant.multiplier[0]), int(requant.shift[0]), requant.rounding)


def times(exponent: int, prefix: str = "out_", rounding: Rounding = Rounding.UP) -> dict[str, Any]:
    """A rescale by a power of two: exact where it is positive, or nothing is lost."""
    return scaled(prefix, 1 << 30, 30 - exponent, rounding)


def plain() -> dict[str, Any]:
    """A sum or difference as it is, but for zero points."""
    return times(0, "a_") | times(0, "b_") | times(0)


@dataclass(frozen=True)
class Data:
    """Elements on chip: address, type, bytes they lie in, and strides in elements from element to element and from row to row."""

    at: Ref
    region: Region
    type: DType
    inner: int = 1
    outer: int = 0


def limits(dtype: DType) -> dict[str, int]:
    """Fields of a clamp to the range of a type."""
    low, high = dtype.range
    return {"lo": low, "hi": high}


class VectorKernel(Kernel):
    """Vector instructions over `count` rows of `size` elements; working memory has room for `most` rows."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan, size: int, most: int) -> None:
        super().__init__(context, layer, plan)
        self.size, self.most = size, most
        self.work: dict[str, Tile] = {}
        self.tables: dict[str, Tile] = {}
        self.count = 0

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
                  "out_addr": out.at, "out_type": out.type} | limits(out.type) | fields  # fmt: skip
        if fields.get("rescale"):
            fields |= {"multiplier": fields.pop("out_multiplier"), "shift": fields.pop("out_shift")}
        self._step("VRED", fields, [x], out, self.context.costs.vector(self.size * self.count, x.type.size_bytes))

    def binary(self, function: Binary, a: Data, b: Data, out: Data, **fields: Any) -> None:
        """Elementwise over rows; over one number per row where the result is that."""
        count = self.size if out.inner else 1
        fields = {"function": function, "n0": count, "n1": self.count, "a_addr": a.at, "b_addr": b.at, "out_addr": out.at,
                  "a_type": a.type, "b_type": b.type, "out_type": out.type, "a_s0": a.inner, "a_s1": a.outer, "b_s0": b.inner,
                  "b_s1": b.outer, "out_s0": out.inner, "out_s1": out.outer} | limits(out.type) | fields  # fmt: skip
        if not out.inner:
            # One number per row is one dimension.
            fields |= {"n0": self.count, "n1": 1, "a_s0": a.outer, "b_s0": b.outer, "out_s0": out.outer}
        widest = max(d.type.size_bytes for d in (a, b, out))
        self._step("VBIN", fields, [a, b], out, self.context.costs.vector(count * self.count, widest))

    def unary(self, function: Unary, a: Data, out: Data, **fields: Any) -> None:
        """Of one number per row."""
        fields = {"function": function, "a_addr": a.at, "out_addr": out.at, "a_type": a.type, "out_type": out.type,
                  "count": self.count} | limits(out.type) | fields  # fmt: skip
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
