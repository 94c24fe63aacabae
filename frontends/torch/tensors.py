# SPDX-License-Identifier: Apache-2.0
"""Tensors and element types of torch as numpy and IR know them. Works on torch objects without importing torch."""

from __future__ import annotations

from typing import Any

import ml_dtypes

from gadl.compiler.ir.types import Array, DType

_TYPES = {
    "float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16, "float64": DType.F64, "int8": DType.I8,
    "uint8": DType.U8, "int16": DType.I16, "int32": DType.I32, "int64": DType.I64, "bool": DType.BOOL,
}  # fmt: skip


def ir_dtype(dtype: Any) -> DType:
    """The IR's element type of a torch dtype; `TypeError` when there is none."""
    try:
        return _TYPES[str(dtype).removeprefix("torch.")]
    except KeyError:
        raise TypeError(f"element type {dtype}") from None


def array_of(tensor: Any) -> Array:
    """The elements of a CPU tensor as numpy, sharing memory; `TypeError` for what is no plain tensor."""
    if tensor is None or not hasattr(tensor, "detach"):
        raise TypeError(f"{type(tensor).__name__} is not a tensor")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if ir_dtype(plain.dtype) is DType.BF16:
        import torch

        raw: Array = plain.view(torch.int16).numpy()
        return raw.view(ml_dtypes.bfloat16)
    array: Array = plain.numpy()
    return array
