# SPDX-License-Identifier: Apache-2.0
"""Prefetch: loads of constants move ahead in program order, so that memory is busy while the arrays are.

Wherever the transfers that the computation asks for leave the memory idle, the next load begins; where the on-chip memory
has no room so early, it begins as soon as there is (`gadl.passes.memory.place`). Loads keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gadl.passes.plan.program import Program, Step
from gadl.passes.plan.tiling import Floats


def wanted_starts(program: Program, memory: str, constants: str, transfers: Sequence[str]) -> dict[int, int]:
    """The step at which each load of constants into `memory` should begin, by `id` of the buffer that it fills.

    `constants` is the memory that nobody writes, `transfers` are the engines that load and store.
    """
    steps = program.steps
    spans = program.lifetimes()
    times = _times(steps, transfers)
    loads = {
        i: s.writes[0].buffer
        for i, s in enumerate(steps)
        if len(s.writes) == 1 and s.writes[0].buffer.memory == memory and s.reads and all(r.buffer.memory == constants for r in s.reads)
    }
    filled: dict[int, int] = {}
    for buffer in loads.values():
        filled[id(buffer)] = filled.get(id(buffer), 0) + 1
    waiting = [i for i, b in loads.items() if filled[id(b)] == 1 and spans[id(b)][0] == i]
    found: dict[int, int] = {}
    busy_until, following = 0.0, 0
    for index, step in enumerate(steps):
        if step.engine in transfers and (index not in loads or id(loads[index]) not in found):
            busy_until = max(busy_until, float(times[index])) + step.cycles
        until = times[index + 1] if index + 1 < len(steps) else times[index]
        while following < len(waiting) and (waiting[following] <= index or busy_until < until):
            load = waiting[following]
            following += 1
            found[id(loads[load])] = index
            if load > index:
                busy_until = max(busy_until, float(times[index])) + steps[load].cycles
    return found


def move_loads(program: Program, begun: Mapping[int, int]) -> None:
    """Put every load at the step from which its buffer has its place; a load never passes another."""
    position = list(range(len(program.steps)))
    latest = -1
    for index, step in enumerate(program.steps):
        if len(step.writes) == 1 and id(step.writes[0].buffer) in begun:
            target = begun[id(step.writes[0].buffer)]
            latest = max(latest, target)
            position[index] = min(index, latest)
    order = sorted(range(len(position)), key=lambda i: (position[i], position[i] == i, i))
    program.steps[:] = [program.steps[i] for i in order]


def _times(steps: Sequence[Step], transfers: Sequence[str]) -> Floats:
    """When the computation reaches each step, engines running side by side and transfers never in the way."""
    clocks: dict[str, float] = {}
    found = np.zeros(len(steps))
    now = 0.0
    for index, step in enumerate(steps):
        found[index] = now
        if step.engine not in transfers:
            clocks[step.engine] = clocks.get(step.engine, 0.0) + step.cycles
            now = max(now, clocks[step.engine])
    return found
