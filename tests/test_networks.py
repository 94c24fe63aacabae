# SPDX-License-Identifier: Apache-2.0
"""Networks of the benchmarks have the geometry of what they are named after."""

from __future__ import annotations

import pytest

from gadl.frontends.onnx import import_onnx
from gadl.targets.npu.layers import window_of

from . import networks


@pytest.mark.parametrize(("name", "millions"), [("vww", 7.49), ("kws", 2.66), ("resnet8", 12.51), ("ad01", 0.264)])
def test_macs_of_the_mlperf_tiny_shapes(name: str, millions: float) -> None:
    graph = import_onnx(getattr(networks, name)(), {}, simplify=True, warn=lambda item: None)
    macs = sum(window_of(op).macs for op in graph.ops if op.name in ("conv", "linear"))
    assert macs == pytest.approx(millions * 1e6, rel=0.02)
