# SPDX-License-Identifier: Apache-2.0
"""Prefetch: loads of constants move ahead in program order, so that memory is busy while the arrays are.

Wherever the transfers that the computation asks for leave the memory idle, the next load begins, as soon as the on-chip
memory has room for it (`gadl.passes.memory.place`). Loads keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from gadl.passes.plan.program import Program, Step
from gadl.passes.plan.rows import Ints
from gadl.passes.plan.tiling import Floats


def wanted_starts(
    program: Program, memory: str, constants: str, transfers: Sequence[str], capacity: int, rate: float, depth: int
) -> dict[int, int]:
    """The step at which each load of constants into `memory` should begin, by `id` of the buffer that it fills.

    `constants` is the memory that nobody writes; `transfers` are the engines that load and store, `rate` bytes per cycle
    together, and `depth` of them must be at work for that. At no step do the buffers there are, early ones among them, exceed
    `capacity` bytes.
    """
    steps = program.steps
    spans = program.lifetimes()
    loads = {
        i: s.writes[0].buffer
        for i, s in enumerate(steps)
        if len(s.writes) == 1 and s.writes[0].buffer.memory == memory and s.reads and all(r.buffer.memory == constants for r in s.reads)
    }
    filled: dict[int, int] = {}
    for buffer in loads.values():
        filled[id(buffer)] = filled.get(id(buffer), 0) + 1
    waiting = [i for i, b in loads.items() if filled[id(b)] == 1 and spans[id(b)][0] == i]
    used = _use(program, memory, spans)
    found: dict[int, int] = {}
    clock = _Clock(transfers, rate, depth)
    following, earliest = 0, -1
    for index, step in enumerate(steps):
        if index not in loads or id(loads[index]) not in found:
            clock.run(step)
        while following < len(waiting) and (waiting[following] <= index or clock.idle):
            load, size = waiting[following], loads[waiting[following]].size
            if load > index:
                if earliest < 0:
                    full = np.flatnonzero(used[index:load] + size > capacity)
                    earliest = index + int(full[-1]) + 1 if len(full) else index
                if earliest > index:
                    break
                used[index:load] += size
                clock.run(steps[load])
            found[id(loads[load])] = index
            following, earliest = following + 1, -1
    return found


class _Clock:
    """When things happen: engines side by side, transfers one after another at the full rate of memory."""

    def __init__(self, transfers: Sequence[str], rate: float, depth: int) -> None:
        self.transfers, self.rate = transfers, rate
        self.now = 0.0
        self._engines: dict[str, float] = {}
        self._ready: dict[int, float] = {}
        self._ends = deque([0.0] * depth, depth)

    @property
    def idle(self) -> bool:
        """True when memory could do with another transfer."""
        return self._ends[0] <= self.now

    def run(self, step: Step) -> None:
        """A step is done as soon as its engine and its operands are there."""
        if step.engine in self.transfers:
            end = max(self._ends[-1], self.now) + _moved(step) / self.rate
            self._ends.append(end)
            for region in step.writes:
                self._ready[id(region.buffer)] = end
            return
        begin = max([self._engines.get(step.engine, 0.0), *(self._ready.get(id(r.buffer), 0.0) for r in step.reads)])
        end = begin + step.cycles
        self._engines[step.engine] = end
        for region in step.writes:
            self._ready[id(region.buffer)] = end
        self.now = max(self.now, begin)


def _moved(step: Step) -> int:
    """Bytes that a transfer moves: the lesser side, as the other one may be a hull, or expanded on the way."""
    return min(sum(r.size for r in side) for side in (step.reads, step.writes) if side)


def _use(program: Program, memory: str, spans: Mapping[int, tuple[int, int]]) -> Ints:
    """Bytes of a memory in use at each step."""
    change = np.zeros(len(program.steps) + 1, np.int64)
    for buffer in program.buffers:
        if buffer.memory == memory and id(buffer) in spans:
            first, last = spans[id(buffer)]
            change[first] += buffer.size
            change[last + 1] -= buffer.size
    return np.cumsum(change[:-1])


def move_loads(program: Program, begun: Mapping[int, int]) -> None:
    """Put every load at the step from which its buffer has its place; a load of constants never passes another."""
    position = list(range(len(program.steps)))
    latest = -1
    for index, step in enumerate(program.steps):
        if len(step.writes) == 1 and id(step.writes[0].buffer) in begun:
            target = begun[id(step.writes[0].buffer)]
            latest = max(latest, target)
            position[index] = min(index, latest)
    order = sorted(range(len(position)), key=lambda i: (position[i], position[i] == i, i))
    program.steps[:] = [program.steps[i] for i in order]


def share_queues(program: Program, queues: Sequence[str], rate: float) -> None:
    """Give each load the one of `queues` that is free first; `rate` is what all of them move together.

    While `early` steps are coming, the first queue is theirs: what the computation waits for never waits behind constants.
    """
    steps = program.steps
    times = _times(steps, queues)
    coming = np.array([times[i] for i, s in enumerate(steps) if s.early and s.engine in queues])
    free = dict.fromkeys(queues, 0.0)
    for step, now in zip(steps, times):
        if step.engine not in free:
            continue
        length = _moved(step) / rate * len(queues)
        start = int(np.searchsorted(coming, now))
        reserved = not step.early and start < len(coming) and coming[start] < max(now, free[queues[0]]) + length
        step.engine = min(queues[1:] if reserved and len(queues) > 1 else queues, key=lambda queue: free[queue])
        free[step.engine] = max(free[step.engine], float(now)) + length


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
