# SPDX-License-Identifier: Apache-2.0
"""Tensor types: element type, shape, memory layout and quantisation."""

from __future__ import annotations

import enum
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

#: A static extent, or the name of a dimension that is not known yet.
Dim = int | str
Shape = tuple[Dim, ...]
Array = np.ndarray[Any, np.dtype[Any]]


class DType(enum.Enum):
    """Element type of a tensor; the value is its spelling in `.gir` and in artefacts."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    F64 = "f64"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype that holds it."""
        return _NUMPY[self]

    @property
    def size_bytes(self) -> int:
        """Bytes per element."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """True for floating-point types."""
        return self in (DType.F32, DType.F16, DType.BF16, DType.F64)

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers (not for bool)."""
        return not self.is_float and self is not DType.BOOL

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        info = np.iinfo(self.numpy)
        return int(info.min), int(info.max)

    @staticmethod
    def of(dtype: Any) -> DType:
        """The type that a numpy dtype maps to; `KeyError` where there is none."""
        return _FROM_NUMPY[np.dtype(dtype)]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F64: np.dtype(np.float64),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
    DType.I16: np.dtype(np.int16),
    DType.I32: np.dtype(np.int32),
    DType.I64: np.dtype(np.int64),
    DType.BOOL: np.dtype(np.bool_),
}
_FROM_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}


class Layout(enum.Enum):
    """Order of a tensor's elements in memory; the logical shape never changes with it."""

    ROW_MAJOR = "row_major"
    #: Axis 1 innermost (NCHW kept as NHWC in memory); rank 3 and up.
    CHANNELS_LAST = "channels_last"

    def permutation(self, rank: int) -> tuple[int, ...]:
        """Logical axes from outermost to innermost in memory."""
        if self is Layout.ROW_MAJOR or rank < 3:
            return tuple(range(rank))
        return (0, *range(2, rank), 1)


class Rounding(enum.Enum):
    """How a requantisation rounds (`docs/numerics.md` section 2)."""

    UP = "up"
    TFL2 = "tfl2"
    EVEN = "even"
    AWAY = "away"
    FLOOR = "floor"
    ZERO = "zero"
    F32 = "f32"


@dataclass(frozen=True)
class QuantParams:
    """Affine quantisation: real = scale * (q - zero_point).

    `scale` has one value, or one per index of `axis`. `zero_point` is one value (per-channel data is symmetric).
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    def __post_init__(self) -> None:
        if not self.scale or any(not (s > 0 and math.isfinite(s)) for s in self.scale):
            raise ValueError("scales must be finite and positive")
        if self.axis is None and len(self.scale) != 1:
            raise ValueError("several scales need an axis")

    @property
    def scales(self) -> Array:
        """`f64[n]` of the scales."""
        return np.asarray(self.scale, np.float64)


@dataclass(frozen=True, eq=False)
class Requant:
    """Integer rescaling by `multiplier / 2**shift`, one pair or one per channel (`docs/numerics.md` section 2).

    `multiplier`: i32[n], `shift`: i8[n].
    """

    multiplier: Array
    shift: Array
    rounding: Rounding = Rounding.UP

    def __post_init__(self) -> None:
        if self.multiplier.shape != self.shift.shape or self.multiplier.ndim != 1:
            raise ValueError("multiplier and shift must be vectors of one length")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Requant)
            and self.rounding is other.rounding
            and np.array_equal(self.multiplier, other.multiplier)
            and np.array_equal(self.shift, other.shift)
        )

    def __hash__(self) -> int:
        return hash((self.multiplier.tobytes(), self.shift.tobytes(), self.rounding))

    @property
    def per_channel(self) -> bool:
        """True where each channel has its own pair."""
        return len(self.multiplier) > 1


#: Names of dimensions that stand in text as they are.
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _dim_text(dim: int | str) -> str:
    return str(dim) if isinstance(dim, int) or _PLAIN_NAME.match(dim) else json.dumps(dim, ensure_ascii=False)


@dataclass(frozen=True)
class TensorType:
    """Shape, element type, memory layout and, for quantised tensors, the affine map to real values."""

    dtype: DType
    shape: Shape
    quant: QuantParams | None = None
    layout: Layout = Layout.ROW_MAJOR

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """True when every dimension is a number."""
        return all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; `ValueError` when a dimension is symbolic."""
        dims = tuple(d for d in self.shape if isinstance(d, int))
        if len(dims) != len(self.shape):
            raise ValueError(f"shape {self.shape} has symbolic dimensions")
        return dims

    @property
    def element_count(self) -> int:
        """Number of elements of a static shape."""
        return math.prod(self.static_shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.element_count * self.dtype.size_bytes

    def with_(self, **changes: Any) -> TensorType:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def __str__(self) -> str:
        text = f"{self.dtype.value}[{','.join(_dim_text(d) for d in self.shape)}]"
        if self.quant is not None:
            scale = ",".join(repr(s) for s in self.quant.scale)
            axis = "" if self.quant.axis is None else f",axis={self.quant.axis}"
            text += f"<s=[{scale}],z={self.quant.zero_point}{axis}>"
        return text if self.layout is Layout.ROW_MAJOR else f"{text}@{self.layout.value}"
