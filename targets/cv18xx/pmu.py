# SPDX-License-Identifier: Apache-2.0
"""What the chip's performance monitor measured, against the estimate of the same commands.

With TPU_ENABLE_PMU=1 the runtime on a board records start and end of every descriptor and prints sums after each run. With
TPU_PMUBUF_OUTPUT_FILE=NAME it also writes the records: builds of the runtime differ, some write text to NAME_des.csv, some the
whole DMA buffer to NAME. All three are read here:

- text: type (1 load, 2 store, 3 move, 4 TIU), descriptor id, two event counts (of which the second counts 16-byte bursts on
  the bus), an empty column, start, duration, end;
- DMA buffer: a header (magic B5B5, the TPU's clock in Hz, size and place of the records), records of 16 bytes: type 4 bits, id
  16, event counts 22 each, end u32, start u32;
- printed sums: tpu_clock, tdma_exe_tick, tiu_exe_tick, inference_tick.

Times are 32-bit ticks of the TPU's clock. A transfer from DDR to DDR gives two records, a load and a store, of the same id and
times. All this is read from the vendor's published runtime and driver sources; no dump of a board has been seen.
"""

from __future__ import annotations

import enum
import re
import statistics
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gadl.compiler.diag import GadlError

from .asm import operation
from .chip import Chip
from .cost import MB_PER_S, schedule, tdma_bytes, time_ns
from .descriptor import Command
from .isa import Direction, Engine

_TICKS = 1 << 32
_BURST_BYTES = 16
_COLUMNS = 8
_MAGIC = b"\xb5\xb5"
#: Magics, size, three counts, clock, size and place of the records.
_HEADER = struct.Struct("<HHIIIIIII")
_RECORD = struct.Struct("<QII")
_SUMS = ("tpu_clock", "tdma_exe_tick", "tiu_exe_tick", "inference_tick")
_ID = {Engine.TIU: "cmd_id_tpu", Engine.TDMA: "cmd_id"}


class Kind(enum.IntEnum):
    """What a record measured."""

    LOAD = 1
    STORE = 2
    MOVE = 3
    TIU = 4

    @property
    def engine(self) -> Engine:
        """Who executed it."""
        return Engine.TIU if self is Kind.TIU else Engine.TDMA


#: The records that a transfer of each direction may give.
_EXPECTED = {
    Direction.LOAD: {Kind.LOAD}, Direction.STORE: {Kind.STORE}, Direction.DDR: {Kind.LOAD, Kind.STORE, Kind.MOVE}, Direction.LOCAL: {Kind.MOVE},
}  # fmt: skip


def id_of(command: Command) -> int:
    """A command's own number on its engine."""
    return command.fields[_ID[command.engine]]


@dataclass(frozen=True)
class Record:
    """One descriptor: times in ticks, `bytes_moved` on the bus (0 for the TIU)."""

    kind: Kind
    id: int
    start: int
    end: int
    bytes_moved: int = 0


@dataclass(frozen=True)
class Dump:
    """The records of a run, and the clock where the dump tells it."""

    records: tuple[Record, ...]
    mhz: float | None = None


@dataclass(frozen=True)
class Sums:
    """What the runtime prints: microseconds of each engine and of the run."""

    tdma_us: float
    tiu_us: float
    total_us: float


@dataclass(frozen=True)
class Measured:
    """A command with its times in microseconds, from the first start on: measured and estimated."""

    command: Command
    start_us: float
    end_us: float
    estimated_start_us: float
    estimated_end_us: float
    bytes_moved: int
    estimated_bytes: int

    @property
    def time_us(self) -> float:
        """Measured."""
        return self.end_us - self.start_us

    @property
    def estimated_us(self) -> float:
        """How long it should have taken."""
        return self.estimated_end_us - self.estimated_start_us

    @property
    def name(self) -> str:
        """The operation."""
        return operation(self.command)


@dataclass(frozen=True)
class Group:
    """Commands of one kind: sums, and the median of measured to estimated time of those that take time."""

    name: str
    commands: int
    measured_us: float
    estimated_us: float
    median_ratio: float | None
    bytes_moved: int
    estimated_bytes: int


@dataclass(frozen=True)
class Comparison:
    """A dump against a stream. `missing`: commands of the stream that were not recorded."""

    commands: tuple[Measured, ...]
    missing: int
    measured_us: float
    estimated_us: float

    def by_engine(self) -> list[Group]:
        """TIU, and the TDMA by direction."""
        return self._groups(lambda m: "TIU" if m.command.engine == Engine.TIU else f"TDMA {Direction(m.command.fields['trans_dir']).name}")

    def by_operation(self) -> list[Group]:
        """The longest first."""
        return sorted(self._groups(lambda m: m.name), key=lambda g: -g.measured_us)

    def worst(self, count: int) -> list[Measured]:
        """Commands whose time is farthest from the estimate."""
        return sorted(self.commands, key=lambda m: -abs(m.time_us - m.estimated_us))[:count]

    def _groups(self, key: Callable[[Measured], str]) -> list[Group]:
        found: dict[str, list[Measured]] = {}
        for item in self.commands:
            found.setdefault(key(item), []).append(item)
        return [_group(name, items) for name, items in sorted(found.items(), reverse=True)]


def _group(name: str, items: Sequence[Measured]) -> Group:
    ratios = [m.time_us / m.estimated_us for m in items if m.estimated_us > 0]
    return Group(
        name, len(items), sum(m.time_us for m in items), sum(m.estimated_us for m in items), statistics.median(ratios) if ratios else None,
        sum(m.bytes_moved for m in items), sum(m.estimated_bytes for m in items),
    )  # fmt: skip


def read_sums(text: str) -> Sums | None:
    """The last sums that a run printed, or None."""
    ticks = [re.findall(rf"{name}:?\s+(\d+)", text) for name in _SUMS]
    if not all(ticks) or int(ticks[0][-1]) == 0:
        return None
    mhz, tdma, tiu, total = (int(found[-1]) for found in ticks)
    return Sums(tdma / mhz, tiu / mhz, total / mhz)


def read_dump(data: bytes, where: str) -> Dump:
    """The records of a dump, as text or DMA buffer; `GADL-A012` says what is wrong."""
    return _read_buffer(data, where) if data[:2] == _MAGIC else Dump(tuple(_read_text(data.decode("utf-8", "replace"), where)))


def _read_text(text: str, where: str) -> list[Record]:
    found: list[Record] = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if cells == [""] or cells[0] == "pmutype":
            continue
        try:
            kind, id_, _, bursts, _, start, duration, end = (int(cell) for cell in cells[:_COLUMNS])
            record = Record(Kind(kind), id_, start, end, 0 if kind == Kind.TIU else bursts * _BURST_BYTES)
        except ValueError:
            raise GadlError.of("GADL-A012", f"{where}:{number}", detail="this line is not a record") from None
        fits = 0 <= id_ < 1 << 16 and 0 <= bursts < 1 << 22 and 0 <= start < _TICKS and 0 <= end < _TICKS
        if not fits or duration % _TICKS != (end - start) % _TICKS:
            raise GadlError.of("GADL-A012", f"{where}:{number}", detail="the numbers of this line do not fit together")
        found.append(record)
    if not found:
        raise GadlError.of("GADL-A012", where, detail="it holds no record")
    return _joined(found)


def _read_buffer(data: bytes, where: str) -> Dump:
    if len(data) < _HEADER.size:
        raise GadlError.of("GADL-A012", where, detail="it is truncated")
    *_, hertz, size, offset = _HEADER.unpack_from(data)
    if size == 0 or offset + size > len(data):
        raise GadlError.of("GADL-A012", where, detail="its records lie outside")
    found = []
    for at in range(offset, offset + size - _RECORD.size + 1, _RECORD.size):
        bits, end, start = _RECORD.unpack_from(data, at)
        if bits & 0xFFFFFFFF == 0:
            break
        if bits & 15 not in Kind._value2member_map_:
            raise GadlError.of("GADL-A012", where, detail=f"the record at byte {at} is of no known type")
        kind = Kind(bits & 15)
        found.append(Record(kind, bits >> 4 & 0xFFFF, start, end, 0 if kind is Kind.TIU else (bits >> 42) * _BURST_BYTES))
    if not found:
        raise GadlError.of("GADL-A012", where, detail="it holds no record")
    return Dump(tuple(_joined(found)), hertz / 1e6 or None)


def _joined(records: Iterable[Record]) -> list[Record]:
    """Transfers from DDR to DDR as one record each."""
    found: list[Record] = []
    last = -1
    for record in records:
        before = found[last] if last >= 0 else None
        if record.kind is Kind.TIU:
            found.append(record)
        elif before is not None and (before.id, before.start, before.end) == (record.id, record.start, record.end):
            found[last] = Record(before.kind, before.id, before.start, before.end, before.bytes_moved + record.bytes_moved)
        else:
            last = len(found)
            found.append(record)
    return found


def compare(records: Sequence[Record], commands: Sequence[Command], chip: Chip, mhz: float, where: str, mb_per_s: float = MB_PER_S) -> Comparison:
    """Records against the commands that they are of, at a clock of `mhz`; `GADL-A013` when they are of others.

    Each engine works in order, so its records are its commands' in their order, with gaps where the monitor lost some.
    """
    places = {engine: [i for i, c in enumerate(commands) if c.engine == engine] for engine in Engine}
    next_ = dict.fromkeys(Engine, 0)
    spans = schedule(commands, [time_ns(command, chip, mb_per_s) for command in commands])
    times = _unwrapped(records)
    found = []
    for record, (start, end) in zip(records, times, strict=True):
        engine = record.kind.engine
        own = places[engine]
        at = next((n for n in range(next_[engine], len(own)) if id_of(commands[own[n]]) == record.id), None)
        if at is None:
            raise GadlError.of("GADL-A013", where, detail=f"the commands of the {engine.name} do not go on with id {record.id}")
        command = commands[own[at]]
        if engine == Engine.TDMA and record.kind not in _EXPECTED[Direction(command.fields["trans_dir"])]:
            detail = f"command {record.id} of the TDMA was measured as {record.kind.name} and is {operation(command)}"
            raise GadlError.of("GADL-A013", where, detail=detail)
        next_[engine] = at + 1
        begin, done = spans[own[at]]
        expected = tdma_bytes(command.fields).ddr if engine == Engine.TDMA else 0
        found.append(Measured(command, start / mhz, end / mhz, begin / 1000, done / 1000, record.bytes_moved, expected))
    length = max(end for _, end in times) - min(start for start, _ in times)
    return Comparison(tuple(found), len(commands) - len(found), length / mhz, max(end for _, end in spans) / 1000)


def _unwrapped(records: Sequence[Record]) -> list[tuple[int, int]]:
    """Start and end in ticks from the first start on. Neighbouring times are less than half the counter's range apart."""
    now, found = records[0].start, []
    for record in records:
        now += _signed(record.start - now)
        start = now
        now += (record.end - record.start) % _TICKS
        found.append((start, now))
    first = min(start for start, _ in found)
    return [(start - first, end - first) for start, end in found]


def _signed(difference: int) -> int:
    return (difference + _TICKS // 2) % _TICKS - _TICKS // 2
