# SPDX-License-Identifier: Apache-2.0
"""The physical limit of a segment on a machine (specification section 7): no schedule is faster than LB0."""

from __future__ import annotations

import math
from typing import Any

import gadl.targets.npu._sim as _sim
from gadl.compiler.ir.types import DType
from gadl.targets.base import Segment

from .costs import TYPES, Costs
from .expand.matmul import matmul_window
from .expand.transposed import phase_windows
from .layers import Layer, Window, window_of
from .machine import Machine

_VECTOR_TAPS = {"max_pool": True, "avg_pool": True}


def windows_of(layer: Layer) -> list[tuple[Window, int]]:
    """The products of a layer: windows, and how often each is computed."""
    match layer.op.name:
        case "conv" | "linear":
            return [(window_of(layer.op), 1)]
        case "conv_transpose":
            return [(w, 1) for _, _, w in phase_windows(layer)]
        case "matmul":
            return [(matmul_window(layer), math.prod(layer.result.shape[:-2]))]
        case _:
            return []


def vector_operations(layer: Layer) -> int:
    """Byte operations of the vector unit that the layer cannot avoid."""
    op, y = layer.op, layer.result
    if windows_of(layer) or op.name in ("concat", "slice", "pad", "reshape", "transpose", "relayout"):
        return 0
    if op.name in _VECTOR_TAPS:
        window = window_of(op)
        return y.type.element_count * window.kh * window.kw * y.dtype.size_bytes
    if op.name == "resize":
        return y.type.element_count * (1 if op.attrs["mode"] == "nearest" else 4) * y.dtype.size_bytes
    if op.name.startswith("reduce_"):
        return op.inputs[0].type.size_bytes
    return y.type.size_bytes


def segment_bounds(machine: Machine, layers: list[Layer], segment: Segment) -> dict[str, Any]:
    """LB0, LBgeo, their terms in cycles, MACs and the least DRAM traffic in bytes."""
    costs = Costs(machine)
    peak = math.prod(machine.integer(f"mma.shape.{i}") for i in range(3)) * machine.integer("machine.cores")
    macs, mac_cycles, geometric, vector, weights = 0, 0.0, 0.0, 0, 0
    for layer in layers:
        dtype = layer.op.inputs[0].dtype
        rate = machine[f"mma.rate.{_rate_key(dtype)}"]
        for window, times in windows_of(layer):
            macs += window.macs * times
            ideal = window.macs * times / (peak * rate)
            if window.depthwise:
                lanes = math.prod(machine.integer(f"mma.shape.{i}") for i in range(2)) * machine.integer("mma.dw_taps")
                ideal = min(ideal, window.macs * times / (lanes * machine.integer("machine.cores") * rate))
            mac_cycles += ideal
            geometric += times * window.batch * costs.mma(window, window.oh, window.ow, window.oc, dtype) / machine.integer("machine.cores")
        vector += vector_operations(layer)
        weights += sum(v.type.size_bytes for v in layer.op.inputs if v.is_constant)
    tensors = sum(v.type.size_bytes for v in (*segment.inputs, *segment.outputs))
    traffic = weights + tensors
    dram = traffic / (machine["dram.bytes_per_cycle"] * machine["dram.eff"])
    vector_cycles = vector / (machine["vec.lanes"] * machine.integer("machine.cores"))
    return {
        "macs": macs,
        "mac_cycles": mac_cycles,
        "geometric_cycles": geometric,
        "vector_cycles": vector_cycles,
        "dram_cycles": dram,
        "dram_bound_bytes": traffic,
        "lb0_cycles": max(mac_cycles, vector_cycles, dram),
        "lbgeo_cycles": max(geometric, vector_cycles, dram),
    }


def _rate_key(dtype: DType) -> str:
    return {DType.I16: "i16w8", DType.F16: "f16", DType.BF16: "bf16"}.get(dtype, "i8")


def systolic_total(machine: Machine, layers: list[tuple[int, int, int]]) -> int:
    """Cycles of a network of products (M, N, K) on a systolic preset without stalls: the sum of folds, minus one each."""
    native = _sim.Machine(list(machine.values))
    return sum(int(_sim.conv_cycles(native, m, n, k, 1, 1, int(TYPES[DType.I8]))) - 1 for m, n, k in layers)
