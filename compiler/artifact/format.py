# SPDX-License-Identifier: Apache-2.0
"""The layout of `.gadl` files, declared once; `csrc/include/gadl/artifact_format.h` is generated from it.

    0    magic "GADL" | u16 ABI major | u16 ABI minor | u64 required features | u32 sections | u32 0 | u64 file size
    32   table of contents: char name[16] | u32 index | u32 CRC-32 | u64 offset | u64 size, one per section
    …    sections, each aligned to 64 bytes

Sections: `manifest` (JSON), `plan` (text per device segment), `program` (opaque bytes per device segment), `weights`, `host` (the
schedule, below), `golden` (npz of inputs and outputs), `debug` (JSON). The host section is a stream; str = u16 length + UTF-8:

    u64 arena bytes | u32 tensors | u32 inputs | u32 outputs | u32 segments | u32 steps
    tensor: str name | u8 dtype | u8 layout | u8 storage | u8 rank | i64 dims[rank] | u64 offset | i32 zero point | i32 axis
            | u32 scales | f64 scale[scales]
    input: str name | u32 tensor      output: str name | u32 tensor
    step: u8 kind | str op | u32 segment | u32 operands | u32 ids | u32 results | u32 ids | u32 attributes | attribute…
    attribute: str name | u8 kind | payload
"""

from __future__ import annotations

import enum

MAGIC = b"GADL"
ABI = (1, 0)
ALIGNMENT = 64
HEADER_BYTES = 32
ENTRY_BYTES = 40
NO_TENSOR = 0xFFFFFFFF
#: Most dimensions of a tensor.
MOST_DIMS = 8


class Feature(enum.IntFlag):
    """Features that a runtime must have to run the file."""

    NONE = 0
    #: Programs of the reference NPU.
    NPU = 1


class Storage(enum.IntEnum):
    """Where a tensor's bytes are."""

    ARENA = 0
    WEIGHTS = 1


class StepKind(enum.IntEnum):
    """What a step runs."""

    HOST = 0
    SEGMENT = 1


class AttrCode(enum.IntEnum):
    """Payload of an attribute.

    INT i64 | FLOAT f64 | STR str | INTS u32 n, i64[n] | FLOATS u32 n, f64[n] | TENSOR u8 dtype, u8 rank, i64 dims[rank], bytes |
    REQUANTS u32 n, n times: u8 rounding, u32 m, i32 multiplier[m], i8 shift[m]
    """

    INT = 0
    FLOAT = 1
    STR = 2
    INTS = 3
    FLOATS = 4
    TENSOR = 5
    REQUANTS = 6


#: Element types by their code in the file; the order is part of the format.
DTYPES = ("f32", "f16", "bf16", "f64", "i8", "u8", "i16", "i32", "i64", "bool")
DTYPE_BYTES = (4, 2, 2, 8, 1, 1, 2, 4, 8, 1)
#: Memory layouts by code.
LAYOUTS = ("row_major", "channels_last")
#: Roundings by code (as in the NPU's instructions).
ROUNDINGS = ("up", "tfl2", "even", "away", "floor", "zero", "f32")
