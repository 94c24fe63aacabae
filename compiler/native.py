# SPDX-License-Identifier: Apache-2.0
"""A model in its target's own container, without the artefact around it: where the device does everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.targets.base import DeviceProgram, Segment, Target

#: What stays with the application: its numbers are real, the container's are integers with a scale.
_BORDER = ("quantize", "dequantize")


def is_native(path: Path, target: Target) -> bool:
    """True for files that are named like the target's own containers."""
    return bool(target.native_suffix) and path.suffix == target.native_suffix


def native_container(target: Target, graph: Graph, segments: Sequence[Segment], programs: Sequence[DeviceProgram], name: str) -> bytes:
    """The container, its tensors named as the model's; `GADL-A014` where ops are left to the host."""
    host = [op for op in graph.ops if (op.placement is None or op.placement.segment is None) and op.name not in _BORDER]
    if host or len(programs) != 1 or target.rename is None:
        names = ", ".join(f"{op.name} '{op.result.name}'" for op in host[:4]) or f"{len(programs)} parts on the device"
        raise GadlError.of("GADL-A014", suffix=target.native_suffix, detail=names)
    (segment,), (program,) = segments, programs
    outputs = dict(zip(map(id, graph.outputs), graph.output_names))
    inputs = [_source(value).name for value in segment.inputs]
    return target.rename(program.code, inputs, [_returned(value, outputs) for value in segment.outputs], name)


def _source(value: Value) -> Value:
    """The model's input behind a segment's."""
    producer: Op | None = value.producer
    return producer.inputs[0] if producer is not None and producer.name == "quantize" else value


def _returned(value: Value, outputs: dict[int, str]) -> str:
    """The name of the model's output that a segment's becomes."""
    for user in value.users:
        if user.name == "dequantize" and id(user.result) in outputs:
            return outputs[id(user.result)]
    return outputs.get(id(value), value.name)
