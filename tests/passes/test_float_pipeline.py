# SPDX-License-Identifier: Apache-2.0
"""The whole float pipeline on trained models."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.passes import PassManager
from gadl.compiler.ir.printer import print_graph
from gadl.frontends.onnx import import_onnx
from gadl.passes.pipeline import FLOAT_PIPELINE

FOLDER = os.environ.get("GADL_SUITE", "")
pytestmark = [pytest.mark.suite, pytest.mark.skipif(not FOLDER, reason="GADL_SUITE names no evaluation suite")]

#: name: (composites that the model writes out or fuses, at least; ops that must be gone)
MODELS: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "fashion_cnn": ({}, ("relu", "batch_norm")),
    "mobilenet_v2": ({}, ("add", "clamp", "batch_norm")),
    "u2netp": ({}, ("relu", "batch_norm")),
    "ppocr_det": ({"hard_swish": 24, "hard_sigmoid": 10}, ("batch_norm", "clamp")),
    "ppocr_rec": ({"hard_swish": 28, "silu": 7, "layer_norm": 5, "softmax": 3}, ("batch_norm", "pow", "sqrt")),
    "layout_picodet": ({"hard_swish": 94}, ("batch_norm",)),
    "pulsevad_81k": ({}, ("relu", "clamp")),
    "hey_jarvis": ({"leaky_relu": 19}, ("max", "min")),
}


def load(name: str) -> Any:
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    import suite

    return suite.load(name)


@pytest.mark.parametrize("name", MODELS)
def test_trained_model(name: str) -> None:
    """ONNX Runtime's results (of `docs/numerics.md`, section 6), the expected composites, and a fixed point."""
    import onnxruntime

    case = load(name)
    graph = import_onnx(case.static_onnx)
    PassManager().run(graph, FLOAT_PIPELINE)
    wanted, gone = MODELS[name]
    count = Counter(op.name for op in graph.ops)
    assert all(count[op] >= n for op, n in wanted.items()) and not set(gone) & set(count)
    feeds = next(iter(case.calibration(1)))
    found = interpret(graph, feeds)
    session = onnxruntime.InferenceSession(str(case.static_onnx), providers=["CPUExecutionProvider"])
    for value, expected in zip(found.values(), session.run(list(found), feeds), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    text = print_graph(graph, elide=True)
    PassManager().run(graph, FLOAT_PIPELINE)
    assert print_graph(graph, elide=True) == text
