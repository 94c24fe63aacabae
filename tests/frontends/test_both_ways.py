# SPDX-License-Identifier: Apache-2.0
"""One model by two roads: exported to ONNX and by torch.export, it is the same float graph."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gadl.compiler.ir.graph import Graph, Location  # noqa: E402
from gadl.compiler.ir.interpret import interpret  # noqa: E402
from gadl.compiler.ir.passes import PassManager  # noqa: E402
from gadl.compiler.ir.printer import print_graph  # noqa: E402
from gadl.frontends.onnx import import_onnx  # noqa: E402
from gadl.frontends.torch import import_torch  # noqa: E402
from gadl.passes.pipeline import FLOAT_PIPELINE  # noqa: E402

FOLDER = os.environ.get("GADL_SUITE", "")
needs_suite = pytest.mark.skipif(not FOLDER, reason="GADL_SUITE names no evaluation suite")


def load(name: str) -> Any:
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    import suite

    return suite.load(name)


def canonical(graph: Graph) -> str:
    """The graph as text after the float pipeline, values numbered, locations and the contents of constants left out."""
    PassManager().run(graph, FLOAT_PIPELINE)
    for number, value in enumerate(graph.values()):
        value.name = f"v{number}"
    for op in graph.ops:
        op.loc = Location()
        # ONNX keeps float attributes in single precision.
        op.attrs = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in op.attrs.items()}
    graph.name, graph.output_names = "main", [f"out{i}" for i in range(len(graph.outputs))]
    lines = print_graph(graph, elide=True).splitlines()
    return "\n".join(line.partition(" = ")[0] if line.startswith("  const") else line for line in lines)


def same_constants(a: Graph, b: Graph, units: float) -> None:
    """Constants in order of first use, within some units in the last place of their largest element."""
    for left, right in zip(a.constants(), b.constants()):
        assert left.data is not None and right.data is not None
        bound = units * float(np.spacing(np.abs(left.data).max(initial=np.float32(1e-30))))
        np.testing.assert_allclose(left.data, right.data, rtol=0, atol=bound)


@needs_suite
@pytest.mark.parametrize("name", ["fashion_cnn", "mobilenet_v2"])
def test_trained_models(name: str) -> None:
    """The ONNX file's exporter folded batch norms in f32, this compiler folds them in f64: a few units apart."""
    case = load(name)
    module = case.torch_module().eval()
    example = torch.zeros(*case.inputs[0].shape)
    by_torch = import_torch(torch.export.export(module, (example,)))
    by_onnx = import_onnx(case.static_onnx)
    assert canonical(by_torch) == canonical(by_onnx)
    same_constants(by_torch, by_onnx, 4)
    feed = next(iter(case.calibration(1)))
    (x,) = feed.values()
    results = [next(iter(interpret(g, {g.inputs[0].name: x}).values())) for g in (by_torch, by_onnx)]
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    for found in results:
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Block(torch.nn.Module):
    """What the two exporters write differently: activations, norms, attention, resampling, pooling."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.ReLU6())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.groups = nn.GroupNorm(2, 8)
        self.norm, self.mix = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x + self.body(x)
        x = x * self.gate(x)
        x = self.groups(x)
        up = torch.nn.functional.interpolate(x, scale_factor=2.0)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(self.norm(tokens))
        return up, tokens.softmax(-1)


@pytest.mark.parametrize("opset", [13, 17])
def test_composites(tmp_path: Path, opset: int) -> None:
    """Opset 13 has no LayerNormalization, HardSwish or Gelu: the exporter writes them out."""
    torch.manual_seed(2)
    module = Block().eval()
    example = torch.randn(1, 3, 16, 16)
    path = tmp_path / "block.onnx"
    torch.onnx.export(module, (example,), path, opset_version=opset, dynamo=False)
    by_torch, by_onnx = import_torch(torch.export.export(module, (example,))), import_onnx(path)
    assert canonical(by_torch) == canonical(by_onnx)
    same_constants(by_torch, by_onnx, 4)
    with torch.no_grad():
        expected = module(example)
    found = interpret(by_onnx, {by_onnx.inputs[0].name: example.numpy()})
    for a, b in zip(found.values(), expected):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
