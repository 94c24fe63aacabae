# SPDX-License-Identifier: Apache-2.0
"""The drain (EPI): what turns accumulators into results, as instruction fields."""

from __future__ import annotations

from typing import Any

from gadl.compiler.ir.types import DType, Requant

from ..isa import Activation
from ..layers import Layer
from .context import Tile
from .weights import WeightChunk


def scalar_requant(requant: Requant, prefix: str = "") -> dict[str, int]:
    """Multiplier and shift of a per-tensor requantisation as immediate fields."""
    return {f"{prefix}multiplier": int(requant.multiplier[0]), f"{prefix}shift": int(requant.shift[0])}


def clamp_of(layer: Layer) -> tuple[float, float]:
    """The result's bounds before any table: the `clamp` attribute, else the range of the type."""
    bounds = layer.op.attrs.get("clamp")
    dtype = layer.op.result.dtype
    if bounds is not None:
        return bounds[0], bounds[1]
    return dtype.range if dtype.is_integer else (float("-inf"), float("inf"))


def drain_fields(
    layer: Layer, chunk: WeightChunk, weights: Tile, first_channel: int, table: Tile | None
) -> dict[str, Any]:
    """Fields of EPI that depend on the layer and on the first channel of the piece within its chunk."""
    op = layer.op
    low, high = clamp_of(layer)
    fields: dict[str, Any] = {"x_type": op.inputs[0].dtype, "out_type": layer.result.dtype, "lo": low, "hi": high}
    if chunk.bias is not None:
        cell = {DType.I8: 4, DType.I16: 8}.get(op.inputs[0].dtype, 4)
        fields["bias"] = 1
        fields["bias_addr"] = weights.at(chunk.bias + first_channel * cell)
    requant: Requant | None = op.attrs.get("requant")
    if requant is not None:
        fields |= {"rounding": requant.rounding, "requant": 1}
        fields["zp"] = op.result.quant.zero_point if op.result.quant is not None else 0
        if chunk.multiplier is not None and chunk.shift is not None:
            fields["per_channel"] = 1
            fields["multiplier_addr"] = weights.at(chunk.multiplier + first_channel * 4)
            fields["shift_addr"] = weights.at(chunk.shift + first_channel)
        else:
            fields |= scalar_requant(requant)
    residual = op.operand(3)
    if residual is not None:
        fields["res_type"] = residual.dtype
        residual_requant: Requant | None = op.attrs.get("residual_requant")
        if residual_requant is not None:
            fields["res_zp"] = residual.quant.zero_point if residual.quant is not None else 0
            fields |= scalar_requant(residual_requant, "res_")
    if table is not None:
        fields |= {"activation": Activation.LUT, "lut_addr": table.at(0)}
    return fields

