# SPDX-License-Identifier: Apache-2.0
"""The `.cvimodel` container: a header of 48 bytes, a flatbuffer, the data of the sections.

The header is `_HEADER`: magic, length of the flatbuffer, major and minor version, MD5 of all that follows, the chip's name.
Sections' offsets count from the end of the flatbuffer. The layout is a fact read from the vendor's published sources.
"""

from __future__ import annotations

import enum
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gadl.compiler.diag import GadlError

from .chip import CHIPS, Chip
from .descriptor import Command, DescriptorError, commands
from .flatbuffer import FlatbufferError, read, slot, write

MAGIC = b"CviModel"
_HEADER = struct.Struct("<8sIBB16s16s2s")
VERSION = (1, 4, 0)
#: The runtime wants a time; a constant keeps the bytes the same.
BUILD_TIME = "1970-01-01 00:00:00"
_ALIGNMENT = 16
#: Bytes of sections for each byte of the file: some may share data, but work stays bounded.
_MOST_SHARED = 4
_REGION_SHIFT = 40


class Region(enum.IntEnum):
    """Base registers of DDR addresses. Inputs and outputs have one each, from FIRST_PORT to LAST_PORT."""

    SHARED = 0
    WEIGHTS = 1
    PRIVATE = 2
    FIRST_PORT = 3
    LAST_PORT = 7


class DataType(enum.IntEnum):
    """Element types of tensors."""

    FP32 = 0
    INT32 = 1
    UINT32 = 2
    BF16 = 3
    INT16 = 4
    UINT16 = 5
    INT8 = 6
    UINT8 = 7

    @property
    def size_bytes(self) -> int:
        """Of one element."""
        return (4, 4, 4, 2, 2, 2, 1, 1)[self]


class SectionKind(enum.IntEnum):
    """What a section holds."""

    WEIGHTS = 0
    COMMANDS = 1
    X86_FUNCTION = 2
    ARM_FUNCTION = 3
    DMA_BUFFER = 4
    #: Ours. The runtime loads sections of every kind that it knows, named by a routine or not, and passes over all others.
    PRIVATE = 255


class RoutineKind(enum.IntEnum):
    """Who runs a routine."""

    TPU = 0
    CPU = 1


@dataclass(frozen=True)
class Shape:
    """Sizes of a tensor's dimensions, normally four."""

    dim: tuple[int, ...] = slot(0, ["q"], ())


@dataclass(frozen=True)
class Quant:
    """`kind`: 0 none, 1 bf16, 2 int8 symmetric. Applications multiply by `qscale`: outputs to get floats from integers, inputs to
    get integers from floats, so for inputs it is the reciprocal of the scale."""

    kind: int = slot(0, "B", 0)
    max: float = slot(1, "f", 0.0)
    min: float = slot(2, "f", 0.0)
    zero_point: float = slot(3, "f", 0.0)
    qscale: float = slot(4, "f", 0.0)


class _Placed:
    """Something with an `offset` in DDR."""

    offset: int

    @property
    def region(self) -> int:
        """Base register of its address."""
        return self.offset >> _REGION_SHIFT

    @property
    def address(self) -> int:
        """In its region, in bytes."""
        return self.offset & ((1 << _REGION_SHIFT) - 1)


@dataclass(frozen=True)
class Tensor(_Placed):
    """A tensor that the runtime or a CPU routine sees; `dtype` is a `DataType`."""

    tensor_id: int = slot(0, "I", 0)
    name: str = slot(1, str, "")
    offset: int = slot(2, "q", 0)
    dtype: int = slot(3, "B", 0)
    shape: Shape | None = slot(4, Shape, None)
    stride: Shape | None = slot(5, Shape, None)
    quant: Quant | None = slot(6, Quant, None)
    overwrote: bool = slot(7, "?", False)
    scale: tuple[float, ...] | None = slot(8, ["f"], None)
    mean: tuple[float, ...] | None = slot(9, ["f"], None)
    pixel_format: str | None = slot(10, str, None)
    aligned: bool = slot(11, "?", False)
    size: int = slot(12, "I", 0)


@dataclass(frozen=True)
class TpuRoutine:
    """Names of the sections of a command stream."""

    commands: str | None = slot(0, str, None)
    dma_buffer: str | None = slot(1, str, None)


@dataclass(frozen=True)
class CpuRoutine:
    """A function of the runtime; its arguments as `arguments.py` reads them."""

    function: str = slot(0, str, "")
    arguments: bytes = slot(1, bytes, b"")


@dataclass(frozen=True)
class Routine:
    """A step of a program; `kind` is a `RoutineKind`."""

    kind: int = slot(0, "B", 0)
    inputs: tuple[str, ...] = slot(1, [str], ())
    outputs: tuple[str, ...] = slot(2, [str], ())
    tpu: TpuRoutine | None = slot(3, TpuRoutine, None)
    cpu: CpuRoutine | None = slot(4, CpuRoutine, None)


@dataclass(frozen=True)
class Program:
    """Routines in the order of their execution, and what they need of memory."""

    batch: int = slot(0, "I", 0)
    neuron_bytes: int = slot(1, "I", 0)
    inputs: tuple[str, ...] = slot(2, [str], ())
    outputs: tuple[str, ...] = slot(3, [str], ())
    tensors: tuple[Tensor, ...] = slot(4, [Tensor], ())
    routines: tuple[Routine, ...] = slot(5, [Routine], ())
    shared_bytes: int = slot(6, "I", 0)
    private_bytes: int = slot(7, "I", 0)


@dataclass(frozen=True)
class Section:
    """A piece of the file; `kind` is a `SectionKind`. Compressed ones are LZ4 blocks."""

    kind: int = slot(0, "B", 0)
    name: str = slot(1, str, "")
    size: int = slot(2, "I", 0)
    offset: int = slot(3, "I", 0)
    encrypted: bool = slot(4, "?", False)
    compressed: bool = slot(5, "?", False)
    decompressed_size: int = slot(6, "I", 0)


@dataclass(frozen=True)
class Weight(_Placed):
    """A constant that a CPU routine reads."""

    name: str = slot(0, str, "")
    offset: int = slot(1, "q", 0)
    size: int = slot(2, "I", 0)
    shape: Shape | None = slot(3, Shape, None)
    dtype: int = slot(4, "B", 0)


@dataclass(frozen=True)
class Model:
    """The flatbuffer's root. Slots 3 and 4, hints about pre- and postprocessing, are not read."""

    version: tuple[int, ...] = slot(0, "BBB", VERSION)
    name: str = slot(1, str, "")
    build_time: str = slot(2, str, "")
    weights: tuple[Weight, ...] = slot(5, [Weight], ())
    programs: tuple[Program, ...] = slot(6, [Program], ())
    sections: tuple[Section, ...] = slot(7, [Section], ())
    target: str = slot(8, str, "")
    mlir_version: str | None = slot(9, str, None)


@dataclass(frozen=True)
class CviModel:
    """A container: the chip of its header, its tables, the data of each section, and whether the MD5 is that of the file."""

    chip: str
    model: Model
    data: tuple[bytes, ...]
    md5_equal: bool = True

    def commands(self, section: int) -> list[Command]:
        """The commands of a section; `GADL-A011` when they cannot be decoded."""
        entry, known = self.model.sections[section], CHIPS.get(self.chip)
        if known is None:
            raise GadlError.of("GADL-A011", section=entry.name, detail=f"there is no table of commands for chip '{self.chip}'")
        if entry.encrypted or entry.compressed:
            raise GadlError.of("GADL-A011", section=entry.name, detail="they are encrypted or compressed")
        try:
            return commands(known.magic, self.data[section])
        except DescriptorError as error:
            raise GadlError.of("GADL-A011", section=entry.name, detail=str(error)) from None

    def encode(self) -> bytes:
        """The file's bytes; offsets of sections and the MD5 are made anew."""
        sections, blob = [], b""
        for entry, data in zip(self.model.sections, self.data, strict=True):
            blob = blob.ljust(-(-len(blob) // _ALIGNMENT) * _ALIGNMENT, b"\0")
            sections.append(replace(entry, offset=len(blob), size=len(data)))
            blob += data
        body = write(replace(self.model, sections=tuple(sections)))
        digest = hashlib.md5(body + blob, usedforsecurity=False).digest()
        return _HEADER.pack(MAGIC, len(body), *VERSION[:2], digest, self.chip.encode("ascii"), b"") + body + blob


def decode(data: bytes, where: str = "<memory>") -> CviModel:
    """The container in `data`; `GADL-A010` when it is foreign or damaged. A wrong MD5 is no error, as for the runtime."""
    if data[: len(MAGIC)] != MAGIC or len(data) < _HEADER.size:
        raise GadlError.of("GADL-A010", where, detail="it is not a .cvimodel file")
    _, size, major, minor, digest, chip, _ = _HEADER.unpack_from(data)
    if (major, minor) > VERSION[:2]:
        raise GadlError.of("GADL-A010", where, detail=f"it has version {major}.{minor}, known is up to {VERSION[0]}.{VERSION[1]}")
    start = _HEADER.size + size
    if start > len(data):
        raise GadlError.of("GADL-A010", where, detail="it is truncated")
    try:
        model = read(Model, data[_HEADER.size : start])
    except FlatbufferError as error:
        raise GadlError.of("GADL-A010", where, detail=str(error)) from None
    found = []
    for entry in model.sections:
        if start + entry.offset + entry.size > len(data):
            raise GadlError.of("GADL-A010", where, detail=f"section '{entry.name}' reaches beyond its end")
        found.append((start + entry.offset, entry.size))
    if sum(size for _, size in found) > _MOST_SHARED * len(data):
        raise GadlError.of("GADL-A010", where, detail="its sections share the same bytes too often")
    equal = hashlib.md5(data[_HEADER.size :], usedforsecurity=False).digest() == digest
    name = chip.split(b"\0")[0].decode("ascii", "replace")
    return CviModel(name, model, tuple(data[at : at + size] for at, size in found), equal)


@dataclass(frozen=True)
class Port:
    """An input or output: float = integer * `qscale` for both (`build` writes what applications expect). `region` and `address` are where the commands find it."""

    name: str
    shape: tuple[int, ...]
    qscale: float
    dtype: DataType = DataType.INT8
    region: int = 0
    address: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the tensor."""
        size = self.dtype.size_bytes
        for dim in self.shape:
            size *= dim
        return size


def place_ports(inputs: Sequence[Port], outputs: Sequence[Port], private_bytes: int) -> tuple[list[Port], list[Port], int]:
    """The ports with their places, and the private memory then needed: a base register each, inputs first; when they are
    used up, the others lie behind the program's own private memory."""
    placed: list[Port] = []
    for port in (*inputs, *outputs):
        region = Region.FIRST_PORT + len(placed)
        if region <= Region.LAST_PORT:
            placed.append(replace(port, region=int(region), address=0))
            continue
        address = -(-private_bytes // _ALIGNMENT) * _ALIGNMENT
        placed.append(replace(port, region=int(Region.PRIVATE), address=address))
        private_bytes = address + port.size_bytes
    return placed[: len(inputs)], placed[len(inputs) :], private_bytes


def _four_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What the runtime reads: axes of one element behind fewer axes, the first ones of more joined into one."""
    return (math.prod(shape[:-3]), *shape[-3:]) if len(shape) > 4 else (*shape, *(1,) * (4 - len(shape)))


def build(
    chip: Chip, name: str, weights: bytes, streams: Sequence[bytes], inputs: Sequence[Port], outputs: Sequence[Port],
    *, shared_bytes: int = 0, private_bytes: int = 0, extra: Mapping[str, bytes] = MappingProxyType({}),
) -> CviModel:  # fmt: skip
    """A model of one program: the streams run one after the other; ports are placed (`place_ports`).

    `extra` are sections of `SectionKind.PRIVATE`.
    """
    tensors = []
    for number, port in enumerate((*inputs, *outputs)):
        shape = Shape(_four_axes(port.shape))
        qscale = 1 / port.qscale if number < len(inputs) and port.qscale else port.qscale
        quant = Quant(kind=2 if port.dtype in (DataType.INT8, DataType.UINT8) else 0, qscale=qscale)
        offset = port.region << _REGION_SHIFT | port.address
        tensors.append(Tensor(number, port.name, offset, int(port.dtype), shape, quant=quant, size=port.size_bytes))
    given, made = tuple(port.name for port in inputs), tuple(port.name for port in outputs)
    names = [f"commands_{number}" for number in range(len(streams))]
    program = Program(
        batch=1, inputs=given, outputs=made, tensors=tuple(tensors), shared_bytes=shared_bytes, private_bytes=private_bytes,
        routines=tuple(Routine(RoutineKind.TPU, given, made, TpuRoutine(section)) for section in names),
    )  # fmt: skip
    sections = (
        Section(SectionKind.WEIGHTS, "weights"),
        *(Section(SectionKind.COMMANDS, section) for section in names),
        *(Section(SectionKind.PRIVATE, section) for section in extra),
    )
    model = Model(name=name, build_time=BUILD_TIME, programs=(program,), sections=sections, target=chip.name)
    return CviModel(chip.name, model, (weights, *streams, *extra.values()))


def rename(data: bytes, inputs: Sequence[str], outputs: Sequence[str], name: str) -> bytes:
    """A container of `build` whose ports and whose model have other names."""
    found = decode(data)
    (program,) = found.model.programs
    names = dict(zip((*program.inputs, *program.outputs), (*inputs, *outputs), strict=True))

    def renamed(old: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names[item] for item in old)

    program = replace(
        program, inputs=renamed(program.inputs), outputs=renamed(program.outputs),
        tensors=tuple(replace(tensor, name=names[tensor.name]) for tensor in program.tensors),
        routines=tuple(replace(r, inputs=renamed(r.inputs), outputs=renamed(r.outputs)) for r in program.routines),
    )  # fmt: skip
    return replace(found, model=replace(found.model, name=name, programs=(program,))).encode()
