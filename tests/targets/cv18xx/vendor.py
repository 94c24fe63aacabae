# SPDX-License-Identifier: Apache-2.0
"""The vendor's runtime and functional model in a process of its own, where its libraries are in the cache."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gadl.targets.cv18xx.cvimodel import CviModel

LIBRARIES = ("libcvikernel.so", "libcvicmodel.so", "libcviruntime.so")

#: Arguments: folder of the libraries, model, input and output files, names of the libraries. Inputs and outputs are int8.
_CHILD = """
import ctypes, os, sys
import numpy as np

folder, model, source, target, *names = sys.argv[1:]
*_, runtime = [ctypes.CDLL(os.path.join(folder, name), mode=ctypes.RTLD_GLOBAL) for name in names]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("dims", ctypes.c_int32 * 6), ("rank", ctypes.c_size_t), ("dtype", ctypes.c_int),
        ("count", ctypes.c_size_t), ("size", ctypes.c_size_t), ("rest", ctypes.c_uint8 * 104),
    ]


handle, tensors, counts = ctypes.c_void_p(), [ctypes.POINTER(Tensor)() for _ in "io"], [ctypes.c_int32() for _ in "io"]
assert runtime.CVI_NN_RegisterModel(model.encode(), ctypes.byref(handle)) == 0, "not registered"
pointers = [x for pair in zip(tensors, counts) for x in map(ctypes.byref, pair)]
assert runtime.CVI_NN_GetInputOutputTensors(handle, *pointers) == 0, "no tensors"
assert ctypes.sizeof(Tensor) == 168
runtime.CVI_NN_TensorPtr.restype = ctypes.c_void_p
runtime.CVI_NN_TensorPtr.argtypes = [ctypes.c_void_p]
given = np.load(source)
for i in range(counts[0].value):
    data = given[tensors[0][i].name.decode()].tobytes()
    assert len(data) == tensors[0][i].count
    ctypes.memmove(runtime.CVI_NN_TensorPtr(ctypes.byref(tensors[0][i])), data, len(data))
assert runtime.CVI_NN_Forward(handle, tensors[0], counts[0], tensors[1], counts[1]) == 0, "not run"
made = {}
for i in range(counts[1].value):
    t = tensors[1][i]
    data = ctypes.string_at(runtime.CVI_NN_TensorPtr(ctypes.byref(t)), t.count)
    made[t.name.decode()] = np.frombuffer(data, np.int8).reshape(list(t.dims[: t.rank]))
np.savez(target, **made)
sys.stdout.flush()
os._exit(0)  # the libraries' exit handlers crash
"""


def folder() -> Path:
    """Where the libraries are, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opengadl" / "cv18xx"
    return Path(os.environ.get("GADL_CV18XX_CACHE") or cache) / "tpu_mlir-1.30.2"


needs_functional_model = pytest.mark.skipif(
    platform.machine() != "x86_64" or not all((folder() / name).is_file() for name in LIBRARIES),
    reason="the vendor's functional model is not in the cache (GADL_CV18XX_CACHE)",
)


def run(model: CviModel, inputs: dict[str, np.ndarray], scratch: Path) -> dict[str, np.ndarray]:
    """The outputs of one inference, int8."""
    path, source, target = scratch / "m.cvimodel", scratch / "in.npz", scratch / "out.npz"
    path.write_bytes(model.encode())
    np.savez(source, **inputs)
    environment = dict(os.environ, SET_CHIP_NAME=model.chip, LD_LIBRARY_PATH=str(folder()))
    arguments = [sys.executable, "-c", _CHILD, *map(str, (folder(), path, source, target)), *LIBRARIES]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, errors="replace")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    with np.load(target) as made:
        return dict(made)
