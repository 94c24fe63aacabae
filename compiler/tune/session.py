# SPDX-License-Identifier: Apache-2.0
"""Tuning and replaying as the driver uses them: segments in, device programs out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, Severity, diagnostic
from gadl.compiler.diag.render import render
from gadl.passes.plan.plan import Plan
from gadl.targets.base import Backend, DeviceProgram, PlanSpace, Segment

from .budget import Budget, jobs_of
from .identity import segment_digest
from .log import Key, Record, TuningLog, best_first
from .measure import Measurement, Measurer, SimulatorMeasurer
from .search import Progress, Search, Trial

Warn = Callable[[Diagnostic], None]
#: Plans of other compiler versions that a search starts from, beside the default.
MOST_HINTS = 8


@dataclass(frozen=True)
class TuneOptions:
    """`budget`: None replays only. `jobs`: 0 for all cores."""

    log: Path
    budget: Budget | None = None
    seed: int = 0
    jobs: int = 0


@dataclass(frozen=True)
class Tuned:
    """The programs, and the report's `tune` section."""

    programs: list[DeviceProgram]
    report: dict[str, Any]


def compile_tuned(
    backend: Backend, make_space: Callable[[Segment], PlanSpace], segments: Sequence[Segment], compiler: str, target: str,
    options: TuneOptions, warn: Warn, watch: Callable[[Progress], None],
) -> Tuned:  # fmt: skip
    """Search (with a budget), then compile every segment with the best plan that the log has.

    A search only adds to the log; what is compiled always comes from the log. So the log alone gives the same program again.
    """
    start, log = time.monotonic(), TuningLog(options.log)
    records, report = log.read(warn), dict[str, Any](log=str(options.log))
    spaces = [make_space(segment) for segment in segments]
    keys = [Key(compiler, target, space.machine_digest, segment_digest(s, space.compressed)) for space, s in zip(spaces, segments, strict=True)]
    if options.budget is not None:
        log.append([])
        whole = sum(len(s.ops) for s in segments) or 1
        totals: dict[str, Any] = {"measured": 0, "failed": 0, "default_cycles": 0.0}
        for space, key, segment in zip(spaces, keys, segments):
            made = _tune(space, key, records, log, options.budget.share(len(segment.ops) / whole), options, watch)
            records += made.fresh
            totals["measured"] += len(made.fresh)
            totals["failed"] += sum(r.cycles is None for r in made.fresh)
            totals["default_cycles"] += made.default_cycles
        report |= totals
    programs = [_replay(backend, *item, records, warn) for item in zip(spaces, keys, segments, strict=True)]
    if options.budget is not None:
        best = [best_first(records, key) for key in keys]
        report["best_cycles"] = sum((found[0].cycles or 0.0) for found in best if found)
        report["best_cycles"], report["default_cycles"] = round(report["best_cycles"]), round(report["default_cycles"])
    report["seconds"] = round(time.monotonic() - start, 3)
    return Tuned(programs, report)


@dataclass(frozen=True)
class _Searched:
    fresh: list[Record]
    default_cycles: float


def _tune(
    space: PlanSpace, key: Key, records: Sequence[Record], log: TuningLog, budget: Budget, options: TuneOptions,
    watch: Callable[[Progress], None],
) -> _Searched:  # fmt: skip
    """Search one segment. Records of this seed stand for measurements; those of other seeds are plans to go on from."""
    mine = [r for r in records if r.key == key]
    fresh: list[Record] = []

    def found(trials: list[Trial]) -> None:
        made = [Record(key, t.plan, t.cycles, options.seed, t.round, t.problem) for t in trials]
        log.append(made)
        fresh.extend(made)

    with SimulatorMeasurer(space, jobs_of(options.jobs)) as measurer:
        trials = search(space, measurer, mine, _hints(records, key), budget, options.seed, found, watch)
    return _Searched(fresh, trials[0].cycles or 0.0)


def search(
    space: PlanSpace, measurer: Measurer, mine: Sequence[Record], hints: Sequence[Plan], budget: Budget, seed: int,
    found: Callable[[list[Trial]], None], watch: Callable[[Progress], None],
) -> list[Trial]:  # fmt: skip
    """A search that takes measurements it made before from the log: one that was interrupted goes on where it stood."""
    own = {r.plan.digest: Measurement(r.cycles, r.problem) for r in mine if r.seed == seed}
    run = Search(space, measurer, seed, own, hints)
    run.learn((r.plan, Measurement(r.cycles, r.problem)) for r in mine if r.seed != seed and r.plan.digest not in own)
    return run.run(budget, found, watch)


def _hints(records: Sequence[Record], key: Key) -> list[Plan]:
    """The best plans that other versions of the compiler found for the same segment and machine."""
    other = [r for r in records if r.cycles is not None and r.key.compiler != key.compiler]
    other = [r for r in other if (r.key.target, r.key.machine, r.key.segment) == (key.target, key.machine, key.segment)]
    return [r.plan for r in sorted(other, key=lambda r: r.cycles or 0.0)[:MOST_HINTS]]


def _replay(
    backend: Backend, space: PlanSpace, key: Key, segment: Segment, records: Sequence[Record], warn: Warn
) -> DeviceProgram:  # fmt: skip
    """The segment with the best plan of the log that can be used, else with the default plan."""
    found = best_first(records, key)
    if not found:
        warn(diagnostic("GADL-P011", "", Severity.WARNING, segment=segment.index, target=key.target, compiler=key.compiler))
    for record in found:
        problem = "it is not a plan of this segment"
        if space.legal(record.plan):
            try:
                return space.compile(record.plan)
            except GadlError as error:
                problem = render(error.diagnostics[0]).splitlines()[0]
            except (ValueError, ArithmeticError, LookupError) as error:
                problem = str(error) or type(error).__name__
        warn(diagnostic("GADL-P012", "", Severity.WARNING, segment=segment.index, plan=record.plan.digest, detail=problem))
    return backend.compile(segment)
