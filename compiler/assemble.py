# SPDX-License-Identifier: Apache-2.0
"""Assembly: a placed graph and its device programs become an artefact."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gadl.compiler.artifact.format import ALIGNMENT, Feature, Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, AttrValue, HostStep, RequantValue, SegmentStep, TensorRecord
from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.printer import print_graph
from gadl.compiler.ir.types import Array, DType, Layout, Requant
from gadl.passes.memory.allocate import Reuse, allocate
from gadl.passes.plan.program import Buffer, Program, Region, Step
from gadl.targets.base import DeviceProgram, Segment

#: Bytes of host memory that a schedule may use.
MOST_ARENA = 1 << 34


class Assembler:
    """Lays out host memory and writes the schedule.

    `keep_tensors`: every tensor keeps its own memory, so that all can be read after a run.
    """

    def __init__(self, graph: Graph, segments: Sequence[Segment], programs: Sequence[DeviceProgram], keep_tensors: bool) -> None:
        self.graph, self.segments, self.programs, self.keep = graph, segments, programs, keep_tensors
        self.numbers: dict[int, int] = {}

    def build(self, manifest: dict[str, Any], golden: bytes, features: Feature) -> ArtifactBuilder:
        """The artefact, ready to be written."""
        builder = ArtifactBuilder(manifest, golden=golden, features=features)
        schedule = self._schedule()
        buffers = self._allocate(schedule)
        builder.arena_bytes = max((b.address or 0) + b.size for b in buffers.values()) if buffers else 0
        for value in self.graph.inputs:
            builder.inputs.append((value.name, self._tensor(builder, value, buffers)))
        for item in schedule:
            reads, writes = _reads(item), _writes(item)
            operands = tuple(None if v is None else self._tensor(builder, v, buffers) for v in reads)
            results = tuple(self._tensor(builder, v, buffers) for v in writes)
            if isinstance(item, Segment):
                builder.steps.append(SegmentStep(item.index, tuple(n for n in operands if n is not None), results))
            else:
                builder.steps.append(HostStep(item.name, operands, results, _attrs(item)))
        for name, value in zip(self.graph.output_names, self.graph.outputs):
            builder.outputs.append((name, self._tensor(builder, value, buffers)))
        builder.programs = [p.code for p in self.programs]
        builder.plans = [p.plan for p in self.programs]
        builder.debug = {"graph": print_graph(self.graph)} if self.keep else {}
        builder.debug |= {"segments": [[list(row) for row in p.debug] for p in self.programs]}
        return builder

    def _schedule(self) -> list[Op | Segment]:
        """Host ops and segments in execution order."""
        found: list[Op | Segment] = []
        started: set[int] = set()
        for op in self.graph.ops:
            index = op.placement.segment if op.placement is not None else None
            if index is None:
                found.append(op)
            elif index not in started:
                started.add(index)
                found.append(self.segments[index])
        return found

    def _allocate(self, schedule: list[Op | Segment]) -> dict[int, Buffer]:
        """Host memory of every tensor that is not a constant."""
        program = Program()
        buffers: dict[int, Buffer] = {}

        def region(value: Value) -> Region:
            if id(value) not in buffers:
                size = -(-max(1, value.type.size_bytes) // ALIGNMENT) * ALIGNMENT
                buffers[id(value)] = program.buffer("host", size, value.name, ALIGNMENT)
            return Region(buffers[id(value)], 0, value.type.size_bytes)

        inputs = tuple(region(v) for v in self.graph.inputs)
        program.steps.append(Step("host", "inputs", {}, (), inputs, 0))
        for item in schedule:
            reads = tuple(region(v) for v in _reads(item) if v is not None and v.data is None)
            program.steps.append(Step("host", "step", {}, reads, tuple(region(v) for v in _writes(item)), 0))
        # Inputs stay readable to the end: a caller may run again without writing them anew. So do the integers behind outputs.
        behind = raw_outputs(self.graph).values()
        kept = [region(v) for v in (*self.graph.inputs, *self.graph.outputs, *behind) if v.data is None]
        if self.keep:
            kept = [Region(b, 0, b.size) for b in buffers.values()]
        program.steps.append(Step("host", "outputs", {}, tuple(kept), (), 0))
        allocate(program, "host", MOST_ARENA, Reuse.LOWEST)
        return buffers

    def _tensor(self, builder: ArtifactBuilder, value: Value, buffers: Mapping[int, Buffer]) -> int:
        """The number of a tensor's record, made on first use."""
        if id(value) in self.numbers:
            return self.numbers[id(value)]
        quant = value.quant
        if value.data is not None:
            storage, offset = Storage.WEIGHTS, builder.add_weights(np.ascontiguousarray(value.data).tobytes())
        else:
            storage, offset = Storage.ARENA, buffers[id(value)].address or 0
        self.numbers[id(value)] = len(builder.tensors)
        builder.tensors.append(
            TensorRecord(
                value.name, value.dtype.value, value.shape, storage, offset, value.layout.value,
                () if quant is None else quant.scale, 0 if quant is None else quant.zero_point,
                -1 if quant is None or quant.axis is None else quant.axis,
            )  # fmt: skip
        )
        return self.numbers[id(value)]


def raw_outputs(graph: Graph) -> dict[str, Value]:
    """The quantised value behind each output that is dequantised last, by the output's name."""
    pairs = zip(graph.output_names, graph.outputs)
    return {n: v.producer.inputs[0] for n, v in pairs if v.producer is not None and v.producer.name == "dequantize"}


def _reads(item: Op | Segment) -> list[Value | None]:
    return list(item.inputs) if isinstance(item, Segment) else list(item.operands)


def _writes(item: Op | Segment) -> list[Value]:
    return list(item.outputs) if isinstance(item, Segment) else list(item.results)


def _attrs(op: Op) -> dict[str, AttrValue]:
    return {name: _attr(value) for name, value in op.attrs.items()}


def _attr(value: Any) -> AttrValue:
    if isinstance(value, Requant):
        return (_requant(value),)
    if isinstance(value, tuple) and value and isinstance(value[0], Requant):
        return tuple(_requant(v) for v in value)
    if isinstance(value, (DType, Layout)):
        return str(value.value)
    if isinstance(value, tuple) and any(isinstance(v, float) for v in value):
        return tuple(float(v) for v in value)
    result: AttrValue = value
    return result


def _requant(value: Requant) -> RequantValue:
    return RequantValue(value.rounding.value, value.multiplier, value.shift)


def pack_golden(feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> bytes:
    """One input/output pair as an uncompressed npz with fixed time stamps (numpy's), so that equal pairs are equal bytes."""
    buffer = io.BytesIO()
    arrays = {f"input/{n}": a for n, a in feeds.items()} | {f"output/{n}": a for n, a in outputs.items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
