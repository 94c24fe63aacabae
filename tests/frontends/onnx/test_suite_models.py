# SPDX-License-Identifier: Apache-2.0
"""The evaluation suite's convolutional models, from their published files, against ONNX Runtime."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.verify import verify
from gadl.frontends.onnx import import_onnx

from .models import onnxruntime_run

FOLDER = os.environ.get("GADL_SUITE", "")
pytestmark = [pytest.mark.suite, pytest.mark.skipif(not FOLDER, reason="GADL_SUITE names no evaluation suite")]
MODELS = ("fashion_cnn", "mobilenet_v2", "pulsevad_81k", "hey_jarvis", "u2netp", "ppocr_det", "ppocr_rec", "layout_picodet")


def load(name: str) -> Any:
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    import suite

    return suite.load(name)


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    """Without onnxsim; tolerances of convolutions (`docs/numerics.md` section 6)."""
    case = load(name)
    graph = import_onnx(case.onnx, {i.name: tuple(i.shape) for i in case.inputs}, simplify=False)
    verify(graph)
    feed = next(iter(case.calibration(1)))
    expected = onnxruntime_run(str(case.static_onnx), feed)
    found = interpret(graph, feed)
    assert list(found) == list(expected)
    for output, wanted in expected.items():
        worst = float(np.abs(found[output] - wanted).max() / np.abs(wanted).max())
        print(f"{name} {output}: {worst:.2e} of the largest value")
        np.testing.assert_allclose(found[output], wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))
