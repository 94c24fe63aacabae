# SPDX-License-Identifier: Apache-2.0
"""Machine descriptions: a TOML file, checked key by key against one declaration."""

from __future__ import annotations

import hashlib
import math
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "machines"
#: Machines for compiling; the other files are timing presets.
CLASSES = ("edge", "mid", "large")


@dataclass(frozen=True)
class Parameter:
    """A number of the description: TOML section and key (with index or sub-key), unit, range, default (None: required)."""

    section: str
    key: str
    part: str | int | None
    low: float
    high: float
    default: float | None
    doc: str
    words: tuple[str, ...] = ()

    @property
    def c_name(self) -> str:
        """The enumerator in the C header."""
        return "_".join(str(p) for p in (self.section, self.key, self.part) if p is not None)

    @property
    def path(self) -> str:
        """The key as users write it."""
        part = "" if self.part is None else f"[{self.part}]" if isinstance(self.part, int) else f".{self.part}"
        return f"{self.section}.{self.key}{part}"


def _p(path: str, low: float, high: float, default: float | None, doc: str, *words: str) -> Parameter:
    section, key, *rest = path.split(".")
    part: str | int | None = (int(rest[0]) if rest[0].isdigit() else rest[0]) if rest else None
    return Parameter(section, key, part, low, high, default, doc, words)


PARAMETERS: tuple[Parameter, ...] = (
    _p("machine.clock_mhz", 1, 10_000, None, "clock, MHz"),
    _p("machine.cores", 1, 8, 1, "cores"),
    _p("mma.shape.0", 1, 1024, None, "Tm: output pixels per cycle"),
    _p("mma.shape.1", 1, 1024, None, "Tn: output channels per cycle"),
    _p("mma.shape.2", 1, 1024, None, "Tk: products summed per cycle"),
    _p("mma.rate.i8", 0.01, 16, 1, "rate of i8"),
    _p("mma.rate.i8w4", 0.01, 16, 1, "rate of i8 with 4-bit weights"),
    _p("mma.rate.i16w8", 0.01, 16, 0.5, "rate of i16 with i8 weights"),
    _p("mma.rate.f16", 0.01, 16, 0.5, "rate of f16"),
    _p("mma.rate.bf16", 0.01, 16, 0.5, "rate of bf16"),
    _p("mma.flow", 0, 2, 0, "dataflow", "stream", "ws", "os"),
    _p("mma.issue", 0, 1000, 4, "cycles to launch an instruction, overlapped when the queue is not empty"),
    _p("mma.fill", 0, 10_000, 12, "cycles from the last operand to the result"),
    _p("mma.reload", 0, 10_000, 0, "cycles to load a stationary tile"),
    _p("mma.shadow", 0, 1, 1, "the next tile loads behind the current one"),
    _p("mma.dw_taps", 1, 64, 4, "depthwise: taps per cycle for Tm x Tn outputs"),
    _p("mma.acc_kib", 1, 4096, 32, "accumulator store, KiB"),
    _p("mma.epi_lanes", 1, 4096, 64, "drained outputs per cycle"),
    _p("vec.lanes", 1, 4096, 64, "i8 lanes; 16-bit half, 32-bit a quarter"),
    _p("vec.issue", 0, 1000, 4, "cycles to launch an instruction"),
    _p("vec.sfu_lanes", 1, 4096, 8, "special-function results per cycle"),
    _p("sram.kib", 1, 65_536, None, "SRAM per core, KiB"),
    _p("sram.banks", 1, 256, 16, "banks"),
    _p("sram.bank_bytes", 1, 256, 16, "bytes per bank and cycle"),
    _p("sram.groups", 1, 64, 4, "bank groups, chosen by the high address bits"),
    _p("sram.latency", 0, 1000, 4, "cycles"),
    _p("dma.channels", 2, 4, 3, "queues: the last stores, the others load"),
    _p("dma.issue", 0, 1000, 16, "cycles to launch a transfer"),
    _p("dma.max_outstanding", 1, 1024, 16, "bursts in flight per channel"),
    _p("dram.bytes_per_cycle", 0.01, 4096, 8, "pin rate"),
    _p("dram.burst", 1, 4096, 64, "bytes per burst"),
    _p("dram.latency_rd", 0, 10_000, 120, "cycles"),
    _p("dram.latency_wr", 0, 10_000, 60, "cycles"),
    _p("dram.page_bytes", 64, 1 << 20, 2048, "bytes per page"),
    _p("dram.page_miss", 0, 10_000, 20, "cycles when a transfer enters a page"),
    _p("dram.eff", 0.01, 1, 0.8, "part of the pin rate that is reached"),
    _p("codec.weights", 0, 1, 0, "weight compression", "none", "zb1"),
    _p("cmd.fetch_bytes_per_cycle", 0.01, 4096, 8, "command fetch"),
    _p("cmd.sems", 1, 64, 64, "semaphores"),
    _p("noc.bytes_per_cycle", 0, 65_536, 0, "between cores; 0: no network"),
    _p("noc.multicast", 0, 1, 0, "one DRAM read feeds several cores"),
    _p("noc.latency", 0, 10_000, 0, "cycles"),
)
_TEXT_KEYS = {("machine", "name"), ("machine", "isa")}


@dataclass(frozen=True)
class Machine:
    """A checked description. `values` are in the order of `PARAMETERS`."""

    name: str
    isa: str
    values: tuple[float, ...]

    def __getitem__(self, path: str) -> float:
        """A parameter by path, for example `mma.shape.0`."""
        return self.values[_INDEX[path]]

    def integer(self, path: str) -> int:
        """A parameter that is a whole number."""
        return int(self[path])

    @cached_property
    def record(self) -> bytes:
        """The canonical form that containers hold: f64 values in declared order."""
        return struct.pack(f"<{len(self.values)}d", *self.values)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form."""
        return hashlib.sha256(self.record).digest()

    @property
    def sram_bytes(self) -> int:
        """SRAM of one core."""
        return self.integer("sram.kib") * 1024

    @property
    def acc_bytes(self) -> int:
        """Accumulator store of one core."""
        return self.integer("mma.acc_kib") * 1024

    @property
    def load_queues(self) -> int:
        """Number of load queues."""
        return self.integer("dma.channels") - 1

    @property
    def clock_mhz(self) -> float:
        """Millions of cycles per second."""
        return self["machine.clock_mhz"]

    @property
    def macs_per_cycle(self) -> float:
        """Products of i8 of all cores in a cycle."""
        return math.prod(self[f"mma.shape.{i}"] for i in range(3)) * self["machine.cores"]

    @property
    def clock_hz(self) -> float:
        """Cycles per second."""
        return self["machine.clock_mhz"] * 1e6


def _path_key(parameter: Parameter) -> str:
    return ".".join(str(p) for p in (parameter.section, parameter.key, parameter.part) if p is not None)


_INDEX = {_path_key(p): i for i, p in enumerate(PARAMETERS)}


def machine_names() -> tuple[str, ...]:
    """The machines that come with the compiler: classes first, then presets."""
    presets = sorted(p.stem for p in FOLDER.glob("*.toml") if p.stem not in CLASSES)
    return (*CLASSES, *presets)


def load_machine(name: str | Path) -> Machine:
    """A machine by name, or from a TOML file.

    Raises `GadlError` with every problem: `GADL-T010` no such machine, `GADL-T011` not TOML, `GADL-T012` unknown key,
    `GADL-T013` missing key, `GADL-T014` value out of range.
    """
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise GadlError.of("GADL-T010", name=name, known=list(machine_names()))
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("larger than 1 MiB")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GadlError.of("GADL-T011", path, detail=str(error)) from None
    return parse_machine(data, str(path))


def parse_machine(data: Mapping[str, Any], where: str = "") -> Machine:
    """A machine from parsed TOML; every problem is reported at once."""
    problems = list(_unknown(data, where))
    values: list[float] = []
    for parameter in PARAMETERS:
        given = _lookup(data, parameter)
        if given is None:
            if parameter.default is None:
                problems.append(diagnostic("GADL-T013", where, key=parameter.path))
                values.append(parameter.low)
                continue
            given = parameter.default
        number = _number(given, parameter)
        if number is None or not parameter.low <= number <= parameter.high:
            allowed = ", ".join(parameter.words) or f"{parameter.low:g} .. {parameter.high:g}"
            problems.append(diagnostic("GADL-T014", where, key=parameter.path, value=str(given)[:60], allowed=allowed))
            number = parameter.low
        values.append(number)
    GadlError.raise_if(problems)
    section = data.get("machine", {})
    return Machine(str(section.get("name", "machine")), str(section.get("isa", "1.0")), tuple(values))


def _number(given: Any, parameter: Parameter) -> float | None:
    """A value as a finite number; words count from 0."""
    if isinstance(given, str):
        return float(parameter.words.index(given)) if given in parameter.words else None
    if isinstance(given, (bool, int, float)) and math.isfinite(given) and not (parameter.words and not isinstance(given, float)
                                                                              and given != parameter.default):
        return float(given)
    return None


def _lookup(data: Mapping[str, Any], parameter: Parameter) -> Any:
    section = data.get(parameter.section)
    value = section.get(parameter.key) if isinstance(section, Mapping) else None
    if parameter.part is None or value is None:
        return value
    if isinstance(parameter.part, int):
        return value[parameter.part] if isinstance(value, list) and len(value) > parameter.part else "?"
    return value.get(parameter.part) if isinstance(value, Mapping) else "?"


def _unknown(data: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    known = {(p.section, p.key) for p in PARAMETERS} | _TEXT_KEYS
    parts = {(p.section, p.key, p.part) for p in PARAMETERS}
    for section, body in data.items():
        if not isinstance(body, Mapping):
            yield diagnostic("GADL-T012", where, key=section)
            continue
        for key, value in body.items():
            if (section, key) not in known:
                yield diagnostic("GADL-T012", where, key=f"{section}.{key}")
            elif isinstance(value, Mapping):
                for part in value:
                    if (section, key, part) not in parts:
                        yield diagnostic("GADL-T012", where, key=f"{section}.{key}.{part}")
