# SPDX-License-Identifier: Apache-2.0
"""`gadl profile`: what a board measured, against what was estimated."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadl.compiler.diag import ExitCode, GadlError
from gadl.compiler.diag.catalog import Text
from gadl.compiler.diag.files import write_atomically

from .common import command, say

if TYPE_CHECKING:
    from gadl.targets.cv18xx.chip import Chip
    from gadl.targets.cv18xx.descriptor import Command
    from gadl.targets.cv18xx.pmu import Comparison, Dump, Group, Sums

_GROUP, _COUNT = Text("commands", "命令"), Text("count", "数量")
_MEASURED, _ESTIMATED, _RATIO = Text("measured us", "实测 us"), Text("estimated us", "估计 us"), Text("ratio", "比值")
_TOTAL, _WORST = Text("whole run", "整次运行"), Text("farthest from the estimate", "与估计相差最大")
_BYTES = Text("DDR bytes of all transfers: {0:,} measured, {1:,} estimated", "全部传输的 DDR 字节：实测 {0:,}，估计 {1:,}")
_MISSING = Text("{0} commands of the model are not in the dump", "转储中缺少模型的 {0} 条命令")


@click.group()
def profile() -> None:
    """Measurements of boards. / 开发板实测数据。"""


@profile.command("import")
@click.argument("dump", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--clock", type=click.FloatRange(1), help="MHz that the runtime prints as tpu_clock [default: the dump's, else the chip's]")
@click.option("--bandwidth", type=click.FloatRange(1), help="MB/s of the DDR for the estimate [default: 3772]")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="File for all commands, times in us")
@click.option("--json", "as_json", is_flag=True)
@command
def import_(dump: Path, model: Path, clock: float | None, bandwidth: float | None, table: Path | None, as_json: bool) -> int:
    """Compare the PMU's DUMP of a run with the estimate for MODEL. / 将 PMU 转储 DUMP 与模型 MODEL 的估计比较。

    DUMP is what the CV18xx vendor's runtime wrote (TPU_PMUBUF_OUTPUT_FILE) or printed, MODEL the .cvimodel or .gadl that ran.
    """
    from gadl.targets.cv18xx.cost import MB_PER_S
    from gadl.targets.cv18xx.pmu import read_dump, read_sums

    try:
        data = dump.read_bytes()
    except OSError as error:
        raise GadlError.of("GADL-A012", dump, detail=error.strerror or str(error)) from None
    speed = bandwidth or MB_PER_S
    sums = read_sums(data.decode("utf-8", "replace"))
    if sums is not None:
        rows = _compare_sums(sums, model, speed)
        shown = json.dumps({name: {"measured_us": a, "estimated_us": b} for name, a, b in rows}, indent=1)
        for line in [shown] if as_json else _sum_lines(rows):
            click.echo(line)
        return ExitCode.OK
    found = _compare(read_dump(data, str(dump)), model, clock, speed, str(dump))
    if table is not None:
        write_atomically(table, _table(found).encode())
    for line in [json.dumps(_numbers(found), ensure_ascii=False, indent=1)] if as_json else _lines(found):
        click.echo(line)
    return ExitCode.OK


def _compare(dump: Dump, model: Path, clock: float | None, mb_per_s: float, where: str) -> Comparison:
    """Against the stream of the model that the records are of."""
    from gadl.targets.cv18xx.descriptor import DescriptorError
    from gadl.targets.cv18xx.pmu import compare

    problems: list[GadlError] = []
    for chip, commands in _streams(model):
        try:
            return compare(dump.records, commands, chip, clock or dump.mhz or chip.clock_mhz, where, mb_per_s)
        except DescriptorError as error:  # commands that cannot run
            problems.append(GadlError.of("GADL-A013", model, detail=str(error)))
        except GadlError as error:
            problems.append(error)
    raise problems[0] if problems else GadlError.of("GADL-A013", model, detail="it has no commands")


def _compare_sums(sums: Sums, model: Path, mb_per_s: float) -> list[tuple[str, float, float]]:
    """Name, measured, estimated. The runtime prints sums after each stream; the last ones stay."""
    from gadl.targets.cv18xx.cost import overlap
    from gadl.targets.cv18xx.descriptor import DescriptorError

    chip, commands = next(_streams(model), (None, []))
    if chip is None:
        raise GadlError.of("GADL-A013", model, detail="it has no commands")
    try:
        expected = overlap(commands, chip, mb_per_s)
    except DescriptorError as error:
        raise GadlError.of("GADL-A013", model, detail=str(error)) from None
    measured = (sums.tiu_us, sums.tdma_us, sums.total_us)
    return list(zip(("TIU", "TDMA", "total"), measured, (expected.tiu_us, expected.tdma_us, expected.total_us), strict=True))


def _streams(path: Path) -> Iterator[tuple[Chip, list[Command]]]:
    """The command streams of a container, or of all containers in an artefact. The runtime keeps the records of the last one."""
    from gadl.compiler.artifact.reader import ArtifactFile
    from gadl.targets.cv18xx.chip import CHIPS
    from gadl.targets.cv18xx.cvimodel import MAGIC, SectionKind, decode

    from .cvimodel import is_cvimodel

    containers = [path.read_bytes()] if is_cvimodel(path) else ArtifactFile.open(path).programs
    for code in containers:
        if code[: len(MAGIC)] != MAGIC:
            continue
        model = decode(code, str(path))
        sections = [i for i, section in enumerate(model.model.sections) if section.kind == SectionKind.COMMANDS]
        for index in reversed(sections):
            commands = model.commands(index)
            yield CHIPS[model.chip], commands


def _numbers(found: Comparison) -> dict[str, Any]:
    return {
        "measured_us": found.measured_us,
        "estimated_us": found.estimated_us,
        "missing": found.missing,
        "engines": [asdict(group) for group in found.by_engine()],
        "operations": [asdict(group) for group in found.by_operation()],
    }


def _lines(found: Comparison) -> Iterable[str]:
    yield _row(say(_GROUP), say(_COUNT), say(_MEASURED), say(_ESTIMATED), say(_RATIO))
    for group in found.by_engine():
        yield _group(group)
    yield _row(say(_TOTAL), str(len(found.commands)), f"{found.measured_us:,.1f}", f"{found.estimated_us:,.1f}", _ratio(found.measured_us, found.estimated_us))
    yield ""
    for group in found.by_operation():
        yield _group(group)
    yield ""
    moved, expected = (sum(getattr(g, name) for g in found.by_engine()) for name in ("bytes_moved", "estimated_bytes"))
    yield say(_BYTES).format(moved, expected)
    if found.missing:
        yield say(_MISSING).format(found.missing)
    yield say(_WORST)
    for item in found.worst(8):
        from gadl.targets.cv18xx.asm import line

        yield f"  {item.time_us:>9.1f} {item.estimated_us:>9.1f}  {line(item.command)[:120]}"


def _sum_lines(rows: list[tuple[str, float, float]]) -> Iterable[str]:
    yield _row(say(_GROUP), say(_MEASURED), say(_ESTIMATED), say(_RATIO))
    for name, measured, estimated in rows:
        yield _row(say(_TOTAL) if name == "total" else name, f"{measured:,.1f}", f"{estimated:,.1f}", _ratio(measured, estimated))


def _group(group: Group) -> str:
    return _row(group.name, str(group.commands), f"{group.measured_us:,.1f}", f"{group.estimated_us:,.1f}", _ratio(group.measured_us, group.estimated_us))


def _row(name: str, *cells: str) -> str:
    """Chinese characters take two columns."""
    wide = [sum(ord(c) > 0xFF for c in text) for text in (name, *cells)]
    return f"{name:<{22 - wide[0]}}" + "".join(f"{cell:>{14 - w}}" for cell, w in zip(cells, wide[1:], strict=True))


def _ratio(measured: float, estimated: float) -> str:
    return f"{measured / estimated:.3f}" if estimated else "-"


def _table(found: Comparison) -> str:
    from gadl.targets.cv18xx.pmu import id_of

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("engine", "id", "operation", "start", "end", "estimated_start", "estimated_end", "bytes", "estimated_bytes"))
    for m in found.commands:
        times = (f"{t:.3f}" for t in (m.start_us, m.end_us, m.estimated_start_us, m.estimated_end_us))
        writer.writerow((m.command.engine.name, id_of(m.command), m.name, *times, m.bytes_moved, m.estimated_bytes))
    return out.getvalue()
