# SPDX-License-Identifier: Apache-2.0
"""Prefetch: loads move ahead in program order, so that memory is busy while the arrays are.

Wherever the transfers that the computation asks for leave the memory idle, the load that is needed next begins, as soon as
the on-chip memory has room for it (`gadl.passes.memory.place`).
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
    """The step at which loads into `memory` should begin, by `id` of the buffer that they fill, or begin to fill.

    Loads of constants, and of the first rows of tensors that lie in memory. `constants` is the memory that nobody writes;
    `transfers` are the engines that load and store, `rate` bytes per cycle together, and `depth` of them must be at work for
    that. At no step do the buffers there are, early ones among them, exceed `capacity` bytes.
    """
    steps = program.steps
    room = _Room(program, memory, capacity)
    lines = [_Line(found) for found in _loads(program, memory, constants, room.spans)]
    begun: dict[int, int] = {}
    clock = _Clock(transfers, rate, depth)
    for index, step in enumerate(steps):
        if index not in begun:
            clock.run(step)
        while True:
            for line in lines:
                line.skip(index)
            ready = [line for line in lines if line.ready(index, room)]
            if not ready or not clock.idle:
                break
            load = min(ready, key=lambda line: line.head).take()
            begun[load] = index
            room.take(index, load)
            clock.run(steps[load])
    early = {load: begun.get(load, load) for line in lines for load in line.loads}
    return {id(steps[load].writes[0].buffer): index for load, index in early.items()}


def _loads(
    program: Program, memory: str, constants: str, spans: Mapping[int, tuple[int, int]]
) -> tuple[dict[int, int], dict[int, int]]:
    """Loads that may come early, and the step behind which: of constants that fill their buffer, and first ones of tensors."""
    fills: dict[int, int] = {}
    written: dict[int, list[tuple[int, int, int]]] = {}
    whole: dict[int, int] = {}
    first: dict[int, int] = {}
    for index, step in enumerate(program.steps):
        target = step.writes[0].buffer if len(step.writes) == 1 else None
        if target is not None and target.memory == memory and step.reads:
            if all(r.buffer.memory == constants for r in step.reads):
                fills[id(target)] = fills.get(id(target), 0) + 1
                whole[index] = -1
            elif step.early and spans[id(target)][0] == index:
                first[index] = max(
                    (at for r in step.reads for at, low, high in written.get(id(r.buffer), ()) if low < r.start + r.size and r.start < high),
                    default=-1,
                )
        for region in step.writes:
            if region.buffer.memory != memory:
                written.setdefault(id(region.buffer), []).append((index, region.start, region.start + region.size))
    steps = program.steps
    alone = {i: at for i, at in whole.items() if fills[id(b := steps[i].writes[0].buffer)] == 1 and spans[id(b)][0] == i}
    return alone, first


class _Line:
    """Loads that keep their order among themselves; each may begin behind a certain step."""

    def __init__(self, loads: Mapping[int, int]) -> None:
        self.loads, self._behind, self._next = list(loads), list(loads.values()), 0

    @property
    def head(self) -> int:
        """The next load."""
        return self.loads[self._next]

    def skip(self, index: int) -> None:
        """Loads up to a step came in their own turn."""
        while self._next < len(self.loads) and self.head <= index:
            self._next += 1

    def ready(self, index: int, room: _Room) -> bool:
        """True when the next load could begin at a step."""
        return self._next < len(self.loads) and self._behind[self._next] < index and room.earliest(index, self.head) <= index

    def take(self) -> int:
        """The next load, once."""
        self._next += 1
        return self.loads[self._next - 1]


class _Room:
    """Bytes in use at each step."""

    def __init__(self, program: Program, memory: str, capacity: int) -> None:
        self.steps, self.capacity, self.spans = program.steps, capacity, program.lifetimes()
        change = np.zeros(len(program.steps) + 1, np.int64)
        for buffer in program.buffers:
            if buffer.memory == memory and id(buffer) in self.spans:
                first, last = self.spans[id(buffer)]
                change[first] += buffer.size
                change[last + 1] -= buffer.size
        self.used: Ints = np.cumsum(change[:-1])
        self._known: dict[int, int] = {}

    def earliest(self, index: int, load: int) -> int:
        """The first step, from `index` on, from which there is room for what a load fills."""
        known = self._known.get(load)
        if known is None:
            full = np.flatnonzero(self.used[index:load] + self.steps[load].writes[0].buffer.size > self.capacity)
            known = self._known[load] = index + int(full[-1]) + 1 if len(full) else index
        return known

    def take(self, index: int, load: int) -> None:
        """A load begins at a step."""
        self.used[index:load] += self.steps[load].writes[0].buffer.size
        self._known.clear()


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


def move_loads(program: Program, begun: Mapping[int, int]) -> None:
    """Put every load that begins to fill a buffer at the step from which the buffer has its place."""
    position = list(range(len(program.steps)))
    seen: set[int] = set()
    for index, step in enumerate(program.steps):
        if len(step.writes) == 1 and (buffer := id(step.writes[0].buffer)) in begun and buffer not in seen:
            seen.add(buffer)
            position[index] = min(index, begun[buffer])
    order = sorted(range(len(position)), key=lambda i: (position[i], position[i] == i, i))
    program.steps[:] = [program.steps[i] for i in order]


def share_queues(program: Program, queues: Sequence[str], rate: float, width: int) -> None:
    """Give each load the one of `queues` that is free first; `rate` is what all of them move together.

    `early` steps go through the first `width` queues, which fill the memory's bandwidth: one after another, so that what is
    needed first comes first (small ones, which mostly wait, through any). While they are coming the first queue is theirs alone.
    """
    steps = program.steps
    times = _times(steps, queues)
    coming = np.array([times[i] for i, s in enumerate(steps) if s.early and s.engine in queues])
    free = dict.fromkeys(queues, 0.0)
    for step, now in zip(steps, times):
        if step.engine not in free:
            continue
        moving = _moved(step) / rate
        length = moving * len(queues)
        start = int(np.searchsorted(coming, now))
        reserved = start < len(coming) and coming[start] < max(now, free[queues[0]]) + length
        mine = queues[1:] or queues if reserved and not step.early else queues
        if step.early and step.cycles < 2 * moving:
            mine = queues[:width]
        step.engine = min(mine, key=lambda queue: free[queue])
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
