# SPDX-License-Identifier: Apache-2.0
"""The pass manager: a named list of passes, verified, timed, dumped, stopped at, and reproduced when one fails."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    `reproducer_dir`: where the graph before a failing pass is written, with a note that says how to run it again; a new
    temporary folder unless given.
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
            start = time.perf_counter()
            with self.guarded(item.name, graph):
                changed = item.run(graph)
                verify(graph)
            self.seconds[item.name] = self.seconds.get(item.name, 0.0) + time.perf_counter() - start
            self.dump(graph, item.name, changed)
            if self.stop_after == item.name:
                raise StopAfter(item.name, graph)

    @contextmanager
    def guarded(self, name: str, graph: Graph) -> Iterator[None]:
        """What fails inside, unless it is the user's fault, ends as `GADL-I070` with the graph as it was on disk."""
        before = graph.clone()
        try:
            yield
        except (InternalError, StopAfter):
            raise
        except GadlError as error:
            if not any(d.code == "GADL-I001" for d in error.diagnostics):
                raise
            raise self._failure(name, before, str(error)) from error
        except Exception as error:
            raise self._failure(name, before, f"{type(error).__name__}: {error}") from error

    def dump(self, graph: Graph, name: str, changed: bool = True) -> None:
        """Write the graph to the dump folder under the next number."""
        if self.dump_dir is not None and changed:
            save_gir(graph, self.dump_dir / f"{self._count:02d}_{name}.gir")
            self._count += 1

    def _failure(self, name: str, before: Graph, detail: str) -> InternalError:
        folder = self.reproducer_dir or Path(tempfile.mkdtemp(prefix="gadl-"))
        target = folder / f"gadl-reproducer-{name}.gir"
        save_gir(before, target)
        note = f"pass: {name}\nfailure: {detail}\nrerun: gadlc {target.name} --stop-after {name} --debug\n"
        write_atomically(target.with_suffix(".txt"), note.encode())
        return InternalError(diagnostic("GADL-I070", name=name, detail=detail, reproducer=target))
