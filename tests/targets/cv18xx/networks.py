# SPDX-License-Identifier: Apache-2.0
"""Random small networks for the chips, quantised and placed; programs of their segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret_values
from gadl.compiler.ir.opdef import Builder
from gadl.passes.layout.choose_layouts import choose_layouts
from gadl.passes.pipeline import float_pipeline
from gadl.passes.plan.partition import partition
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.quantize import Precision, quantize_graph, rules_for
from gadl.targets.base import DeviceProgram, Segment, segments_of
from gadl.targets.cv18xx.cvimodel import SectionKind, decode
from gadl.targets.cv18xx.descriptor import Command
from gadl.targets.cv18xx.target import TARGETS

from ..graphs import KINDS, grow
from ..npu.programs import float_graph, random
from . import vendor

BY_NAME = {target.name: target for target in TARGETS}
#: Kinds of layers beside those of `graphs.KINDS`.
MORE = ("relu", "sigmoid", "larger", "smaller", "difference", "grouped", "long", "padded", "columns", "flat", "turned", "spread", "sized", "largest", "scores", "framed", "odd", "strided")  # fmt: skip
ALL = (*KINDS, *MORE)


def grow_more(graph: Graph, b: Builder, rng: np.random.Generator, values: list[Value], kind: str) -> Value:
    """One more layer on the newest value."""
    x = values[-1]
    if x.type.rank != 4:
        return b("sigmoid", x)
    channels, height, width = x.shape[1:]
    plain = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    alike = [v for v in values[:-1] if v.shape == x.shape]
    match kind:
        case "relu":
            return b("relu", x)
        case "sigmoid":
            return b("sigmoid", x)
        case "larger" | "smaller" if alike:
            return b({"larger": "max", "smaller": "min"}[kind], x, alike[-1])
        case "difference" if alike:
            return b("sub", b("sigmoid", x), alike[-1])
        case "grouped" if channels % 2 == 0:
            return b("conv", x, random(graph, rng, 12, channels // 2, 3, 3), None, groups=2, **{**plain, "pads": (1, 1, 1, 1)})
        case "long":  # a depthwise kernel whose padding exceeds the instruction's
            wide = {**plain, "pads": (0, 20, 0, 20), "dilations": (1, 2)}
            return b("conv", x, random(graph, rng, channels, 1, 1, 21), random(graph, rng, channels), groups=channels, **wide)
        case "padded":
            return b("conv", x, random(graph, rng, 9, channels, 5, 3), random(graph, rng, 9), **{**plain, "pads": (3, 0, 1, 2)})
        case "framed":  # windows that see nothing but padding
            return b("conv", x, random(graph, rng, 10, channels, 1, 1), random(graph, rng, 10), **{**plain, "pads": (1, 2, 1, 2)})
        case "odd" if min(height, width) > 6:  # rows and columns behind the last window
            return b("max_pool", x, kernel=(2, 2), strides=(3, 3), pads=(0, 0, 0, 0), dilations=(1, 1))
        case "strided" if min(height, width) > 6:
            return b("conv", x, random(graph, rng, 13, channels, 2, 1), random(graph, rng, 13), **{**plain, "strides": (3, 3)})
        case "columns" if width > 4:
            return b("max_pool", x, kernel=(1, 2), strides=(1, 2), pads=(0, 0, 0, 0), dilations=(1, 1))
        case "flat" if height * width < 512:
            return b("reshape", x, shape=(1, channels, height * width, 1))
        case "turned":
            return b("transpose", x, perm=(0, 1, 3, 2))
        case "spread" if height < 20:
            depthwise = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "output_padding": (0, 0), "groups": channels}
            return b("conv_transpose", x, random(graph, rng, channels, 1, 4, 4), None, **depthwise)
        case "sized":
            return b("pad", x, pads=(0, 0, 1, 2, 0, 0, 0, 1), mode="constant", value=0.0)
        case "largest":
            return b("reduce_max", x, axes=(2, 3), keepdims=True)
        case "scores":
            pooled = b("reshape", b("reduce_mean", x, axes=(2, 3), keepdims=True), shape=(1, channels))
            return b("linear", pooled, random(graph, rng, 37, channels), random(graph, rng, 37))
        case _:
            return b("conv", x, random(graph, rng, 11, channels, 1, 1), random(graph, rng, 11), **plain)


def network(kinds: Sequence[str], height: int, width: int = 9, channels: int = 6) -> Graph:
    """Layers of these kinds, one after another."""
    graph, b, x = float_graph(1, channels, height, width)
    rng, values = np.random.default_rng(0), [x]
    for kind in kinds:
        make = grow if kind in KINDS and values[-1].type.rank == 4 else grow_more
        values.append(make(graph, b, rng, values, kind))
    graph.set_outputs([values[-1]])
    return graph


def feeds_of(graph: Graph, count: int = 2) -> list[dict[str, np.ndarray]]:
    """Random inputs."""
    return [{v.name: np.random.default_rng(i).standard_normal(v.shape).astype(np.float32) for v in graph.inputs} for i in range(count)]


def placed(graph: Graph, chip: str) -> Graph:
    """Simplified, calibrated, quantised and placed for a chip, as the compiler does it."""
    target = BY_NAME[chip]
    machine = target.load_machine(chip)
    for item in float_pipeline(target.residuals(machine)):
        item.run(graph)
    made = quantize_graph(graph, calibrate(graph, feeds_of(graph)), rules_for(target.quant_rules(machine), Precision.INT8)).graph
    partition(made, chip, lambda op: reason.en if (reason := target.refuse(op, machine)) else None)
    choose_layouts(made, target.channels_last)
    return made


def segments(graph: Graph) -> list[Segment]:
    """Those of a placed graph."""
    return segments_of(graph.ops, graph.outputs)


def commands(program: DeviceProgram) -> list[Command]:
    """The stream of a program."""
    model = decode(program.code)
    (section,) = (index for index, section in enumerate(model.model.sections) if section.kind == SectionKind.COMMANDS)
    return model.commands(section)


def require_equal(graph: Graph, segment: Segment, program: DeviceProgram, scratch: Path) -> None:
    """The functional model gives the interpreter's bytes."""
    values = interpret_values(graph, feeds_of(graph, 1)[0])
    given = {v.name: np.ascontiguousarray(values[v.name]) for v in segment.inputs}
    got = vendor.run(decode(program.code), given, scratch)
    for value in segment.outputs:
        np.testing.assert_array_equal(got[value.name].reshape(value.shape), values[value.name], err_msg=value.name)
