# SPDX-License-Identifier: Apache-2.0
"""The pass manager: a named list of passes, verified, timed, dumped, stopped at, and reproduced when one fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gadl.compiler.diag import GadlError, InternalError, diagnostic
from gadl.compiler.diag.files import write_atomically

from .graph import Graph
from .printer import save_gir
from .verify import verify


@dataclass(frozen=True)
class Pass:
    """One step of a pipeline. `run` rewrites the graph in place and returns whether it changed anything."""

    name: str
    run: Callable[[Graph], bool]


def named(run: Callable[[Graph], bool]) -> Pass:
    """A pass called like its function."""
    return Pass(run.__name__, run)


class StopAfter(Exception):
    """The pipeline was asked to end after this pass; carries the graph."""

    def __init__(self, name: str, graph: Graph) -> None:
        super().__init__(name)
        self.graph = graph


@dataclass
class PassManager:
    """Runs passes.

    `dump_dir`: the graph after every pass that changed it, numbered. `stop_after`: end there with `StopAfter`.
    `reproducer_dir`: where the graph before a failing pass is written, with a note that says how to run it again.
    `seconds`: time per pass, filled while running.
    """

    dump_dir: Path | None = None
    stop_after: str | None = None
    reproducer_dir: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _count: int = 0

    def run(self, graph: Graph, passes: Sequence[Pass]) -> None:
        """Run `passes` in order on `graph`."""
        for item in passes:
            before = graph.clone() if self.reproducer_dir is not None else None
            start = time.perf_counter()
            try:
                changed = item.run(graph)
                verify(graph)
            except (InternalError, StopAfter):
                raise
            except GadlError as error:
                if not any(d.code == "GADL-I001" for d in error.diagnostics):
                    raise
                raise self._failure(item, before, str(error)) from error
            except Exception as error:
                raise self._failure(item, before, f"{type(error).__name__}: {error}") from error
            self.seconds[item.name] = self.seconds.get(item.name, 0.0) + time.perf_counter() - start
            self.dump(graph, item.name, changed)
            if self.stop_after == item.name:
                raise StopAfter(item.name, graph)

    def dump(self, graph: Graph, name: str, changed: bool = True) -> None:
        """Write the graph to the dump folder under the next number."""
        if self.dump_dir is not None and changed:
            save_gir(graph, self.dump_dir / f"{self._count:02d}_{name}.gir")
            self._count += 1

    def _failure(self, item: Pass, before: Graph | None, detail: str) -> InternalError:
        path = "-"
        if self.reproducer_dir is not None and before is not None:
            target = self.reproducer_dir / f"gadl-reproducer-{item.name}.gir"
            save_gir(before, target)
            path = str(target)
            note = f"pass: {item.name}\nfailure: {detail}\nrerun: gadlc {target.name} --stop-after {item.name} --debug\n"
            write_atomically(target.with_suffix(".txt"), note.encode())
        return InternalError(diagnostic("GADL-I070", name=item.name, detail=detail, reproducer=path))
