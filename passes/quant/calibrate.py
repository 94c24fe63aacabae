# SPDX-License-Identifier: Apache-2.0
"""Calibration: the range of every real tensor over sample inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret_values
from gadl.compiler.ir.types import Array

from .observers import MinMax, Observer, Range

Feeds = Mapping[str, Array]
#: Runs a graph and returns every value under its own name.
RunAll = Callable[[Graph, Feeds], Mapping[str, Array]]


def interpret_all(graph: Graph, feeds: Feeds) -> Mapping[str, Array]:
    """The interpreter with every intermediate value kept."""
    return interpret_values(graph, feeds)


def calibrate(
    graph: Graph,
    feeds: Iterable[Feeds],
    observer: Callable[[], Observer] = MinMax,
    run: RunAll = interpret_all,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Range]:
    """Run `graph` on every sample and observe its real tensors.

    `observer` makes one observer per tensor, but a tensor that the graph returns keeps its extremes, for the largest of its
    elements may be all that its reader wants; `run` may be any faster executor; `progress` hears the number of samples done.
    Returns the range of each value by name (constants excluded). Raises `GADL-Q010` without a sample and where a tensor
    took infinite values or NaN.
    """
    watched = [v.name for v in graph.values() if v.dtype.is_float and not v.is_constant]
    returned = {v.name for v in graph.outputs}
    observers = {name: MinMax() if name in returned else observer() for name in watched}
    count = 0
    for sample in feeds:
        values = run(graph, sample)
        for name in watched:
            observers[name].update(values[name])
        count += 1
        if progress is not None:
            progress(count)
    if count == 0:
        raise GadlError.of("GADL-Q010", source="-", detail="no samples")
    wild = [name for name in watched if not observers[name].finite]
    if wild:
        detail = f"{len(wild)} tensors become infinite or NaN, the first is '{wild[0]}'"
        raise GadlError.of("GADL-Q010", source="-", detail=detail)
    return {name: item.range() for name, item in observers.items()}
