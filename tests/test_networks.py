# SPDX-License-Identifier: Apache-2.0
"""Networks of the benchmarks have the geometry of what they are named after."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx
import pytest

from gadl.frontends.onnx import import_onnx
from gadl.targets.npu.layers import window_of

from . import networks


@pytest.mark.parametrize(("name", "millions"), [("vww", 7.49), ("kws", 2.66), ("resnet8", 12.51), ("ad01", 0.264)])
def test_macs_of_the_mlperf_tiny_shapes(name: str, millions: float) -> None:
    graph = import_onnx(getattr(networks, name)(), {}, simplify=True, warn=lambda item: None)
    macs = sum(window_of(op).macs for op in graph.ops if op.name in ("conv", "linear"))
    assert macs == pytest.approx(millions * 1e6, rel=0.02)


@pytest.mark.parametrize(
    ("model", "parameters", "millions"),
    [
        (lambda: networks.resnet18(), 11_684_712, 1814.1),
        (lambda: networks.yolov8(0.25), 3_151_888, 8.7e3 / 2),
        (lambda: networks.yolov8(0.5), 11_156_528, 28.6e3 / 2),
    ],
    ids=["resnet18", "yolov8n", "yolov8s"],
)  # fmt: skip
def test_parameters_and_macs_of_larger_networks(model: Callable[[], onnx.ModelProto], parameters: int, millions: float) -> None:
    """Parameters as published, normalisation folded into biases; YOLOv8's without the 16 of box decoding."""
    made = model()
    onnx.checker.check_model(made, full_check=True)
    kernels = {node.input[1] for node in made.graph.node if node.op_type in ("Conv", "Gemm")}
    kernels |= {node.input[2] for node in made.graph.node if node.op_type in ("Conv", "Gemm")}
    assert sum(math.prod(w.dims) for w in made.graph.initializer if w.name in kernels) == parameters
    graph = import_onnx(made, {}, simplify=False, warn=lambda item: None)
    assert sum(window_of(op).macs for op in graph.ops if op.name in ("conv", "linear")) == pytest.approx(millions * 1e6, rel=0.012)
