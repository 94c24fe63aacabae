# SPDX-License-Identifier: Apache-2.0
"""Pairs of a TOSA graph and ours, compared byte by byte after one run of the reference model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array

from .device import Quantised, run_both
from .reference_model import ReferenceModel

NHWC = (0, 2, 3, 1)
NCHW = (0, 3, 1, 2)


class Lab:
    """Collects the cases of one test; leaving it as a context compares them."""

    def __init__(self, folder: Path, least: int = 4) -> None:
        self.least = least
        self.tosa = ReferenceModel(folder)
        self.pairs: list[tuple[str, Array, Array]] = []

    def expect(
        self, reference: Any, model: Quantised, result: Value, on_device: str = "", axes: tuple[int, ...] | None = None
    ) -> None:
        """Both of ours must equal `reference` (its axes reordered); `on_device` names an op that the device must run."""
        interpreted, simulated, device = run_both(model, result)
        assert not on_device or on_device in device, f"{on_device} ran on the host"
        np.testing.assert_array_equal(simulated, interpreted, "simulator and interpreter differ")
        self.tosa.read(reference)
        self.pairs.append((reference.name, interpreted, np.asarray(axes if axes is not None else range(interpreted.ndim))))

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: Any, *rest: object) -> None:
        if kind is None:
            self.check()

    def check(self) -> None:
        """Run the reference model and compare every element; results must vary."""
        found = self.tosa.run()
        for name, ours, axes in self.pairs:
            wanted = found[name].transpose(axes)
            np.testing.assert_array_equal(ours.astype(np.int64), wanted.astype(np.int64), f"{name}: not the reference model's")
        everything = np.concatenate([ours.reshape(-1) for _, ours, _ in self.pairs])
        assert len(np.unique(everything)) >= self.least, "the cases say nothing"

    def differences(self) -> tuple[int, int]:
        """Instead of `check`, where the definitions differ: elements that are off, all by one, and elements in all."""
        found = self.tosa.run()
        gaps = [np.abs(ours.astype(np.int64) - found[name].transpose(axes)) for name, ours, axes in self.pairs]
        assert max(int(gap.max()) for gap in gaps) <= 1
        return sum(int(np.count_nonzero(gap)) for gap in gaps), sum(gap.size for gap in gaps)
