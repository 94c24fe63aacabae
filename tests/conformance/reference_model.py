# SPDX-License-Identifier: Apache-2.0
"""TOSA graphs, built with the serializer of `tosa-tools` and run by its reference model."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.types import Array, Requant, Rounding

ts: Any = pytest.importorskip("tosa_serializer", reason="tosa-tools is not installed (pip install 'opengadl[conformance]')")
D = ts.DType
KINDS = {np.dtype(np.int8): D.INT8, np.dtype(np.int16): D.INT16, np.dtype(np.int32): D.INT32, np.dtype(np.bool_): D.BOOL}
IGNORE = ts.NanPropagationMode.IGNORE
#: The TOSA names of two of our roundings; the others have none.
ROUNDINGS = {Rounding.UP: ts.RoundingMode.SINGLE_ROUND, Rounding.TFL2: ts.RoundingMode.DOUBLE_ROUND}
#: Attributes whose name does not follow from the operator's.
NAMES = {"MATMUL": "MatMul", "ARGMAX": "ArgMax"}


class ReferenceModel:
    """One TOSA graph with any number of independent parts; all data are constants, so that one process runs everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serializer = ts.TosaSerializer()
        self.wanted: list[str] = []

    def const(self, data: Array, dtype: Any = None) -> Any:
        """A constant tensor; `dtype` where numpy has no name for it (INT48)."""
        data = np.ascontiguousarray(data)
        return self.serializer.addConst(list(data.shape), dtype or KINDS[data.dtype], data)

    def shape(self, values: Sequence[int]) -> Any:
        """A constant shape."""
        made = self.serializer.addConst([len(values)], D.SHAPE, np.asarray(values, np.int64))
        return made

    def zero(self, value: int, dtype: Any = np.int8) -> Any:
        """A zero point."""
        return self.const(np.array([value], dtype))

    def __call__(self, op: str, operands: Sequence[Any], shape: Sequence[int], dtype: Any, *attrs: Any) -> Any:
        """One operator; its attributes are those of `TosaSerializerAttribute`, in order."""
        result = self.serializer.addIntermediate(list(shape), dtype)
        attribute = ts.TosaSerializerAttribute()
        name = NAMES.get(op, "".join(part.capitalize() for part in op.split("_")))
        getattr(attribute, f"{name}Attribute")(*attrs)
        self.serializer.addOperator(getattr(ts.Op, op), [v.name for v in operands], [result.name], attribute)
        return result

    def rescale(self, x: Any, requant: Requant, zero_in: int, zero_out: int, dtype: Any, scale32: bool = True) -> Any:
        """RESCALE by our multipliers and shifts, along the last axis where there are several."""
        numbers = np.int32 if scale32 else np.int16
        source = {D.INT8: np.int8, D.INT16: np.int16, D.INT32: np.int32}
        zero_point = self.const(np.array([zero_in]), D.INT48) if x.dtype == D.INT48 else self.zero(zero_in, source[x.dtype])
        pairs = self.const(requant.multiplier.astype(numbers)), self.const(requant.shift)
        operands = [x, *pairs, zero_point, self.zero(zero_out, source[dtype])]
        attrs = (scale32, ROUNDINGS[requant.rounding], requant.per_channel, False, False)
        return self("RESCALE", operands, x.shape, dtype, *attrs)

    def read(self, tensor: Any) -> None:
        """Keep a tensor's value."""
        self.serializer.addOutputTensor(tensor)
        self.wanted.append(tensor.name)

    def run(self) -> dict[str, Array]:
        """The values of all tensors asked for, by name."""
        (self.folder / "graph.tosa").write_bytes(self.serializer.serialize())
        description = self.folder / "desc.json"
        description.write_text(self.serializer.writeJson("graph.tosa"))
        program = metadata.distribution("tosa-tools").locate_file("bin/tosa_reference_model")
        done = subprocess.run([str(program), f"--test_desc={description}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the reference model refuses the graph:\n{done.stdout[:2000]}\n{done.stderr[:2000]}"
        return {name: np.load(self.folder / f"ref-{name}.npy") for name in self.wanted}
