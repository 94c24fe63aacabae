# SPDX-License-Identifier: Apache-2.0
"""Trained models: quality of integer graphs, and equality with ONNX Runtime on files of its own quantiser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.passes import PassManager
from gadl.compiler.ir.verify import verify
from gadl.frontends.onnx import import_onnx
from gadl.passes.pipeline import FLOAT_PIPELINE
from gadl.passes.quant.calibrate import calibrate
from gadl.passes.quant.quantize import Precision, quantize_annotated, quantize_graph, rules_for
from gadl.targets.npu.quant_rules import QUANT_RULES

FOLDER = os.environ.get("GADL_SUITE", "")
pytestmark = [pytest.mark.suite, pytest.mark.skipif(not FOLDER, reason="GADL_SUITE names no evaluation suite")]


def load(name: str) -> Any:
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    import suite

    return suite.load(name)


def imported(path: Path) -> Graph:
    graph = import_onnx(path)
    PassManager().run(graph, FLOAT_PIPELINE)
    return graph


def decibels(reference: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Signal to quantisation noise over all samples."""
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(reference, found))
    return 10 * float(np.log10(sum(float(np.square(a, dtype=np.float64).sum()) for a in reference) / max(noise, 1e-30)))


#: Floors in dB, about three below what these very samples gave: fashion_cnn 42.6 and 45.7, mobilenet_v2 9.9 and 15.8
#: (its weights limit it; one changed LSB in the first layer reaches every output).
FLOORS = [
    ("fashion_cnn", Precision.INT8, 39.6),
    ("fashion_cnn", Precision.INT16, 42.7),
    ("mobilenet_v2", Precision.INT8, 6.9),
    ("mobilenet_v2", Precision.INT16, 12.8),
]


@pytest.mark.parametrize(("name", "precision", "floor"), FLOORS)
def test_signal_to_noise(name: str, precision: Precision, floor: float) -> None:
    case = load(name)
    graph = imported(case.static_onnx)
    samples = list(case.calibration(20))
    made = quantize_graph(graph, calibrate(graph, samples[:16]), rules_for(QUANT_RULES, precision))
    verify(made.graph)
    assert made.report["float_ops"] == []
    (output,) = graph.output_names
    reference = [interpret(graph, feeds)[output] for feeds in samples[16:]]
    found = [interpret(made.graph, feeds)[output] for feeds in samples[16:]]
    assert decibels(reference, found) > floor


def test_score_of_fashion_cnn_is_that_of_the_float_model() -> None:
    case = load("fashion_cnn")
    graph = imported(case.static_onnx)
    made = quantize_graph(graph, calibrate(graph, case.calibration(64)), QUANT_RULES)
    score = case.evaluate(lambda feeds: interpret(made.graph, feeds))["score"]
    assert score > case.float_score - 0.01


class _Enough(Exception):
    """Ends an evaluation early."""


def test_first_choices_of_mobilenet_agree_with_float() -> None:
    """The first 40 evaluation images.

    Measured over all 206: top-1 0.680 (float 0.680), agreement 0.796; ONNX Runtime's int8 has 0.704 and 0.801.
    """
    case = load("mobilenet_v2")
    graph = imported(case.static_onnx)
    made = quantize_graph(graph, calibrate(graph, case.calibration(32)), QUANT_RULES)
    (output,) = graph.output_names
    same: list[bool] = []

    def both(feeds: Any) -> Any:
        if len(same) == 40:
            raise _Enough
        found, wanted = interpret(made.graph, feeds), interpret(graph, feeds)
        same.append(int(found[output].argmax()) == int(wanted[output].argmax()))
        return found

    with pytest.raises(_Enough):
        case.evaluate(both)
    # One standard error of a share of 40 images is 0.065.
    assert np.mean(same) > 0.801 - 0.14


@pytest.mark.parametrize("operators", [None, ["Conv", "Gemm"]])
def test_file_of_onnx_runtimes_quantiser_gives_equal_outputs(tmp_path: Path, operators: list[str] | None) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    ort = pytest.importorskip("onnxruntime")
    case = load("fashion_cnn")
    samples = list(case.calibration(24))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter(samples[:16])

        def get_next(self) -> Any:
            return next(self.left, None)

    path = tmp_path / "qdq.onnx"
    quantization.quantize_static(
        str(case.static_onnx), str(path), Reader(), quantization.QuantFormat.QDQ, operators, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    made = quantize_annotated(imported(path), QUANT_RULES)
    verify(made.graph)
    assert {op.name for op in made.graph.ops} >= {"conv", "linear"}
    assert not {"conv", "linear"} & set(made.report["float_op_counts"])
    (output,) = made.graph.output_names
    step = made.graph.outputs[0].producer.inputs[0].quant.scale[0]  # type: ignore[union-attr]
    off = [np.rint((interpret(made.graph, f)[output] - session.run([output], f)[0]) / step) for f in samples[16:]]
    assert np.abs(off).max() <= 1
    assert np.count_nonzero(off) <= 2
