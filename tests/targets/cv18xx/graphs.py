# SPDX-License-Identifier: Apache-2.0
"""Quantised graphs for the chip, and what the functional model makes of their segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret_values
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.passes.pipeline import float_pipeline
from gadl.passes.plan.partition import partition
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.quantize import Precision, quantize_graph, rules_for
from gadl.targets.base import Segment, segments_of
from gadl.targets.cv18xx.backend import CviBackend
from gadl.targets.cv18xx.chip import Chip
from gadl.targets.cv18xx.cvimodel import CviModel, decode
from gadl.targets.cv18xx.target import TARGETS

from .vendor import run


def float_graph(*shapes: tuple[int, ...]) -> tuple[Graph, Builder, list[Value]]:
    """A graph with inputs."""
    graph = Graph("test")
    values = [graph.add_input(f"x{i}", TensorType(DType.F32, shape)) for i, shape in enumerate(shapes)]
    return graph, Builder(graph), values


def placed(graph: Graph, feeds: Sequence[dict[str, np.ndarray]], chip: Chip, without: Sequence[str] = ()) -> Graph:
    """Simplified (`without` some passes), quantised and placed."""
    (target,) = (t for t in TARGETS if t.name == chip.name)
    assert target.quant_rules is not None
    for item in float_pipeline(target.residuals(chip), target.quant_rules(chip).decomposed):
        if item.name not in without:
            item.run(graph)
    made = quantize_graph(graph, calibrate(graph, feeds), rules_for(target.quant_rules(chip), Precision.INT8)).graph
    partition(made, chip.name, lambda op: reason.en if (reason := target.refuse(op, chip)) else None)
    return made


def feeds_of(graph: Graph, seed: int, count: int = 3) -> list[dict[str, np.ndarray]]:
    """Random numbers for every input."""
    rng = np.random.default_rng(seed)
    return [{v.name: rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs} for _ in range(count)]


def only_segment(graph: Graph) -> Segment:
    """The one program that holds all but the conversions of inputs and outputs."""
    (segment,) = segments_of(graph.ops, set(graph.outputs))
    host = [op.name for op in graph.ops if op.placement is None or op.placement.segment is None]
    assert set(host) <= {"quantize", "dequantize"}, [(op.name, op.placement) for op in graph.ops]
    return segment


def compiled(segment: Segment, chip: Chip, groups: bool = True) -> CviModel:
    """The container of a segment."""
    return decode(CviBackend(chip).compile(segment, groups=groups).code)


def assert_equal_on_the_model(graph: Graph, feed: dict[str, np.ndarray], chip: Chip, scratch: Path) -> None:
    """The functional model's outputs are the interpreter's, byte for byte."""
    segment = only_segment(graph)
    values = interpret_values(graph, feed)
    # A container's ports have four axes at most: the first ones of more are one.
    given = {v.name: values[v.name] for v in segment.inputs}
    given = {name: data.reshape(-1, *data.shape[-3:]) if data.ndim > 4 else data for name, data in given.items()}
    results = run(compiled(segment, chip), given, scratch)
    for value in segment.outputs:
        expected = values[value.name]
        assert len(np.unique(expected)) > 20, "too few different numbers to tell"
        np.testing.assert_array_equal(results[value.name].reshape(expected.shape), expected, err_msg=value.name)
