# SPDX-License-Identifier: Apache-2.0
"""Stores first: where one engine loads and stores, what is ready to be stored does not wait behind loads.

A store frees memory that the next computation may want to write; a load that stands in front of it only delays it. Among transfers
with no computation between them, stores come before loads, as far as they do not touch the same bytes.
"""

from __future__ import annotations

from gadl.passes.plan.program import Program, Region, Step


def stores_first(program: Program, engine: str, memory: str) -> None:
    """Reorder `program.steps`; stores are the steps of `engine` that write nothing in the on-chip `memory`."""
    ordered: list[Step] = []
    run: list[Step] = []
    for step in (*program.steps, None):
        if step is not None and step.engine == engine:
            at = len(run)
            while not _writes(step, memory) and at and _writes(run[at - 1], memory) and not _meet(step, run[at - 1]):
                at -= 1
            run.insert(at, step)
            continue
        ordered += run
        run = []
        if step is not None:
            ordered.append(step)
    program.steps[:] = ordered


def _writes(step: Step, memory: str) -> bool:
    return any(region.buffer.memory == memory for region in step.writes)


def _meet(a: Step, b: Step) -> bool:
    """True where one writes what the other one touches."""
    return any(_overlap(w, r) for x, y in ((a, b), (b, a)) for w in x.writes for r in (*y.reads, *y.writes))


def _overlap(a: Region, b: Region) -> bool:
    if a.buffer.memory != b.buffer.memory:
        return False
    if a.buffer is not b.buffer and a.buffer.address is not None and b.buffer.address is not None:
        first, second = a.buffer.address + a.start, b.buffer.address + b.start
        return first < second + b.size and second < first + a.size
    return a.buffer is b.buffer and a.start < b.start + b.size and b.start < a.start + a.size
