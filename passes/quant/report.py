# SPDX-License-Identifier: Apache-2.0
"""What quantisation decided, as plain data for people and tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gadl.compiler.ir.graph import Graph, Op
from gadl.compiler.ir.types import DType

from .specs import QuantRules


def quant_report(
    source: Graph, verdict: Mapping[int, str], result: Graph, rules: QuantRules, scales: str
) -> dict[str, Any]:
    """The decision on every op of `source` and the parameters of every tensor of `result`.

    `scales` says where they come from: `calibrated` or `model`. JSON-ready. Keys: `scales`, `activations`, `rounding`, `ops`,
    `integer_ops` (counts), `float_ops` (op, name, source, reason), `float_op_counts`, `float_reasons` (count per reason),
    `tensors` (type, scale, zero point by name), `weights` (type, bits, number of scales by name).
    """
    kept = [op for op in source.ops if verdict[id(op)]]
    weights = {id(v) for op in result.ops for v in _weights(op)}
    tensors: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for value in result.values():
        if value.quant is None:
            continue
        if id(value) in weights:
            bits = 8 * value.dtype.size_bytes
            parameters[value.name] = {"type": value.dtype.value, "bits": bits, "scales": len(value.quant.scale)}
        else:
            scale = value.quant.scale[0]
            tensors[value.name] = {"type": value.dtype.value, "scale": scale, "zero_point": value.quant.zero_point}
    return {
        "scales": scales,
        "activations": rules.activations.dtype.value,
        "rounding": rules.rounding.value,
        "ops": len(source.ops),
        "integer_ops": len(source.ops) - len(kept),
        "float_ops": [
            {"op": op.name, "name": op.results[0].name, "source": str(op.loc), "reason": verdict[id(op)]} for op in kept
        ],
        "float_op_counts": dict(Counter(op.name for op in kept)),
        "float_reasons": dict(Counter(verdict[id(op)] for op in kept)),
        "tensors": tensors,
        "weights": parameters,
    }


def _weights(op: Op) -> list[Any]:
    """The constants of an integer op with weights."""
    second = op.operand(1)
    weighted = op.name in ("conv", "conv_transpose", "linear") and second is not None and second.dtype is DType.I8
    return [second] if weighted else []
