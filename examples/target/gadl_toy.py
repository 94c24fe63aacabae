# SPDX-License-Identifier: Apache-2.0
"""The smallest target with a device: it adds and rectifies floats. Its programs are artefacts for the `host` driver."""

from __future__ import annotations

from typing import Any

from gadl.compiler.artifact.format import ALIGNMENT, Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, HostStep, TensorRecord
from gadl.compiler.diag.catalog import Text
from gadl.compiler.ir.graph import Op
from gadl.compiler.ir.types import DType
from gadl.targets.base import ConstraintTable, DeviceProgram, Segment, Target

constraint = CONSTRAINTS = ConstraintTable()


@constraint()
def float_only(op: Op, machine: None) -> bool:
    """the device computes on f32
    设备只计算 f32 张量"""
    return op.result.dtype is DType.F32


@constraint("add")
def no_constants(op: Op, machine: None) -> bool:
    """both operands of a sum come from the model, not from its weights
    加法的两个操作数都不能是常量"""
    return not any(value.is_constant for value in op.inputs)


class ToyBackend:
    """One program step per op; every tensor has memory of its own."""

    def __init__(self, machine: Any) -> None: ...

    def compile(self, segment: Segment, *, groups: bool = True) -> DeviceProgram:
        """Lay out the tensors, then write the steps."""
        program = ArtifactBuilder({})
        number: dict[int, int] = {}
        for value in (*segment.inputs, *(op.result for op in segment.ops)):
            number[id(value)] = len(program.tensors)
            program.tensors.append(TensorRecord(value.name, value.dtype.value, value.shape, Storage.ARENA, program.arena_bytes))
            program.arena_bytes += -(-value.type.size_bytes // ALIGNMENT) * ALIGNMENT
        for op in segment.ops:
            program.steps.append(HostStep(op.name, tuple(number[id(v)] for v in op.inputs), (number[id(op.result)],), dict(op.attrs)))
        program.inputs = [(v.name, number[id(v)]) for v in segment.inputs]
        program.outputs = [(v.name, number[id(v)]) for v in segment.outputs]
        return DeviceProgram(program.to_bytes(), plan="", report={"steps": len(program.steps)})


TARGET = Target(
    name="toy",
    summary=Text("an example: sums and rectifiers on this processor", "示例：在本机处理器上做加法与 ReLU"),
    status=Text("runs natively", "本机运行"),
    driver="host",
    device_ops=frozenset({"add", "relu"}),
    constraints=CONSTRAINTS,
    backend=ToyBackend,
)
