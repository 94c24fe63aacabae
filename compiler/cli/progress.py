# SPDX-License-Identifier: Apache-2.0
"""What is going on, on the terminal: the stage, and a bar while plans are searched."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars

from gadl.compiler.tune.search import Progress

from .common import console


class Work:
    """A line on standard error that is gone when the work is done."""

    def __init__(self, name: str) -> None:
        self.name = name
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[found]}"))
        self.bars = Bars(*columns, console=console, transient=True)
        self.task = self.bars.add_task(name, total=None, found="")

    def stage(self, name: str) -> None:
        """A stage begins."""
        self.bars.reset(self.task, total=None, description=f"{self.name}: {name}", found="")

    def search(self, now: Progress) -> None:
        """A round of a search is done."""
        ratio = f", {now.best_cycles / now.bound_cycles:.3f} × limit" if now.bound_cycles else ""
        found = f"{now.done:.0f}/{now.total:.0f}{now.unit}  {now.best_cycles:,.0f} cycles{ratio}"
        self.bars.update(self.task, total=now.total, completed=now.done, found=found)

    def __enter__(self) -> Work:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()
