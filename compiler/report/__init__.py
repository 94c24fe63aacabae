# SPDX-License-Identifier: Apache-2.0
"""Sight of a compiled model: where its cycles and bytes go, as JSON, Perfetto trace, page and table."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.diag import GadlError
from gadl.compiler.diag.files import write_atomically
from gadl.compiler.registry import target
from gadl.passes.plan.plan import Plan
from gadl.targets.profile import ProgramProfile

from .chrome import trace_json
from .measure import measure
from .model import Performance
from .page import render_page

__all__ = ["Performance", "observe", "write_report"]


def observe(file: ArtifactFile) -> tuple[Performance | None, list[ProgramProfile]]:
    """Run the timing of an artefact's programs with a trace; None when it has none, or its target cannot.

    `GADL-A001` when a program or plan is damaged.
    """
    programs = file.programs
    look = target(str(file.manifest.get("target", ""))).profile if programs else None
    if look is None:
        return None, []
    try:
        profiles = [look(program) for program in programs]
        plans = [Plan.from_json(file.section("plan", index).decode()) for index in range(len(programs))]
        return measure(profiles, plans), profiles
    except (ValueError, LookupError, TypeError, RuntimeError, struct.error) as error:
        raise GadlError.of("GADL-A001", file.where, detail=str(error)) from error


def write_report(file: ArtifactFile, report: dict[str, Any], folder: Path) -> None:
    """Write `report.json`, `report.html` and, where a device was simulated, `trace.json`; `report` gains `performance`."""
    performance, profiles = observe(file)
    report["performance"] = None if performance is None else performance.to_json()
    folder.mkdir(parents=True, exist_ok=True)
    if profiles:
        write_atomically(folder / "trace.json", trace_json(profiles).encode())
    write_atomically(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1, default=str).encode() + b"\n")
    write_atomically(folder / "report.html", render_page(report, performance, profiles).encode())

