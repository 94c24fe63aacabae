# SPDX-License-Identifier: Apache-2.0
"""The physical limit of a segment on a machine (specification section 7): no schedule is faster than LB0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import gadl.targets.npu._sim as _sim
from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.ops.shape import Resize, linear_taps, nearest_index
from gadl.compiler.ir.types import Array, DType
from gadl.passes.plan.recompute import Streaming
from gadl.targets.base import Segment

from .attention import Extents
from .compression import least_bytes
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
        case "attention":
            one = Extents.of(layer)
            return [(one.scores, one.heads), (one.mixing, one.heads)]
        case _:
            return []


def channels_of(layer: Layer) -> int:
    """Output channels that chunks divide; 0 where there are none."""
    windows = windows_of(layer)
    return windows[0][0].oc if windows else 0


def vector_operations(layer: Layer) -> int:
    """Byte operations of the vector unit that the layer cannot avoid."""
    op, y = layer.op, layer.result
    if op.name == "attention":
        one = Extents.of(layer)
        return one.heads * one.rows * one.keys
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


def read_bytes(value: Value, segment: Segment) -> int:
    """Bytes of a segment's input that its ops need: slices, strides beyond the kernel and shrinking leave elements out."""
    members = {id(op) for op in segment.ops}
    touched = np.zeros(value.shape, np.bool_)
    for op in (user for user in value.users if id(user) in members):
        indices = _read_indices(op, value)
        if indices is None:
            return value.type.size_bytes
        touched[np.ix_(*indices)] = True
    return int(np.count_nonzero(touched)) * value.dtype.size_bytes


def _read_indices(op: Op, value: Value) -> list[Array] | None:
    """The indices along each axis of `value` that `op` reads; None for all."""
    indices = [np.arange(extent) for extent in value.shape]
    if sum(operand is value for operand in op.inputs) != 1 or op.inputs[0] is not value:
        return None
    if op.name == "slice":
        return [a + s * np.arange(n) for a, n, s in zip(op.attrs["starts"], op.attrs["sizes"], op.attrs["steps"])]
    if op.name in ("conv", *_VECTOR_TAPS):
        kernel = op.attrs["kernel"] if "kernel" in op.attrs else op.inputs[1].shape[2:]
        for axis, (taps, stride, pad, out) in enumerate(zip(kernel, op.attrs["strides"], op.attrs["pads"], op.result.shape[2:]), 2):
            dilation = op.attrs.get("dilations", (1,) * len(kernel))[axis - 2]
            found = np.unique(np.arange(out)[:, None] * stride - pad + np.arange(taps) * dilation)
            indices[axis] = found[(found >= 0) & (found < value.shape[axis])]
        return indices
    if op.name == "resize":
        for axis, position in Resize.axes(op):
            if op.attrs["mode"] == "nearest":
                indices[axis] = np.unique(nearest_index(position, value.shape[axis], op.attrs["nearest"]))
            else:
                indices[axis] = np.unique(np.concatenate(linear_taps(position, value.shape[axis])[:2]))
        return indices
    return None


def segment_bounds(machine: Machine, layers: list[Layer], segment: Segment) -> dict[str, Any]:
    """LB0, LBgeo, their terms in cycles, MACs and the least DRAM traffic in bytes."""
    costs = Costs(machine)
    peak = math.prod(machine.integer(f"mma.shape.{i}") for i in range(3)) * machine.integer("machine.cores")
    macs, mac_cycles, geometric, vector, weights = 0, 0.0, 0.0, 0, 0.0
    # What is computed again (`gadl.passes.plan.recompute`) is necessary once.
    necessary = {(layer.op.name, *map(id, layer.op.operands)): layer for layer in reversed(layers)}
    for layer in reversed(necessary.values()):
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
        weights += least_bytes(machine, layer)
    tensors = sum(read_bytes(v, segment) for v in segment.inputs) + sum(v.type.size_bytes for v in segment.outputs)
    traffic = math.floor(weights) + tensors
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


def streaming(machine: Machine) -> Streaming:
    """The machine as recomputation sees it."""
    costs, cores = Costs(machine), machine.integer("machine.cores")

    def cycles(op: Op) -> float:
        dtype = op.inputs[0].dtype
        windows = windows_of(Layer(0, op, None, (0,)))
        return sum(times * w.batch * costs.mma(w, w.oh, w.ow, w.oc, dtype) for w, times in windows) / cores

    return Streaming(machine.sram_bytes * cores, machine["dram.bytes_per_cycle"] * machine["dram.eff"], cycles)


def _rate_key(dtype: DType) -> str:
    return {DType.I16: "i16w8", DType.F16: "f16", DType.BF16: "bf16"}.get(dtype, "i8")


def systolic_total(machine: Machine, layers: list[tuple[int, int, int]]) -> int:
    """Cycles of a network of products (M, N, K) on a systolic preset without stalls: the sum of folds, minus one each."""
    native = _sim.Machine(list(machine.values))
    return sum(int(_sim.conv_cycles(native, m, n, k, 1, 1, int(TYPES[DType.I8]))) - 1 for m, n, k in layers)
