# SPDX-License-Identifier: Apache-2.0
"""Double buffering: a load moves in front of the step that first uses what is used before it.

In program order a load stands where its data is wanted, so the memory of what it replaces is free by then, and an allocator may
hand out the same bytes again: the load would wait. One turn earlier, both are there at the same time.
"""

from __future__ import annotations

from collections.abc import Collection

from gadl.passes.plan.program import Program, Region, Step


def double_buffer(program: Program, start: int, queues: Collection[str]) -> None:
    """Reorder the steps from `start` on; `queues` are the engines that load. Loads keep their order among themselves."""
    steps = program.steps[start:]
    loaded: dict[int, list[int]] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        if step.queue in queues:
            for region in step.writes:
                loaded.setdefault(id(region.buffer), []).append(index)
            continue
        for region in step.reads:
            for load in loaded.get(id(region.buffer), ()):
                if any(_overlap(region, written) for written in steps[load].writes):
                    first.setdefault(load, index)
                    last[load] = index
    # Loads that are in use together take one turn: until the first of them is done with.
    before: dict[int, int | None] = {}
    previous, begin, end = None, -1, -1
    for load in sorted(first, key=lambda load: first[load]):
        if first[load] > end:
            previous, begin, end = begin if begin >= 0 else None, first[load], last[load]
        before[load], end = previous, min(end, last[load])
    position = [float(index) for index in range(len(steps))]
    low = 0.0
    for load in sorted(first):
        wanted = before[load]
        if wanted is not None and wanted < load:
            behind = max((i for i in range(wanted, load) if _touches(steps[i], steps[load])), default=wanted - 1)
            position[load] = behind + 0.5
        low = position[load] = max(low, position[load])
    order = sorted(range(len(steps)), key=lambda i: (position[i], i))
    program.steps[start:] = [steps[i] for i in order]


def _overlap(a: Region, b: Region) -> bool:
    return a.buffer is b.buffer and a.start < b.start + b.size and b.start < a.start + a.size


def _touches(step: Step, load: Step) -> bool:
    """True when a load may not pass a step."""
    return any(_overlap(region, written) for region in (*step.reads, *step.writes) for written in load.writes) or any(
        _overlap(region, written) for region in load.reads for written in step.writes
    )
