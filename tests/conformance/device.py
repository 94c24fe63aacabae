# SPDX-License-Identifier: Apache-2.0
"""Quantised graphs of a few ops: the interpreter's result, and the compiled artefact's on the simulated device."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.artifact.format import Feature
from gadl.compiler.assemble import Assembler, pack_golden
from gadl.compiler.ir.graph import Graph, Stage, Value
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder, op_def
from gadl.compiler.ir.types import Array, DType, QuantParams, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.layout.choose_layouts import choose_layouts
from gadl.passes.plan.partition import partition
from gadl.runtime.session import Session
from gadl.targets.base import segments_of
from gadl.targets.npu.machine import load_machine
from gadl.targets.npu.target import TARGET

EDGE = load_machine("edge")
MANIFEST = {"schema_version": 1, "target": "npu", "machine": "edge", "driver": "sim", "raw_outputs": {}}


class Quantised:
    """Builds one quantised graph and its inputs. Scales do not enter integer arithmetic, so they are all alike."""

    def __init__(self) -> None:
        self.graph = Graph("conformance", Stage.QUANTIZED)
        self.feeds: dict[str, Array] = {}
        self.build = Builder(self.graph)

    def input(self, data: Array, zero: int = 0) -> Value:
        """An activation with its data."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = data
        quant = QuantParams((0.1,), zero) if data.dtype in (np.int8, np.int16) else None
        return self.graph.add_input(name, TensorType(DType.of(data.dtype), data.shape, quant))

    def const(self, data: Array) -> Value:
        """Weights, a bias or indices."""
        return self.graph.constant(data, "c")

    def __call__(self, op: str, *operands: Value | None, dtype: DType = DType.I8, zero: int = 0, **attrs: Any) -> Value:
        """One op in its integer form."""
        held = list(operands)
        while held and held[-1] is None:
            held.pop()
        (inferred, *_) = op_def(op).infer([None if v is None else v.type for v in held], op_def(op).complete(attrs))
        quant = QuantParams((0.1,), zero) if dtype in (DType.I8, DType.I16) else None
        return self.build(op, *held, type=TensorType(dtype, inferred.shape, quant), **attrs)

    def plain(self, op: str, *operands: Value | None, **attrs: Any) -> Value:
        """One op whose result type is the inferred one."""
        return self.build(op, *operands, **attrs)


def run_both(model: Quantised, result: Value) -> tuple[Array, Array, set[str]]:
    """The interpreter's array, the artefact's array, and the names of the ops that ran on the device."""
    graph = model.graph
    graph.set_outputs([result], ["y"])
    verify(graph)
    wanted = interpret(graph, model.feeds)["y"]
    found, device = run_artifact(graph, model.feeds)
    return wanted, found["y"], device


def run_artifact(graph: Graph, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], set[str]]:
    """Place, compile, write and run a quantised graph: device segments on the simulator, the rest on the host kernels."""
    partition(graph, "npu", lambda op: reason.en if (reason := TARGET.refuse(op, EDGE)) else None)
    choose_layouts(graph, TARGET.channels_last)
    segments = segments_of(graph.ops, graph.outputs)
    backend = TARGET.backend
    assert backend is not None
    programs = [backend(EDGE).compile(segment) for segment in segments]
    flags = Feature.NPU if programs else Feature.NONE
    built = Assembler(graph, segments, programs, False).build(dict(MANIFEST), pack_golden({}, {}), flags)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.gadl"
        path.write_bytes(built.to_bytes())
        got = Session(path).run(feeds)
    return got, {op.name for op in graph.ops if op.placement is not None and op.placement.segment is not None}
