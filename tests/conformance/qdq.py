# SPDX-License-Identifier: Apache-2.0
"""ONNX models of one op between quantise/dequantise pairs, with scales of their own; ONNX Runtime's answer and ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import gadl
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.passes import PassManager
from gadl.compiler.ir.types import Array, Rounding
from gadl.frontends.onnx import import_onnx
from gadl.passes.pipeline import FLOAT_PIPELINE
from gadl.passes.quant.quantize import quantize_annotated
from gadl.runtime.session import Session
from gadl.targets.npu.quant_rules import QUANT_RULES

from .device import run_artifact

F32 = np.float32


@dataclass
class Qdq:
    """Builds one model.

    `activation`: np.int8 or np.uint8. `symmetric`: the zero point is the middle of the type. `powers`: scales are powers of
    two, so that float arithmetic is exact and many results end in one half.
    """

    rng: np.random.Generator
    activation: Any
    symmetric: bool
    powers: bool = False
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scales: list[np.float32] = field(default_factory=list)

    def const(self, data: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def node(self, op: str, *operands: str, outputs: int = 1, **attrs: Any) -> str:
        names = [f"n{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(operands), names, **attrs))
        return names[0]

    def pair(self, source: str, scale: np.float32, zero: int) -> str:
        parameters = self.const(scale), self.const(self.activation(zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", source, *parameters), *parameters)

    def scale(self, values: Any) -> Any:
        """Scales as this model has them."""
        return np.asarray(2.0 ** np.rint(np.log2(values)) if self.powers else values).astype(F32)[()]

    def zero(self) -> int:
        middle = 128 if self.activation is np.uint8 else 0
        return middle if self.symmetric else middle + int(self.rng.integers(-60, 60))

    def input(self, *shape: int) -> str:
        """An activation of the model with a scale that its noise overflows now and then."""
        name = f"x{len(self.shapes)}"
        self.shapes[name] = shape
        self.scales.append(self.scale(self.rng.uniform(0.02, 0.05)))
        return self.pair(name, self.scales[-1], self.zero())

    def weights(self, *shape: int, axis: int = 0) -> str:
        """int8 with one scale per index of `axis`; seven bits, which every ONNX Runtime kernel adds without saturation."""
        scales = self.scale(self.rng.uniform(0.002, 0.02, shape[axis]))
        data = self.rng.integers(-64, 65, shape).astype(np.int8)
        self.weight_scales = scales
        zeros = self.const(np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", self.const(data), self.const(scales), zeros, axis=axis)

    def bias(self) -> str:
        """int32 with the scale of the sum."""
        count = len(self.weight_scales)
        held = self.const(self.rng.integers(-3000, 3000, count).astype(np.int32))
        scales = self.const((self.scales[0] * self.weight_scales).astype(F32))
        return self.node("DequantizeLinear", held, scales, self.const(np.zeros(count, np.int32)), axis=0)

    def model(self, last: str) -> Any:
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.shapes.items()]
        outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "qdq", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


Build = Callable[[Qdq], str]


@dataclass(frozen=True)
class Comparison:
    """A model's results in steps of its output's scale: ours minus ONNX Runtime's, and whether the op ran as integers."""

    off: Array
    float_ops: list[Any]
    values: int
    device: set[str]


def run_onnxruntime(model: Any, feeds: dict[str, Array], fused: bool) -> Array:
    """The first output: every node as written (dequantise, compute in float, quantise), or `fused` into integer kernels."""
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else level.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def compare(made: Qdq, build: Build, rounding: Rounding, *, fused: bool = False, same_scale: bool = False) -> Comparison:
    """Build, run in both, subtract. `same_scale`: the result has the first operand's scale, as ops that move data want it."""
    last, rng = build(made), made.rng
    feeds = {n: rng.normal(0, 1.5, s).astype(F32) for n, s in made.shapes.items()}
    if same_scale:
        first = next(n for n in made.nodes if n.op_type == "QuantizeLinear")
        held = {c.name: numpy_helper.to_array(c) for c in made.constants}
        scale, zero = held[first.input[1]][()], int(held[first.input[2]])
    else:
        scale, zero = result_scale(made, run_onnxruntime(made.model(last), feeds, False))
    model = made.model(made.pair(last, scale, zero))
    reference = run_onnxruntime(model, feeds, fused)
    ours, float_ops, device = run_ours(model, feeds, rounding)
    off = np.rint((ours - reference) / scale).astype(int)
    return Comparison(off, float_ops, len(np.unique(reference)), device)


def result_scale(made: Qdq, real: Array) -> tuple[np.float32, int]:
    """A scale and a zero point for these results, some of which are cut off."""
    info = np.iinfo(made.activation)
    low, high = min(0.0, float(real.min())), max(0.0, float(real.max()))
    if made.symmetric:
        low, high = -max(-low, high), max(-low, high)
    scale = made.scale((high - low) / 255 * made.rng.uniform(0.8, 1.0))
    zero = made.zero() if made.symmetric else int(np.clip(np.rint(info.min - low / scale), info.min, info.max))
    return scale, zero


def run_ours(model: Any, feeds: dict[str, Array], rounding: Rounding) -> tuple[Array, list[Any], set[str]]:
    """The model on the simulated device: as the compiler does it, or with another rounding than the target's."""
    if rounding is QUANT_RULES.rounding:
        artifact = gadl.compile(model, target="npu", machine="edge", simplify=False)
        assert artifact.report["self_check"]["equal"], "simulator and interpreter differ"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.gadl"
            artifact.save(path)
            (found,) = Session(path).run(feeds).values()
        (wanted,) = interpret(artifact.graph, feeds).values()
        device = {op.name for op in artifact.graph.ops if op.placement is not None and op.placement.segment is not None}
        float_ops = artifact.report["quant"]["float_ops"]
    else:
        graph = import_onnx(model, simplify=False)
        PassManager().run(graph, FLOAT_PIPELINE)
        quantised = quantize_annotated(graph, replace(QUANT_RULES, rounding=rounding))
        (wanted,) = interpret(quantised.graph, feeds).values()
        results, device = run_artifact(quantised.graph, feeds)
        (found,) = results.values()
        float_ops = list(quantised.report["float_ops"])
    np.testing.assert_array_equal(found, wanted, "simulator and interpreter differ")
    return found, float_ops, device
