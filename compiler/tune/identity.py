# SPDX-License-Identifier: Apache-2.0
"""What makes two segments the same for a tuning log: geometry and types, not names, weights (but what compresses) or calibrated numbers."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.ops.common import CLAMP
from gadl.compiler.ir.types import Requant
from gadl.targets.base import Segment


def segment_digest(segment: Segment, sizes: Sequence[int] = ()) -> str:
    """16 hex digits of a segment's ops, types, attributes and layouts, and of the `sizes` of constants that are compressed.

    Left out is what a plan's time does not depend on: names, sources, the contents of constants and tables, scales and zero
    points, multipliers of requantisations, bounds of clamps. A model that is calibrated again keeps its records, and so does one
    that is trained again, unless its weights compress.
    """
    numbers: dict[int, int] = {}

    def reference(value: Value | None) -> Any:
        if value is None:
            return None
        number = numbers.setdefault(id(value), len(numbers))
        return [number, _type(value), value.is_constant]

    lines: list[Any] = [[reference(v) for v in segment.inputs]]
    for op in segment.ops:
        attrs = [[name, _attr(name, value)] for name, value in sorted(op.attrs.items())]
        lines.append([op.name, [reference(v) for v in op.operands], [reference(v) for v in op.results], attrs])
    lines.append([reference(v) for v in segment.outputs])
    if sizes:
        lines.append(list(sizes))
    return hashlib.sha256(json.dumps(lines, separators=(",", ":")).encode()).hexdigest()[:16]


def _type(value: Value) -> list[Any]:
    return [value.dtype.value, list(value.shape), value.layout.value]


def _attr(name: str, value: Any) -> Any:
    if isinstance(value, Requant):
        return ["requant", value.rounding.value, len(value.multiplier)]
    if isinstance(value, np.ndarray):
        return ["tensor", str(value.dtype), list(value.shape)]
    if name == CLAMP.name:
        return value is not None
    if isinstance(value, (tuple, list)):
        return [_attr(name, v) for v in value]
    return str(value.value) if isinstance(value, enum.Enum) else value if value is None or isinstance(value, (bool, int, str)) else repr(value)
