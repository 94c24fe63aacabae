# SPDX-License-Identifier: Apache-2.0
"""What no schedule of a segment avoids: every layer in one instruction, and what has to pass DDR once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.spans import Span
from gadl.targets.base import Segment
from gadl.targets.profile import LayerFacts

from .chip import Chip
from .expand.context import Trial
from .expand.group import kernel_of
from .expand.kernel import shape_or_raise
from .expand.resize import is_magnified
from .layers import PRODUCTS, Layer, macs_of, row_reads


@dataclass(frozen=True)
class Least:
    """Of one layer: cycles of the compute unit, and bytes of DDR."""

    cycles: int
    bytes: int


def least_of(layers: Sequence[Layer], segment: Segment, chip: Chip) -> list[Least]:
    """Of every layer; inputs count where they are read first, outputs where they are made."""
    trial = Trial(chip, 1.0)
    returned, seen = {id(v) for v in segment.outputs}, set[int]()
    given = {id(v) for v in segment.inputs}
    found = []
    for layer in layers:
        moved = sum(v.type.size_bytes for v in layer.op.inputs if v.is_constant)
        if layer.op.name in ("conv", "conv_transpose"):
            moved += 5 * shape_or_raise(layer.result).c
        for value in layer.op.inputs:
            if id(value) in given and id(value) not in seen:
                seen.add(id(value))
                moved += value.type.size_bytes
        moved += layer.result.type.size_bytes if id(layer.result) in returned else 0
        found.append(Least(_cycles(trial, layer), moved))
    return found


def _cycles(trial: Trial, layer: Layer) -> int:
    """Of a layer in one iteration with everything in local memory, however large."""
    reads = row_reads(layer)
    if reads is None or is_magnified(layer.op):
        chip = trial.chip
        return int(macs_of(layer.op) / chip.macs_per_cycle * 2) if layer.op.name in PRODUCTS else 0

    def whole(value: Value) -> Any:
        shape = shape_or_raise(value)
        return trial.tile(value, shape.n, shape.c, Span(0, shape.h), shape.w)

    sources, target = {id(v): whole(v) for v, _ in reads}, whole(layer.result)
    trial.clear()
    kernel_of(trial, layer, LayerPlan(layer.ops)).rows(target.rows, sources, target)
    cycles = trial.cycles
    trial.clear()
    return cycles


def segment_bounds(least: Sequence[Least], layers: Sequence[Layer], bytes_per_cycle: float) -> Mapping[str, float]:
    """Sums over a segment, as reports want them."""
    cycles, moved = sum(one.cycles for one in least), sum(one.bytes for one in least)
    bound = max(float(cycles), moved / bytes_per_cycle)
    return {"macs": sum(macs_of(layer.op) for layer in layers), "lb0_cycles": bound, "lbgeo_cycles": bound, "dram_bound_bytes": moved}


def layer_facts(least: Sequence[Least], layers: Sequence[Layer], bytes_per_cycle: float) -> list[LayerFacts]:
    """Rows for reports."""
    found = []
    for one, layer in zip(least, layers, strict=True):
        on_array = layer.op.name in (*PRODUCTS, "conv", "conv_transpose")
        bound = {"array": float(one.cycles if on_array else 0), "vector": float(0 if on_array else one.cycles), "dram": one.bytes / bytes_per_cycle}
        shape = tuple(layer.result.shape)
        found.append(LayerFacts(layer.name, layer.op.name, str(layer.op.loc), shape, macs_of(layer.op), bound))
    return found
