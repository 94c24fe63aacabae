# SPDX-License-Identifier: Apache-2.0
"""Small programs and quantised graphs for the simulator's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret_values
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.layout.choose_layouts import choose_layouts
from gadl.passes.pipeline import FLOAT_PIPELINE
from gadl.passes.plan.partition import partition
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.quantize import Precision, quantize_graph, rules_for, to_half
from gadl.targets.base import Segment, segments_of
from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Container
from gadl.targets.npu.instruction import encode
from gadl.targets.npu.machine import Machine, load_machine
from gadl.targets.npu.target import TARGET

EDGE = load_machine("edge")


def container(text: str, regions: dict[int, int], machine: Machine = EDGE, constants: bytes = b"") -> bytes:
    """A program of one core from assembler text."""
    return Container(machine, [encode(assemble(text))], constants, regions, [], []).to_bytes()


def simulate(text: str, regions: dict[int, np.ndarray], **options: bool) -> dict[str, Any]:
    """Run assembler text on the given memory."""
    return _sim.simulate(container(text, {k: v.nbytes for k, v in regions.items()}), regions, **options)


def float_graph(*shape: int) -> tuple[Graph, Builder, Value]:
    """A graph with one input."""
    graph = Graph("test")
    return graph, Builder(graph), graph.add_input("x", TensorType(DType.F32, shape))


def random(graph: Graph, rng: np.random.Generator, *shape: int) -> Value:
    """A constant of small random numbers."""
    return graph.constant((rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32), "w")


def placed(
    graph: Graph, feeds: Sequence[dict[str, np.ndarray]], precision: Precision = Precision.INT8, machine: Machine = EDGE,
    without: Sequence[str] = (), attention_keys: int = 0,
) -> Graph:  # fmt: skip
    """Simplified (`without` some passes), quantised, placed and laid out for the NPU; `attention_keys` other than the target's."""
    for item in FLOAT_PIPELINE:
        if item.name not in without:
            item.run(graph)
    if precision is Precision.FP16:
        made = to_half(graph)
    else:
        rules = rules_for(TARGET.quant_rules(machine), precision)
        rules = replace(rules, attention_keys=attention_keys or rules.attention_keys)
        made = quantize_graph(graph, calibrate(graph, feeds), rules).graph
    partition(made, "npu", lambda op: reason.en if (reason := TARGET.refuse(op, machine)) else None)
    choose_layouts(made, TARGET.channels_last)
    return made


def memory(value: Value, array: np.ndarray) -> bytes:
    """A tensor's bytes in its memory layout."""
    return np.ascontiguousarray(array.transpose(value.layout.permutation(value.type.rank))).tobytes()


def region(values: Sequence[Value], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Tensors one after another, as the backend lays out inputs and outputs."""
    out = bytearray()
    for value in values:
        out += memory(value, arrays[value.name])
        out += b"\0" * (-len(out) % 64)
    return np.frombuffer(bytes(out), np.uint8).copy()


def run_segments(graph: Graph, feeds: dict[str, np.ndarray], machine: Machine = EDGE, plan: Any = None) -> list[tuple[Segment, dict[str, Any]]]:
    """Simulate every segment on the interpreter's inputs and require the interpreter's bytes; returns the reports."""
    values = interpret_values(graph, feeds)
    reports = []
    for segment in segments_of(graph.ops, graph.outputs):
        program = TARGET.backend(machine).compile(segment) if plan is None else TARGET.backend(machine).compile(segment, plan)
        want = region(segment.outputs, values)
        got = np.zeros_like(want)
        scratch = np.zeros(program.report["scratch_bytes"] + 64, np.uint8)
        report = _sim.simulate(program.code, {1: region(segment.inputs, values), 2: got, 3: scratch})
        np.testing.assert_array_equal(got, want)
        assert report["cycles"] >= program.report["lb0_cycles"]
        reports.append((segment, {**program.report, **report}))
    return reports
