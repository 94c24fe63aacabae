# SPDX-License-Identifier: Apache-2.0
"""Conversion: a float graph and the scales of its tensors become a graph of exact integer arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic
from gadl.compiler.ir.graph import Graph, Op, Stage, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.ops.pooling import AvgPool
from gadl.compiler.ir.ops.quant import dequantize_array, quantize_array
from gadl.compiler.ir.ops.shape import RESIZE_BITS
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import Array, DType, QuantParams, Requant, Rounding, TensorType

from .choose_params import params_of_range, range_of_constant
from .fit_means import count_of, mean_factor
from .fit_weights import WeightFit
from .norms import OVER_LAST_AXIS, norm_numbers, softmax_numbers
from .ratios import MOST_RATIO
from .specs import SHARED_SCALE, QuantRules
from .sums import sum_factors
from .tables import evaluate_on, table_source
from .weights import WEIGHTED, real_bias, weight_axis, weight_params


@dataclass(frozen=True)
class IntegerConstant:
    """A constant that came with its own integers (QDQ models)."""

    data: Array
    quant: QuantParams


@dataclass
class Conversion:
    """Builds the quantised graph.

    `params` and `verdict` come from `choose_params` (or from a QDQ model's own scales), by id of the float graph's values and
    ops. `constants` holds integers that the model brought. `own_scales`: the parameters are the model's, so every reader of
    such a tensor, float or not, sees its quantised values. `fit` chooses weights and biases; otherwise they are rounded to the nearest.
    """

    source: Graph
    params: Mapping[int, QuantParams]
    verdict: Mapping[int, str]
    rules: QuantRules
    constants: Mapping[int, IntegerConstant] = field(default_factory=dict)
    own_scales: bool = False
    fit: WeightFit | None = None

    def run(self) -> Graph:
        """The quantised graph; `GADL-Q002` for every accumulator that could overflow."""
        self.graph = Graph(self.source.name, Stage.QUANTIZED)
        self.integers: dict[int, Value] = {}
        self.floats: dict[int, Value] = {}
        self.rounded: dict[int, Value] = {}
        self.recast: dict[tuple[int, QuantParams], Value] = {}
        self.problems: list[Diagnostic] = []
        self.build = Builder(self.graph)
        self.dtype = self.rules.activations.dtype
        for value in self.source.inputs:
            self.floats[id(value)] = self.graph.add_input(value.name, value.type)
        if self.fit is not None:
            ends = {key: (np.array(self.dtype.range) - quant.zero_point) * quant.scale[0] for key, quant in self.params.items()}
            self.fit.begin(self.source, self.graph, {key: (float(low), float(high)) for key, (low, high) in ends.items()})
        for op in self.source.ops:
            self.build.loc = op.loc
            if self.verdict[id(op)]:
                self._keep(op)
            elif table_source(op) is not None and self.rules.tables:
                self._table(op)
            else:
                self._integer(op)
            if self.fit is not None:
                self.fit.follow(op, self.graph, self._held())
        GadlError.raise_if(self.problems)
        self.graph.set_outputs([self._real(v) for v in self.source.outputs], self.source.output_names)
        self.graph.remove_dead_ops()
        return self.graph

    def _held(self) -> list[tuple[int, Value]]:
        """Tensors of the new graph that later ops may read, each with the `id` of the one that it stands for."""
        plain = (item for known in (self.integers, self.floats, self.rounded) for item in known.items())
        return [*plain, *((key, value) for (key, _), value in self.recast.items())]

    # -- operands ------------------------------------------------------------------

    def _real(self, value: Value) -> Value:
        """The value as float ops and outputs read it."""
        if not self.own_scales or id(value) not in self.params or id(value) not in self.floats:
            return self._unrounded(value)
        if id(value) not in self.rounded:
            self.rounded[id(value)] = self.build("dequantize", self._quantised(value), result=f"{value.name}.real")
        return self.rounded[id(value)]

    def _unrounded(self, value: Value) -> Value:
        """The value as a float tensor of the new graph: as computed, or from its integers."""
        if value.data is not None:
            return self.floats.setdefault(id(value), self.graph.constant(value.data, value.name, value.quant))
        if id(value) not in self.floats:
            made = self.build("dequantize", self.integers[id(value)], result=f"{value.name}.real")
            self.floats[id(value)] = self.rounded[id(value)] = made
        return self.floats[id(value)]

    def _quantised(self, value: Value) -> Value:
        """The value as an integer tensor of the new graph."""
        if id(value) not in self.integers:
            quant = self._params(value)
            if value.data is not None:
                known = self.constants.get(id(value))
                data = known.data if known is not None else quantize_array(value.data, quant, self.dtype)
                self.integers[id(value)] = self.graph.constant(data, value.name, quant)
            else:
                kind = TensorType(self.dtype, value.type.shape, quant)
                self.integers[id(value)] = self.build("quantize", self._unrounded(value), result=f"{value.name}.q", type=kind)
        return self.integers[id(value)]

    def _params(self, value: Value) -> QuantParams:
        if id(value) in self.constants:
            return self.constants[id(value)].quant
        if value.data is not None and id(value) not in self.params:
            return params_of_range(range_of_constant(value), self.rules.activations)
        return self.params[id(value)]

    def _scale(self, value: Value) -> float:
        return self._params(value).scale[0]

    def _with_params(self, value: Value, quant: QuantParams) -> Value:
        """The integer tensor brought to other parameters, once per value and parameters."""
        held = self._quantised(value)
        if held.quant == quant or held.quant is None:
            return held
        key = (id(value), quant)
        if key not in self.recast:
            ratio, name = held.quant.scale[0] / quant.scale[0], f"{value.name}.rescaled"
            kind = TensorType(self.dtype, value.type.shape, quant)
            if self.rules.only_shrinks and (ratio > MOST_RATIO or held.quant.zero_point or quant.zero_point):
                table = quantize_array(dequantize_array(self._codes(), held.quant), quant, self.dtype)
                self.recast[key] = self.build("lut", held, table=table, result=name, type=kind)
            else:
                requant = self._requant(ratio, narrow=False)
                self.recast[key] = self.build("requantize", held, requant=requant, result=name, type=kind)
        return self.recast[key]

    def _requant(self, ratios: Any, narrow: bool = True) -> Requant:
        """Requantisation by real ratios; `narrow`: the accumulator is wide, so the multiplier may have fewer bits."""
        made = make_requant(ratios, self.rules.rounding, self.rules.multiplier_bits if narrow else 31)
        if self.rules.rounding is not Rounding.TFL2:
            return made
        # A ratio below 2^-32 leaves nothing of an accumulator, and neither does the least multiplier with the largest shift.
        nothing = made.multiplier == 0
        multiplier = np.where(nothing, 1 << 30, made.multiplier).astype(np.int32)
        return Requant(multiplier, np.where(nothing, 62, made.shift).astype(np.int8), made.rounding)

    def _codes(self) -> Array:
        """The integers at which a table is given."""
        return np.arange(-128, 128) if self.dtype is DType.I8 else np.arange(513) * 128 - 32768

    # -- ops -------------------------------------------------------------------------

    def _keep(self, op: Op) -> None:
        """An op that stays float."""
        operands = [None if v is None else self._real(v) for v in op.operands]
        kind = op.result.type if op.name == "quantize" else None
        made = self.build.create(op.name, operands, dict(op.attrs), result=op.results[0].name, type=kind)
        for old, new in zip(op.results, made.results):
            self.floats[id(old)] = new

    def _result_type(self, op: Op) -> TensorType:
        return TensorType(self.dtype, op.result.type.shape, self._params(op.result))

    def _set(self, op: Op, name: str, operands: list[Value | None], attrs: dict[str, Any]) -> None:
        """Create the integer op of `op`, and a clamp behind it where it cannot cut its result by itself."""
        given = {k: v for k, v in attrs.items() if v is not None}
        bounds = given.get("clamp")
        if bounds is None or self.rules.any_clamp:
            made = self.build.create(name, operands, given, result=op.result.name, type=self._result_type(op))
            self.integers[id(op.result)] = made.result
            return
        kind = self._result_type(op)
        (least, most), (low, high), zero = self.dtype.range, bounds, self._params(op.result).zero_point
        del given["clamp"]
        if low >= zero:
            given["clamp"] = (zero, most)
        # A symmetric range leaves out the least integer: to cut there is not worth an op.
        whole = high == most and (low == zero or low <= least + 1)
        made = self.build.create(name, operands, given, result=op.result.name + ("" if whole else ".whole"), type=kind)
        self.integers[id(op.result)] = made.result
        if not whole:
            self.integers[id(op.result)] = self.build("clamp", made.result, lo=low, hi=high, result=op.result.name, type=kind)

    def _clamp(self, op: Op) -> tuple[int, int] | None:
        """The float clamp in the result's integers."""
        bounds = op.attrs.get("clamp")
        return None if bounds is None else self._integers_of(bounds, self._params(op.result))

    def _integers_of(self, bounds: tuple[float, ...], quant: QuantParams) -> tuple[int, int]:
        """The integers nearest to two real bounds, inside the type."""
        low, high = self.dtype.range
        mapped = [
            limit if not np.isfinite(b) else int(np.clip(quant.zero_point + np.rint(b / quant.scale[0]), low, high))
            for b, limit in zip(bounds, (low, high))
        ]
        return mapped[0], mapped[1]

    def _table(self, op: Op) -> None:
        """A chain of functions of one tensor as one table; a link that only the next link reads makes no op."""
        inner = not (self.own_scales and id(op.result) in self.params)
        if inner and len(op.result.users) == 1 and not any(op.result is o for o in self.source.outputs):
            (user,) = op.result.users
            if table_source(user) is op.result and not self.verdict[id(user)]:
                return
        chain = [op]
        origin = table_source(op)
        while origin is not None and id(origin) not in self.integers and origin.producer is not None:
            if id(origin) in self.floats or self.verdict[id(origin.producer)] or table_source(origin.producer) is None:
                break
            chain.insert(0, origin.producer)
            origin = table_source(origin.producer)
        if origin is None:
            raise ValueError(f"'{op.name}' is not a function of one tensor")
        x = self._quantised(origin)
        if x.quant is None:
            raise ValueError(f"'{origin.name}' has no scale")
        values = dequantize_array(self._codes(), x.quant)
        for link in chain:
            values = evaluate_on(link, values)
        table = quantize_array(values, self._params(op.result), self.dtype)
        self._set(op, "lut", [x], {"table": table})

    def _integer(self, op: Op) -> None:
        """An op with an integer form."""
        if op.name in WEIGHTED:
            self._weighted(op)
        elif op.name in OVER_LAST_AXIS:
            self._over_last_axis(op)
        elif op.name in SHARED_SCALE:
            quant = self._params(op.result)
            operands = [self._real(v) if not v.dtype.is_float else self._with_params(v, quant) for v in op.inputs]
            attrs = dict(op.attrs)
            if op.name == "clamp":
                attrs["lo"], attrs["hi"] = self._integers_of((op.attrs["lo"], op.attrs["hi"]), quant)
            self._set(op, op.name, list(operands), attrs)
        else:
            self._arithmetic(op)

    def _over_last_axis(self, op: Op) -> None:
        """Softmax and normalisation."""
        scales = self._scale(op.inputs[0]), self._scale(op.result)
        operands: list[Value | None] = [self._quantised(op.inputs[0])]
        attrs: dict[str, Any] = dict(op.attrs)
        if op.name == "softmax":
            attrs |= softmax_numbers(*scales, self._requant)
        else:
            numbers, vectors = norm_numbers(op, *scales, self._requant)
            attrs |= numbers
            operands += [self.graph.constant(v, f"{op.result.name}.{name}") for v, name in zip(vectors, ("scale", "bias"))]
        self._set(op, op.name, operands, attrs)

    def _arithmetic(self, op: Op) -> None:
        """Sums, products, means and interpolation."""
        operands: list[Value | None] = [self._quantised(v) for v in op.inputs]
        scales = [self._scale(v) for v in op.inputs]
        out = self._scale(op.result)
        attrs: dict[str, Any] = {k: v for k, v in op.attrs.items() if k != "clamp"}
        match op.name:
            case "add" | "sub" if self.rules.sum_bits:
                ratios = (scales[0] / out, scales[1] / out)
                attrs["requant"] = sum_factors(ratios, self.rules.sum_bits, op.name == "sub").requant
            case "add" | "sub":
                bits = 20 if self.dtype is DType.I8 else 14
                twice = 2 * max(scales)
                inner = [self._requant(s / twice * (1 << bits), narrow=False) for s in scales]
                attrs["requant"] = (*inner, self._requant(twice / (out * (1 << bits)), narrow=False))
            case "mul" | "matmul":
                attrs["requant"] = self._requant(scales[0] * scales[1] / out)
            case "reduce_sum":
                attrs["requant"] = self._requant(scales[0] / out)
            case "reduce_mean":
                count = op.inputs[0].type.element_count // op.result.type.element_count
                attrs["requant"] = self._mean(op, scales[0] / out) or self._requant(scales[0] / (out * count))
            case "avg_pool":
                attrs["requant"] = self._mean(op, scales[0] / out) or self._by_count(op, scales[0] / out)
            case "resize":
                if attrs["mode"] == "linear" and self.rules.only_shrinks:
                    operands = [self._with_params(op.inputs[0], self._params(op.result))]
                    attrs["requant"] = make_requant(2.0 ** (-2 * RESIZE_BITS), Rounding.UP)
                elif attrs["mode"] == "linear":
                    # One rounding: to bring the operand to the result's scale first would round and cut twice.
                    attrs["requant"] = self._requant(scales[0] / (out * (1 << 2 * RESIZE_BITS)))
                else:
                    operands = [self._with_params(op.inputs[0], self._params(op.result))]
            case _:
                raise ValueError(f"'{op.name}' has no integer form")
        attrs["clamp"] = self._clamp(op)
        self._set(op, op.name, operands, attrs)

    def _mean(self, op: Op, ratio: float) -> Requant | None:
        """An average by a small factor, where the target has these and the scales allow one."""
        count = count_of(op) if self.rules.mean_bits else None
        return None if count is None else mean_factor(ratio / count, self.rules.mean_bits)

    def _by_count(self, op: Op, ratio: float) -> Requant:
        """Requantisation of an average: one entry, or one per window count where padding is left out."""
        counts = np.unique(AvgPool.counts(op))
        if len(counts) == 1:
            return self._requant(ratio / int(counts[0]))
        least = int(counts.min()) if self.rules.only_shrinks else 1
        return self._requant(ratio / np.maximum(np.arange(1, int(np.prod(op.attrs["kernel"])) + 1), least))

    def _weighted(self, op: Op) -> None:
        """Convolutions and linear layers: integer weights and bias, one multiplier per output channel."""
        x, weights, bias = op.inputs[0], op.inputs[1], op.operand(2)
        if weights.data is None:
            raise ValueError("weights must be constant")
        axis, real, residual = weight_axis(op), real_bias(op), op.operand(3)
        in_scale, out_scale = self._scale(x), self._scale(op.result)
        held = self._quantised(x), None if residual is None else self._quantised(residual)
        known = self.constants.get(id(weights))
        if known is not None:
            quant, data = known.quant, known.data
        elif self.fit is not None:
            # Where ratios of scales are bounded, those of the weights as they are were looked at.
            fixed = weights.data if self.rules.only_shrinks else None
            found = self.fit.fit(op, self.graph, *held, real, lambda w: weight_params(op, in_scale, self.rules, w if fixed is None else fixed), 127)
            quant, data, real, bias = found.quant, found.weights, found.bias, None
        else:
            quant = weight_params(op, in_scale, self.rules, weights.data)
            data = np.clip(quantize_array(weights.data, quant, DType.I8), -127, 127).astype(np.int8)
        scales = np.broadcast_to(quant.scales, real.shape)
        integer_bias = self._bias(bias, real, in_scale * scales)
        self._check_accumulator(op, data, axis, integer_bias)
        attrs: dict[str, Any] = {k: v for k, v in op.attrs.items() if k != "clamp"}
        ratios = in_scale * scales / out_scale
        attrs["requant"] = self._requant(ratios if len(set(ratios.tolist())) > 1 else ratios[:1])
        attrs["clamp"] = self._clamp(op)
        operands: list[Value | None] = [
            held[0],
            self.graph.constant(data, weights.name, quant),
            self.graph.constant(integer_bias, f"{op.result.name}.bias"),
        ]
        if residual is not None:
            operands.append(held[1])
            attrs["residual_requant"] = self._requant(self._scale(residual) / out_scale, narrow=False)
        self._set(op, op.name, operands, attrs)

    def _bias(self, bias: Value | None, real: Array, scales: Array) -> Array:
        """The bias in accumulator units: the model's own integers where they have this scale."""
        known = self.constants.get(id(bias)) if bias is not None else None
        wide = self.dtype is DType.I16
        if known is not None and np.allclose(np.broadcast_to(known.quant.scales, scales.shape), scales, rtol=1e-5):
            return np.asarray(known.data.astype(np.int64 if wide else np.int32))
        limit = 2.0**46 if wide else 2.0**31 - 1
        rounded: Array = np.clip(np.rint(real / scales), -limit, limit)
        return np.asarray(rounded.astype(np.int64 if wide else np.int32))

    def _check_accumulator(self, op: Op, weights: Array, axis: int, bias: Array) -> None:
        """Prove `sum |w| * reach + |bias| < 2^(bits - 1)` for every channel."""
        low, high = self.dtype.range
        zero = self._params(op.inputs[0]).zero_point
        reach = max(high - zero, zero - low) if self.rules.activations.symmetric else high - low
        other = tuple(i for i in range(weights.ndim) if i != axis)
        sums = np.abs(weights.astype(np.int64)).sum(other) * reach
        worst = int(np.max(sums)) + int(np.max(np.abs(bias.astype(np.int64)), initial=0))
        limit = self.rules.accumulator_bits
        if worst >= 1 << (limit - 1):
            self.problems.append(
                diagnostic("GADL-Q002", op.loc, layer=op.result.name, bits=worst.bit_length() + 1, limit=limit)
            )
