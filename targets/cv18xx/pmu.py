# SPDX-License-Identifier: Apache-2.0
"""What the chip's performance monitor measured, against the estimate of the same commands.

With TPU_ENABLE_PMU=1 the runtime on a board records start and end of every descriptor, and with TPU_PMUBUF_OUTPUT_FILE=NAME it
writes them to NAME_des.csv after each run. Columns used: type (1 load, 2 store, 3 move, 4 TIU), descriptor id, two event counts
(of which the second counts 16-byte bursts on the bus), an empty one, start, duration, end. Times are 32-bit ticks of the TPU's
clock. A transfer from DDR to DDR gives two records, a load and a store, of the same id and times. All this is read from the
vendor's published runtime sources; no dump of a board has been seen.
"""

from __future__ import annotations

import enum
import statistics
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


def parse(text: str, where: str) -> list[Record]:
    """The records of a NAME_des.csv; `GADL-A012` names the line at fault."""
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
        if not (0 <= id_ < 1 << 16 and 0 <= bursts < 1 << 22 and 0 <= start < _TICKS and 0 <= end < _TICKS and duration % _TICKS == (end - start) % _TICKS):
            raise GadlError.of("GADL-A012", f"{where}:{number}", detail="the numbers of this line do not fit together")
        found.append(record)
    if not found:
        raise GadlError.of("GADL-A012", where, detail="it holds no record")
    return _joined(found)


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
