# SPDX-License-Identifier: Apache-2.0
"""What calibration samples become in a float graph, and in the quantised graph while it grows out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import op_def
from gadl.compiler.ir.types import Array

from .tables import table_source

#: Bytes of values that are held at a time; elements of all samples together, beyond which more bring little, but for so many samples.
MOST_BYTES, MOST_ELEMENTS, FEWEST = 600 << 20, 256 << 20, 6


class Samples:
    """Values of some samples, op by op in both graphs, each until its last reader has run.

    Values of the float graph are cut to `limits`, by `id`, as those of the other one are: that much is lost on purpose.
    """

    def __init__(self, source: Graph, feeds: Sequence[Mapping[str, Array]], limits: Mapping[int, tuple[float, float]]) -> None:
        self.count, self._limits = len(feeds), limits
        self._last = last_uses(source)
        self._held: dict[int, list[Array]] = {id(v): [self._cut(v, f[v.name]) for f in feeds] for v in source.inputs}
        self._given = [[f[v.name] for f in feeds] for v in source.inputs]
        self._grown: dict[int, list[Array]] = {}
        self._done = self._at = 0

    def begin(self, grown: Graph) -> None:
        """A new graph, whose inputs are those of the float graph by name."""
        self._grown = {id(v): values for v, values in zip(grown.inputs, self._given, strict=True)}

    def real(self, value: Value) -> list[Array]:
        """The values of a tensor of the float graph; constants once."""
        return [value.data] * self.count if value.data is not None else self._held[id(value)]

    def grown(self, graph: Graph, value: Value) -> list[Array]:
        """The values of a tensor of the grown graph, whose newest ops run now."""
        self._catch_up(graph)
        return [value.data] * self.count if value.data is not None else self._grown[id(value)]

    def follow(self, op: Op, graph: Graph, alive: Iterable[tuple[int, Value]]) -> None:
        """The next op of the float graph is converted: run it there and here, and forget what nobody reads any more.

        `alive`: tensors of the grown graph, each with the `id` of the one of the float graph that it stands for.
        """
        self._held |= {id(v): [self._cut(v, a) for a in made] for v, made in zip(op.results, _run(op, self._held, self.count).values())}
        self._catch_up(graph)
        self._at += 1
        self._held = {key: values for key, values in self._held.items() if self._last.get(key, -1) >= self._at}
        kept = {id(value) for key, value in alive if self._last.get(key, -1) >= self._at}
        self._grown = {key: values for key, values in self._grown.items() if key in kept}

    def _cut(self, value: Value, values: Array) -> Array:
        return values if id(value) not in self._limits else np.clip(values, *self._limits[id(value)])

    def _catch_up(self, graph: Graph) -> None:
        for op in graph.ops[self._done :]:
            self._grown |= _run(op, self._grown, self.count)
        self._done = len(graph.ops)


def last_uses(graph: Graph) -> dict[int, int]:
    """The number of the op that reads a value last, by `id`; what begins a chain of tables is read by all of them."""
    last = {id(v): number for number, op in enumerate(graph.ops) for v in op.inputs}
    last |= {id(v): len(graph.ops) for v in graph.outputs}
    for op in reversed(graph.ops):
        origin = table_source(op)
        if origin is not None:
            last[id(origin)] = max(last[id(origin)], last.get(id(op.result), 0))
    return last


def fitting(graph: Graph, most: int, capacity: int = MOST_BYTES) -> int:
    """How many samples may be held at a time: at most `most`, at least one."""
    last, live, peak = last_uses(graph), 0, 1
    ends: dict[int, int] = {}
    for number, op in enumerate(graph.ops):
        made = {id(v): v for v in (op.results if number else (*graph.inputs, *op.results))}
        for value in made.values():
            size = 5 * value.type.element_count
            live += size
            ends[last.get(id(value), number)] = ends.get(last.get(id(value), number), 0) + size
        peak = max(peak, live)
        live -= ends.pop(number, 0)
    elements = sum(v.type.element_count for v in graph.values() if not v.is_constant)
    return max(1, min(most, capacity // peak, max(FEWEST, MOST_ELEMENTS // max(1, elements))))


def _run(op: Op, values: Mapping[int, list[Array]], count: int) -> dict[int, list[Array]]:
    found: list[tuple[Array, ...]] = []
    with np.errstate(all="ignore"):
        for sample in range(count):
            inputs = [None if v is None else v.data if v.data is not None else values[id(v)][sample] for v in op.operands]
            found.append(tuple(op_def(op.name).evaluate(op, inputs)))
    return {id(v): [results[i] for results in found] for i, v in enumerate(op.results)}
