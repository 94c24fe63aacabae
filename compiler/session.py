# SPDX-License-Identifier: Apache-2.0
"""Sessions of what a command is given: artefacts, and `.cvimodel` containers as they are."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from gadl.compiler.artifact.format import ALIGNMENT, Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, SegmentStep, TensorRecord
from gadl.compiler.diag import GadlError
from gadl.runtime.isolated import TIMEOUT_S
from gadl.runtime.session import Array, Session, TensorSpec
from gadl.targets.cv18xx.cvimodel import MAGIC, CviModel, DataType, Tensor, decode

_DTYPES = {
    DataType.FP32: "f32", DataType.INT32: "i32", DataType.BF16: "bf16", DataType.INT16: "i16", DataType.INT8: "i8", DataType.UINT8: "u8",
}  # fmt: skip
_DRIVER = "cvi"


def open_session(path: Path, device: str | None = None, *, check: bool = True, timeout_s: float = TIMEOUT_S) -> Session:
    """A session of an artefact or of a container, whichever the file is."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise GadlError.of("GADL-A001", path, detail=error.strerror or str(error)) from None
    kind = ContainerSession if start == MAGIC else Session
    return kind(path, device, check=check, timeout_s=timeout_s)


class ContainerSession(Session):
    """Runs a container by way of an artefact that holds it and nothing else.

    Inputs of an integer type may be given as floats, which are multiplied by the container's `qscale` and rounded, ties to even;
    outputs are floats unless they are asked for raw.
    """

    def __init__(self, path: Path | str, device: str | None = None, *, check: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        code = Path(path).read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            artifact = Path(folder) / "container.gadl"
            artifact.write_bytes(_wrap(code, decode(code, str(path)), str(path)))
            try:
                super().__init__(artifact, device, check=check, timeout_s=timeout_s)
            except GadlError as error:  # the user knows the container
                raise GadlError(*(replace(d, where=d.where.replace(str(artifact), str(path))) for d in error.diagnostics)) from None

    def run(self, feeds: Mapping[str, Array], *, raw: bool = False) -> dict[str, Array]:
        """Outputs by name for inputs by name."""
        known = {spec.name: spec for spec in self.inputs}
        results = super().run({n: _quantize(a, known[n]) if n in known else a for n, a in feeds.items()})
        return results if raw else {spec.name: _dequantize(results[spec.name], spec) for spec in self.outputs}


def _quantize(array: Array, spec: TensorSpec) -> Array:
    """The array as the container wants it, where that can be done; the session judges the rest."""
    given = np.asarray(array)
    if _without_ones(given.shape) == _without_ones(spec.shape):
        given = given.reshape(spec.shape)
    if given.dtype.kind != "f" or spec.numpy.kind not in "iu" or not spec.scales:
        return given
    limits = np.iinfo(spec.numpy)
    # As applications do it: by the container's factor, which `_record` turned into a scale.
    steps = np.rint(np.nan_to_num(given.astype(np.float32) * np.float32(1 / spec.scales[0]), nan=0.0))
    return np.clip(steps, limits.min, limits.max).astype(spec.numpy)


def _dequantize(array: Array, spec: TensorSpec) -> Array:
    return array.astype(np.float32) * np.float32(spec.scales[0]) if spec.scales and spec.numpy.kind in "iu" else array


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Containers fill up shapes to four dimensions."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _wrap(code: bytes, container: CviModel, where: str) -> bytes:
    """An artefact of one device segment."""
    if not container.model.programs:
        raise GadlError.of("GADL-A010", where, detail="it has no program")
    program = container.model.programs[0]
    tensors = {tensor.name: tensor for tensor in program.tensors}
    built = ArtifactBuilder({"driver": _DRIVER, "target": container.chip, "model": container.model.name})
    numbers: list[int] = []
    for name in (*program.inputs, *program.outputs):
        if name not in tensors:
            raise GadlError.of("GADL-A010", where, detail=f"input or output '{name}' is not among its tensors")
        record = _record(tensors[name], len(numbers) < len(program.inputs), built.arena_bytes, where)
        numbers.append(len(built.tensors))
        built.tensors.append(record)
        built.arena_bytes += -(-tensors[name].size // ALIGNMENT) * ALIGNMENT
    count = len(program.inputs)
    built.inputs = list(zip(program.inputs, numbers[:count], strict=True))
    built.outputs = list(zip(program.outputs, numbers[count:], strict=True))
    built.steps = [SegmentStep(0, tuple(numbers[:count]), tuple(numbers[count:]))]
    built.programs, built.plans = [code], [""]
    return built.to_bytes()


def _record(tensor: Tensor, is_input: bool, offset: int, where: str) -> TensorRecord:
    dtype = _DTYPES.get(DataType(tensor.dtype)) if tensor.dtype in list(DataType) else None
    if dtype is None or tensor.shape is None:
        raise GadlError.of("GADL-A010", where, detail=f"tensor '{tensor.name}' has no type or shape that a session knows")
    factor = tensor.quant.qscale if tensor.quant is not None else 0.0
    scales = () if not factor > 0 or dtype == "f32" else (1 / factor if is_input else factor,)
    return TensorRecord(tensor.name, dtype, tensor.shape.dim, Storage.ARENA, offset, scales=scales)
