# SPDX-License-Identifier: Apache-2.0
"""A small network as a file, and its compilation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler.driver import Artifact, compile
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.printer import save_gir
from gadl.compiler.ir.types import DType, TensorType

Compile = Callable[..., Artifact]


def network(name: str = "net", seed: int = 0, width: int = 24) -> Graph:
    """A few convolutions, a pooling and a sum."""
    graph, rng = Graph(name), np.random.default_rng(seed)
    b, x = Builder(graph), graph.add_input("x", TensorType(DType.F32, (1, 8, 24, 20)))
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}

    def weights(*shape: int) -> Any:
        return graph.constant((rng.standard_normal(shape) / 8).astype(np.float32), f"{name}_w")

    y = b("conv", x, weights(width, 8, 3, 3), weights(width), **window)
    z = b("conv", y, weights(width, 1, 3, 3), None, groups=width, **window)
    z = b("conv", z, weights(width, width, 1, 1), None, **{**window, "pads": (0, 0, 0, 0)})
    z = b("max_pool", b("add", z, y), kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1))
    z = b("conv", z, weights(64, width, 3, 3), None, **window)
    graph.set_outputs([b("reduce_mean", z, axes=(2, 3), keepdims=True)])
    return graph


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_gir(network(), tmp_path / "net.gir")
    return tmp_path / "net.gir"


def samples() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).standard_normal((1, 8, 24, 20)).astype(np.float32)} for i in range(2)]


@pytest.fixture
def build(model: Path) -> Compile:
    """`gadl.compile` of the network for the edge machine; `path` names another model."""

    def run(path: Path = model, **options: Any) -> Artifact:
        return compile(path, "npu", options.pop("machine", "edge"), samples(), **{"jobs": 1, **options})

    return run
