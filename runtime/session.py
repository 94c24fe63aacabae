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
from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

try:
    import gadl.runtime._core as _core
except ImportError as _error:
    raise GadlError.of("GADL-R003", str(_error)) from None

from .devices import DEVICES, device_of_driver
from .isolated import TIMEOUT_S, Remote

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

    def encode(self, array: Array) -> Array:
        """The bytes of an array in logical order, u8[n]."""
        if self.channels_last and len(self.shape) >= 3:
            array = np.moveaxis(array, 1, -1)
        return np.ascontiguousarray(array, self.numpy).reshape(-1).view(np.uint8)


class Session:
    """Runs one artefact. One thread at a time; several sessions of one file run in parallel.

    Memory is taken when the session is made; `run` only copies inputs and outputs. A device of `devices.DEVICES` runs in a
    process of its own.
    """

    _model: _core.Model | Remote
    _context: _core.Context | Remote

    def __init__(self, path: Path | str, device: str | None = None, *, check: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        """`check`: the simulator looks for races. `timeout_s`: the longest that a process of its own may take for one answer.

        Raises `GadlError` (GADL-A… for the file, GADL-R… for the device).
        """
        file = ArtifactFile.open(path)
        self.manifest = file.manifest
        driver = str(self.manifest.get("driver", "host"))
        if file.programs and not _core.has_driver(driver):
            raise GadlError.of("GADL-R017", path, driver=driver)
        apart = DEVICES.get(device or "")
        if (apart.driver if apart else device) not in (None, driver) and not (device == "sim" and driver == "host"):
            raise GadlError.of("GADL-R002", path, device=device, driver=driver)
        try:
            if apart is None:
                model = _core.Model(str(path))
                self._model, self._context = model, _core.Context(model, skip_checks=not check, driver=device)
            else:
                GadlError.raise_if(filter(None, [apart.missing()]))
                self._model = self._context = Remote(path, apart, check=check, timeout_s=timeout_s)
        except _core.RuntimeFailure as error:
            # A file that is at fault is no failure of the device.
            code = "GADL-A001" if error.status == _core.ERROR_FORMAT else "GADL-R001"
            raise GadlError.of(code, path, detail=str(error)) from None
        self.inputs = [_spec(t) for t in self._model.inputs()]
        self.outputs = [_spec(t) for t in self._model.outputs()]
        #: Every tensor of the schedule, in the order of the file.
        self.tensors = [_spec(t) for t in self._model.tensors()]
        self._index = {spec.name: index for index, spec in enumerate(self.tensors)}

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
        known = {s.name for s in self.inputs}
        wrong = [diagnostic("GADL-I010", name=n, detail="no such input") for n in feeds if n not in known]
        arrays = []
        for spec in self.inputs:
            problem = _problem(feeds.get(spec.name), spec)
            if problem:
                wrong.append(diagnostic("GADL-I010", name=spec.name, detail=problem))
            else:
                arrays.append(spec.encode(np.asarray(feeds[spec.name])))
        GadlError.raise_if(wrong)
        for index, array in enumerate(arrays):
            self._context.set_input(index, array)

    @property
    def raw_outputs(self) -> dict[str, TensorSpec]:
        """What `raw` returns: per output the integer tensor behind it, or the output itself."""
        behind = self.manifest.get("raw_outputs", {})
        found = {spec.name: self._index.get(behind.get(spec.name, "")) for spec in self.outputs}
        return {spec.name: spec if (index := found[spec.name]) is None else self.tensors[index] for spec in self.outputs}

    def tensor(self, spec: TensorSpec) -> Array:
        """A tensor after a run. Only artefacts compiled with `keep_tensors` still hold all of them."""
        if spec.name in self._index:
            return spec.decode(self._context.tensor(self._index[spec.name]))
        return self.run_output(spec)

    def run_output(self, spec: TensorSpec) -> Array:
        """The output called `spec.name` after a run."""
        index = [s.name for s in self.outputs].index(spec.name)
        return self.outputs[index].decode(self._context.output(index))

    @property
    def memory_bytes(self) -> int:
        """Bytes of tensors, scratch and device memory; a simulated device adds its own state."""
        return int(self._model.context_bytes())

    @property
    def counters(self) -> dict[str, float]:
        """Device counters of the last run: cycles, DRAM bytes, MACs."""
        return dict(self._context.counters())

    @property
    def profile(self) -> list[tuple[str, str, int]]:
        """Op, result and nanoseconds of each step of the last run."""
        return list(self._context.steps())

    @property
    def report(self) -> dict[str, Any]:
        """Figures of the last run, ready for JSON: device, memory, counters, and the time of each step in nanoseconds."""
        steps = [{"op": op, "result": result, "time_ns": time_ns} for op, result, time_ns in self.profile]
        device = {"driver": self.manifest.get("driver"), "machine": self.manifest.get("machine"), "status": self.manifest.get("status")}
        return {"device": device, "memory_bytes": self.memory_bytes, "counters": self.counters, "steps": steps}


def _problem(given: Any, spec: TensorSpec) -> str:
    """Why an array does not fit an input; empty when it does."""
    if given is None:
        return "missing"
    try:
        array = np.asarray(given)
    except ValueError:
        return "not an array"
    if array.shape != spec.shape:
        return f"shape {array.shape}, expected {spec.shape}"
    kind = np.dtype(np.float64) if spec.numpy.kind not in "biuf" else spec.numpy  # numpy does not know how bf16 casts
    return "" if np.can_cast(array.dtype, kind, "same_kind") else f"type {array.dtype}, expected {spec.numpy}"


def _spec(found: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(found["name"], found["dtype"], tuple(found["shape"]), tuple(found["scales"]), found["zero_point"], found["channels_last"])


def device_for(driver: str) -> tuple[str | None, Diagnostic | None]:
    """What `Session` is to be given for a driver's artefacts on this machine, and why they cannot run here (None: they can)."""
    if not _core.has_driver(driver):
        return None, diagnostic("GADL-R017", driver=driver)
    apart = device_of_driver(driver)
    return (None, None) if apart is None else (apart.name, apart.missing())


def load(path: Path | str, device: str | None = None) -> Session:
    """Open an artefact; `device` defaults to the one that it was compiled for."""
    return Session(path, device)
