# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the vendor's runtime of the CV18xx, and artefacts for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gadl.compiler.artifact.format import Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, SegmentStep, TensorRecord
from gadl.compiler.diag.files import write_atomically
from gadl.runtime import cv18xx

ROOT = Path(__file__).parents[2]
#: Copies 256 bytes from `x` to `y`.
CONTAINER = ROOT / "tests" / "data" / "copy_cv181x.cvimodel"
SHAPE = (1, 1, 16, 16)


def build_standin(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in a cache of its own, as if it had been fetched; its file."""
    compiler = shutil.which("cc")
    assert compiler is not None, "the package is built with a C compiler"
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(cache))
    cv18xx.folder().mkdir(parents=True)
    for name in cv18xx.LIBRARIES:
        source = ROOT / "csrc" / "tests" / "cvi_standin.c" if name == cv18xx.LIBRARIES[-1] else "/dev/null"
        subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", str(source), "-o", str(cv18xx.folder() / name)], check=True)
    return cv18xx.folder() / cv18xx.LIBRARIES[-1]


def copy_artifact(path: Path, program: bytes | None = None) -> Path:
    """An artefact of one device segment that copies its input."""
    tensors = [TensorRecord(n, "i8", SHAPE, Storage.ARENA, 256 * i, scales=(0.5,)) for i, n in enumerate("xy")]
    built = ArtifactBuilder({"driver": "cvi", "target": "cv181x"}, tensors, [("x", 0)], [("y", 1)], [SegmentStep(0, (0,), (1,))], arena_bytes=512)
    built.programs, built.plans = [CONTAINER.read_bytes() if program is None else program], [""]
    write_atomically(path, built.to_bytes())
    return path
