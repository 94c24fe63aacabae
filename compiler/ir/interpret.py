# SPDX-License-Identifier: Apache-2.0
"""The interpreter: a graph's meaning, op by op, in numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gadl.compiler.diag import GadlError, diagnostic

from .graph import Graph, Value
from .opdef import op_def
from .types import Array


def check_feeds(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds as contiguous arrays of the declared types; every mismatch is reported at once (`GADL-I010`)."""
    wrong = []
    checked: dict[str, Array] = {}
    for value in graph.inputs:
        given = feeds.get(value.name)
        if given is None:
            wrong.append(diagnostic("GADL-I010", name=value.name, detail="missing"))
            continue
        given = np.asarray(given)
        if given.shape != value.shape:
            wrong.append(diagnostic("GADL-I010", name=value.name, detail=f"shape {given.shape}, expected {value.shape}"))
            continue
        checked[value.name] = np.asarray(given, value.dtype.numpy, order="C")
    wrong += [diagnostic("GADL-I010", name=n, detail="no such input") for n in feeds if n not in {v.name for v in graph.inputs}]
    GadlError.raise_if(wrong)
    return checked


def interpret(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run `graph` on `feeds` (input name to array); returns the outputs under the interface's names."""
    arrays = _run(graph, feeds, _last_uses(graph))
    return {n: _array(v, arrays) for n, v in zip(graph.output_names, graph.outputs)}


def interpret_values(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run `graph` on `feeds`; returns every value that is not a constant, by its name in the graph."""
    arrays = _run(graph, feeds, {})
    return {v.name: arrays[id(v)] for v in graph.values() if not v.is_constant}


def run_graph(graph: Graph, feeds: Mapping[str, Array]) -> dict[int, Array]:
    """Run `graph` on `feeds`; returns every value that is not a constant, by its `id`."""
    return _run(graph, feeds, {})


def _run(graph: Graph, feeds: Mapping[str, Array], last: Mapping[int, list[int]]) -> dict[int, Array]:
    """Evaluate all ops; values listed in `last` are dropped after their op."""
    arrays: dict[int, Array] = {}
    checked = check_feeds(graph, feeds)
    for value in graph.inputs:
        arrays[id(value)] = checked[value.name]
    with np.errstate(all="ignore"):
        for index, op in enumerate(graph.ops):
            inputs = [None if v is None else _array(v, arrays) for v in op.operands]
            for value, result in zip(op.results, op_def(op.name).evaluate(op, inputs), strict=True):
                arrays[id(value)] = result
            for key in last.get(index, ()):
                arrays.pop(key, None)
    return arrays


def _array(value: Value, arrays: dict[int, Array]) -> Array:
    return value.data if value.data is not None else arrays[id(value)]


def _last_uses(graph: Graph) -> dict[int, list[int]]:
    """Values that nobody reads after op `index`."""
    final: dict[int, int] = {}
    for index, op in enumerate(graph.ops):
        for value in (*op.inputs, *op.results):
            final[id(value)] = index
    for value in graph.outputs:
        final.pop(id(value), None)
    by_op: dict[int, list[int]] = {}
    for key, index in final.items():
        by_op.setdefault(index, []).append(key)
    return by_op
