# SPDX-License-Identifier: Apache-2.0
"""A session: one artefact, one context of the C runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.diag import GadlError

try:
    import gadl.runtime._core as _core
except ImportError as _error:
    raise GadlError.of("GADL-R003", str(_error)) from None

Array = np.ndarray[Any, np.dtype[Any]]
_NUMPY: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8), "u8": np.dtype(np.uint8), "i16": np.dtype(np.int16), "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64), "bool": np.dtype(np.bool_),
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of an artefact: name, element type, logical shape, and its scale where it is quantised."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    channels_last: bool = False

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype."""
        return _NUMPY[self.dtype]

    def decode(self, data: bytes) -> Array:
        """The tensor as an array in logical order."""
        if not self.channels_last or len(self.shape) < 3:
            return np.frombuffer(data, self.numpy).reshape(self.shape)
        moved = (self.shape[0], *self.shape[2:], self.shape[1])
        return np.moveaxis(np.frombuffer(data, self.numpy).reshape(moved), -1, 1)


class Session:
    """Runs one artefact. One thread at a time; several sessions of one file run in parallel.

    Memory is taken when the session is made; `run` only copies inputs and outputs.
    """

    def __init__(self, path: Path | str, device: str | None = None, *, check: bool = True) -> None:
        """`check`: the simulator looks for races. Raises `GadlError` (GADL-A… for the file, GADL-R… for the device)."""
        file = ArtifactFile.open(path)
        self.manifest = file.manifest
        driver = str(self.manifest.get("driver", "host"))
        if device not in (None, driver) and not (device == "sim" and driver == "host"):
            raise GadlError.of("GADL-R002", path, device=device, driver=driver)
        try:
            self._model = _core.Model(str(path))
            self._context = _core.Context(self._model, skip_checks=not check)
        except _core.RuntimeFailure as error:
            raise GadlError.of("GADL-R001", path, detail=str(error)) from None
        self.inputs = [_spec(t) for t in self._model.inputs()]
        self.outputs = [_spec(t) for t in self._model.outputs()]

    def run(self, feeds: Mapping[str, Array], *, raw: bool = False) -> dict[str, Array]:
        """Outputs by name for inputs by name; floats in and out.

        `raw`: outputs that the model dequantises last are returned as the integers before (their scale is in `raw_outputs`).
        Raises `GadlError` with every wrong input (`GADL-I010`), or the device's error.
        """
        self._set_inputs(feeds)
        try:
            self._context.run()
        except _core.RuntimeFailure as error:
            raise GadlError.of("GADL-R001", detail=str(error)) from None
        if raw:
            return {name: self.tensor(spec) for name, spec in self.raw_outputs.items()}
        return {spec.name: spec.decode(self._context.output(i)) for i, spec in enumerate(self.outputs)}

    def _set_inputs(self, feeds: Mapping[str, Array]) -> None:
        from gadl.compiler.diag import diagnostic

        wrong = [diagnostic("GADL-I010", name=n, detail="no such input") for n in feeds if n not in {s.name for s in self.inputs}]
        arrays = []
        for spec in self.inputs:
            given = feeds.get(spec.name)
            shape = None if given is None else np.shape(given)
            if given is None or shape != spec.shape:
                detail = "missing" if given is None else f"shape {shape}, expected {spec.shape}"
                wrong.append(diagnostic("GADL-I010", name=spec.name, detail=detail))
            else:
                arrays.append(np.ascontiguousarray(given, spec.numpy))
        GadlError.raise_if(wrong)
        for index, array in enumerate(arrays):
            self._context.set_input(index, array.view(np.uint8) if array.ndim else array.reshape(1).view(np.uint8))

    @property
    def raw_outputs(self) -> dict[str, TensorSpec]:
        """What `raw` returns: per output the integer tensor behind it, or the output itself."""
        behind = self.manifest.get("raw_outputs", {})
        tensors = {t.name: t for t in self.tensors}
        return {spec.name: tensors.get(behind.get(spec.name, ""), spec) for spec in self.outputs}

    @property
    def tensors(self) -> list[TensorSpec]:
        """Every tensor of the schedule."""
        return [_spec(t) for t in self._model.tensors()]

    def tensor(self, spec: TensorSpec) -> Array:
        """A tensor after a run. Only artefacts compiled with `keep_tensors` still hold all of them."""
        for index, known in enumerate(self.tensors):
            if known.name == spec.name:
                return known.decode(self._context.tensor(index))
        return self.run_output(spec)

    def run_output(self, spec: TensorSpec) -> Array:
        """The output called `spec.name` after a run."""
        index = [s.name for s in self.outputs].index(spec.name)
        return self.outputs[index].decode(self._context.output(index))

    @property
    def memory_bytes(self) -> int:
        """Bytes of tensors and scratch."""
        return int(self._model.context_bytes())

    @property
    def counters(self) -> dict[str, float]:
        """Device counters of the last run: cycles, DRAM bytes, MACs."""
        return dict(self._context.counters())

    @property
    def profile(self) -> list[tuple[str, str, int]]:
        """Op, result and nanoseconds of each step of the last run."""
        return list(self._context.steps())


def _spec(found: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(found["name"], found["dtype"], tuple(found["shape"]), tuple(found["scales"]), found["zero_point"], found["channels_last"])


def load(path: Path | str, device: str | None = None) -> Session:
    """Open an artefact; `device` defaults to the one that it was compiled for."""
    return Session(path, device)
