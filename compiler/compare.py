# SPDX-License-Identifier: Apache-2.0
"""Layer-by-layer comparison of a model in float with its artefact, and of the artefact with the interpreter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.diag import GadlError
from gadl.compiler.ir.interpret import check_feeds, interpret_values
from gadl.compiler.ir.parser import parse
from gadl.compiler.ir.passes import PassManager
from gadl.compiler.ir.types import Array
from gadl.passes.pipeline import FLOAT_PIPELINE
from gadl.runtime.isolated import TIMEOUT_S
from gadl.runtime.session import Session, TensorSpec

from .driver import CompileOptions, import_model


@dataclass(frozen=True)
class Row:
    """One tensor: signal to quantisation noise (dB), cosine, largest absolute difference."""

    name: str
    sqnr_db: float
    cosine: float
    max_abs: float


def compare_layers(
    model: Path, artifact: Path, feeds: Mapping[str, Array], device: str | None = None, timeout_s: float = TIMEOUT_S
) -> tuple[list[Row], int]:
    """A row per tensor that both sides have, and how many elements of the artefact differ from the interpreter's.

    `GADL-U001` when the artefact does not hold its tensors and its graph (`--keep-tensors`).
    """
    file = ArtifactFile.open(artifact)
    text = file.debug.get("graph")
    if not isinstance(text, str):
        raise GadlError.of("GADL-U001", artifact, detail="the artefact keeps no tensors: compile it with --keep-tensors")
    placed = parse(text, f"{artifact}: graph")
    session = Session(artifact, device, timeout_s=timeout_s)
    shapes = {s.name: s.shape for s in session.inputs}
    graph = import_model(model, CompileOptions(shapes=shapes), lambda item: None)
    PassManager().run(graph, FLOAT_PIPELINE)
    real = interpret_values(graph, check_feeds(graph, feeds))
    session.run(feeds)
    expected = interpret_values(placed, check_feeds(placed, feeds))
    rows, differing = [], 0
    for spec in session.tensors:
        if spec.name not in expected:
            continue
        got = session.tensor(spec)
        if not np.issubdtype(got.dtype, np.floating):
            differing += int((got != expected[spec.name]).sum())
        if spec.name in real and got.shape == real[spec.name].shape:
            rows.append(measure(spec.name, real[spec.name], _real(got, spec)))
    return rows, differing


def _real(values: Array, spec: TensorSpec) -> Array:
    if not spec.scales or len(spec.scales) > 1:
        return values.astype(np.float64)
    return (values.astype(np.float64) - spec.zero_point) * spec.scales[0]


def measure(name: str, want: Array, have: Array) -> Row:
    """The figures of one tensor."""
    a, b = want.astype(np.float64).reshape(-1), have.astype(np.float64).reshape(-1)
    noise, signal = float(((a - b) ** 2).sum()), float((a**2).sum())
    sqnr = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norm if norm else 1.0
    return Row(name, sqnr, cosine, float(np.abs(a - b).max(initial=0.0)))
