# SPDX-License-Identifier: Apache-2.0
"""The tuning log: one JSON object a line. Logs are appended to, committed, concatenated and replayed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, Severity, diagnostic
from gadl.passes.plan.plan import Plan

SCHEMA = 1
#: Longer lines are not ours.
MOST_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Key:
    """What a measurement holds for: it says nothing about another compiler, machine or segment."""

    compiler: str
    target: str
    machine: str
    segment: str


@dataclass(frozen=True)
class Record:
    """One measurement. `cycles` is None where the plan failed, and `problem` then says why."""

    key: Key
    plan: Plan
    cycles: float | None
    seed: int
    round: int
    problem: str = ""

    def to_line(self) -> str:
        """The line, without its end."""
        head = {"schema": SCHEMA, **self.key.__dict__, "seed": self.seed, "round": self.round, "cycles": self.cycles}
        problem = {"problem": self.problem} if self.problem else {}
        text = json.dumps({**head, **problem}, ensure_ascii=False, separators=(",", ":"))
        return f'{text[:-1]},"plan":{self.plan.to_json()}}}'

    @staticmethod
    def from_line(line: bytes) -> Record:
        """Read `to_line`'s text; `ValueError` when it is not one."""
        try:
            data = json.loads(line.decode())
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']!r}")
            key = Key(*(_text(data[name]) for name in ("compiler", "target", "machine", "segment")))
            plan = Plan.from_json(json.dumps(data["plan"]))
            return Record(key, plan, _cycles(data["cycles"]), int(data["seed"]), int(data["round"]), _text(data.get("problem", "")))
        except KeyError as error:
            raise ValueError(f"no {error}") from None
        except (TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(str(error) or type(error).__name__) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is not text")
    return value


def _cycles(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"cycles {str(value)[:40]}")
    return float(value)


class TuningLog:
    """A log file. It need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def read(self, warn: Callable[[Diagnostic], None]) -> list[Record]:
        """All records in order; `GADL-P010` for each line that is none, `GADL-U004` when the file cannot be read."""
        found: list[Record] = []
        try:
            with self.path.open("rb") as file:
                number = 0
                while line := file.readline(MOST_LINE_BYTES):
                    number += 1
                    if not line.strip():
                        continue
                    try:
                        found.append(Record.from_line(line))
                    except ValueError as error:
                        warn(diagnostic("GADL-P010", f"{self.path}:{number}", Severity.WARNING, detail=str(error)[:120]))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise GadlError.of("GADL-U004", self.path, path=self.path, detail=error.strerror or str(error)) from None
        return found

    def append(self, records: Iterable[Record]) -> None:
        """Add records, each line by one write: several processes may append to one file.

        A line that an earlier process left unfinished is ended first. `GADL-U004` when the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                if size and os.lseek(handle, size - 1, os.SEEK_SET) >= 0 and os.read(handle, 1) != b"\n":
                    os.write(handle, b"\n")
                for record in records:
                    os.write(handle, record.to_line().encode() + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            raise GadlError.of("GADL-U004", self.path, path=self.path, detail=error.strerror or str(error)) from None


def best_first(records: Iterable[Record], key: Key) -> list[Record]:
    """The successful records of a key, fewest cycles first; of equals the earlier line."""
    return sorted((r for r in records if r.key == key and r.cycles is not None), key=lambda r: r.cycles or 0.0)
