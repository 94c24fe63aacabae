# SPDX-License-Identifier: Apache-2.0
"""Synchronisation of several cores that run one program: which step must wait for which, on its own core or another.

Every core has its own on-chip memories with the same buffers at the same addresses, and its own in-order queues. A shared
step writes on all cores and posts there. Nothing else reaches another core but a signal: a tiny shared load that a core sends
when some of its steps are done, so that cores wait for each other only where one needs what another has done, never all
together. A core takes the posts of shared steps on one queue, the collector, and signals on that and on the queue that loads
for it alone; other queues wait for the collector. As on one core, a wait is left out when another implies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gadl.passes.plan.program import Program, Region, Step

from .synchronize import _AccessMap

#: The instruction of a step that tells other cores, when its engine reaches it, that what it reads has been written.
SIGNAL = "SIGNAL"


@dataclass(frozen=True)
class Queues:
    """The names of all queues, and their parts: who sends shared loads and signals, who takes posts from abroad."""

    names: Sequence[str]
    sharing: Sequence[str]
    signalling: str
    loading: str
    collector: str

    @property
    def listeners(self) -> tuple[str, str]:
        """The queues that take signals."""
        return self.loading, self.collector


@dataclass(slots=True)
class Item:
    """A step of one core, a signal of it (`signal`), or a mere wait (neither); waits and posts as (semaphore, count)."""

    number: int
    core: int
    queue: str
    step: Step | None
    op: int
    signal: bool = False
    waits: list[tuple[int, int]] = field(default_factory=list)
    posts: list[tuple[int, int]] = field(default_factory=list)
    on: list[int] = field(default_factory=list)


class CoreSchedule:
    """The items of every core in order. `memories` are those that every core has for itself.

    A shared load of more than `split` bytes is done in parts, by all cores at once. A step whose instruction is `SIGNAL` sends
    a signal when what it reads has been written. Shared loads let those of one core from the memory `first` pass.
    """

    def __init__(
        self, program: Program, cores: int, queues: Queues, memories: Sequence[str], split: int, first: str | None = None
    ) -> None:
        self.cores, self.queues, self.memories, self.split, self.first = cores, queues, memories, split, first
        self._passing: dict[int, int] = {}
        self.items: list[Item] = []
        self.order: list[list[Item]] = [[] for _ in range(cores)]
        self.signals = 0
        count = cores * len(queues.names)
        self._position = {name: index for index, name in enumerate(queues.names)}
        self._queue: list[int] = []
        self._known = [[-1] * count for _ in range(count)]
        self._at_start: list[list[int]] = []
        self._maps: dict[str, _AccessMap] = {}
        self._sent: dict[tuple[int, str], list[int]] = {}
        self._turn = 0
        for step in program.steps:
            self._take(step)
        self._number_semaphores()

    # -- steps ---------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        if step.instruction == SIGNAL:
            item = self._new(step.core, self.queues.signalling, None, step.op, True)
            self._finish(item, self._conflicts(step, step.core, item.number))
            self._sent.setdefault((item.core, item.queue), []).append(item.number)
        elif not step.shared:
            item = self._new(step.core, step.queue, step, step.op)
            self._finish(item, self._conflicts(step, step.core, item.number))
            if any(region.buffer.memory == self.first for region in step.reads):
                self._passing[step.core] = item.number
        else:
            for core, queue, part in self._parts(step):
                item = self._new(core, queue, part, step.op)
                needs = self._conflicts(part, core, item.number)
                self._finish(item, needs | {self._passing[core]} if core in self._passing else needs)

    def _new(self, core: int, queue: str, step: Step | None, op: int, signal: bool = False) -> Item:
        item = Item(len(self.items), core, queue, step, op, signal)
        self.items.append(item)
        self._queue.append(core * len(self.queues.names) + self._position[queue])
        self._at_start.append([])
        return item

    def _finish(self, item: Item, needs: set[int]) -> None:
        """The item stands behind all that its waits brought about."""
        self._satisfy(item, needs)
        self._at_start[item.number] = list(self._known[self._queue[item.number]])
        self.order[item.core].append(item)

    def _parts(self, step: Step) -> list[tuple[int, str, Step]]:
        """A shared load of one row, as loads of all cores; those of one queue after those of another."""
        size, everyone = int(step.fields["row_bytes"]), {"multicast": (1 << self.cores) - 1}
        senders = self.cores * len(self.queues.sharing)
        each = max(-(-size // self.cores // 64) * 64, self.split)
        found = []
        for first in range(0, size, each):
            count = min(each, size - first)
            fields = {**step.fields, **everyone, "row_bytes": count}
            for name in ("src", "dst"):
                ref = step.fields[name]
                fields[name] = replace(ref, offset=ref.offset + first)
            reads = tuple(Region(r.buffer, r.start + first, count) for r in step.reads)
            writes = tuple(Region(r.buffer, r.start + first, count) for r in step.writes)
            core, queue = self._turn % self.cores, self.queues.sharing[self._turn // self.cores]
            found.append((core, queue, replace(step, engine=queue, fields=fields, reads=reads, writes=writes)))
            self._turn = (self._turn + 1) % senders
        return found

    def _conflicts(self, step: Step, core: int, number: int) -> set[int]:
        """Items that touched the same bytes before, one of both writing."""
        needs: set[int] = set()
        for region in step.reads:
            low, high = _range(region)
            needs.update(self._map(region, core).read(low, high, number, self._queue.__getitem__))
        for region in step.writes:
            for there in range(self.cores) if step.shared else (core,):
                low, high = _range(region)
                needs.update(self._map(region, there).write(low, high, number))
        return needs - {number}

    def _map(self, region: Region, core: int) -> _AccessMap:
        memory = region.buffer.memory
        return self._maps.setdefault(f"{memory} {core}" if memory in self.memories else memory, _AccessMap())

    # -- waits ---------------------------------------------------------------------------

    def _satisfy(self, item: Item, needs: set[int]) -> None:
        """Wait for all of `needs`, for the newest first: it may imply the others."""
        here = self._queue[item.number]
        shared: list[int] = []
        abroad: dict[int, list[int]] = {}
        for other in sorted(needs, reverse=True):
            if self._queue[other] == here or self._known[here][self._queue[other]] >= other:
                continue
            there = self.items[other]
            if there.step is not None and there.step.shared:
                shared.append(other)
            elif there.core == item.core or (there.signal and item.queue in self.queues.listeners):
                self._wait(item, other)
            else:
                abroad.setdefault(there.core, []).append(other)
        heard: list[int] = []
        for core, others in abroad.items():
            if left := self._unknown(here, others):
                heard.append(self._relay(core, self.queues.signalling, left, item.op))
        collected = shared if item.queue in self.queues.listeners else [*shared, *heard]
        if item.queue in self.queues.listeners:
            for other in heard:
                self._wait(item, other)
        if item.queue == self.queues.collector:
            for other in shared:
                self._wait(item, other)
        elif left := self._unknown(here, collected):
            self._wait(item, self._relay(item.core, self.queues.collector, left, item.op))

    def _unknown(self, queue: int, others: list[int]) -> list[int]:
        return [other for other in others if self._known[queue][self._queue[other]] < other]

    def _wait(self, item: Item, other: int) -> None:
        mine, there = self._known[self._queue[item.number]], self._queue[other]
        if mine[there] >= other:
            return
        item.on.append(other)
        mine[there] = other
        for position, value in enumerate(self._at_start[other]):
            if value > mine[position]:
                mine[position] = value

    def _relay(self, core: int, queue: str, others: list[int], op: int) -> int:
        """The oldest wait or signal of a queue behind all of `others`; a new one where there is none."""
        sent = self._sent.setdefault((core, queue), [])
        low, high = 0, len(sent)
        while low < high:
            middle = (low + high) // 2
            knows = self._at_start[sent[middle]]
            if all(knows[self._queue[other]] >= other for other in others):
                high = middle
            else:
                low = middle + 1
        if low < len(sent):
            return sent[low]
        item = self._new(core, queue, None, op, queue == self.queues.signalling)
        self._finish(item, set(others))
        sent.append(item.number)
        self.signals += item.signal
        return item.number

    # -- semaphores ----------------------------------------------------------------------

    def _number_semaphores(self) -> None:
        """Shared loads and signals have semaphores of their own by who sends them; on a core, each pair of queues has one.

        What a queue sends comes in order: who waits for one takes all posts up to it.
        """
        senders = [*self.queues.sharing, *self.queues.listeners]
        ordinals: dict[int, int] = {}
        counts: dict[tuple[int, str], int] = {}
        taken: dict[tuple[int, int], int] = {}
        pairs: list[dict[tuple[str, str], int]] = [{} for _ in range(self.cores)]
        for item in self.items:
            if item.signal or (item.step is not None and item.step.shared):
                ordinals[item.number] = counts[item.core, item.queue] = counts.get((item.core, item.queue), 0) + 1
                names = self.queues.listeners if item.signal else (item.queue,)
                item.posts += [(senders.index(name) * self.cores + item.core, 1) for name in names]
        for item in self.items:
            for other in item.on:
                there = self.items[other]
                if other in ordinals and not (there.signal and there.core == item.core):
                    semaphore = senders.index(item.queue if there.signal else there.queue) * self.cores + there.core
                    before = taken.get((item.core, semaphore), 0)
                    taken[item.core, semaphore] = ordinals[other]
                    item.waits.append((semaphore, ordinals[other] - before))
                else:
                    pair = (there.queue, item.queue)
                    semaphore = pairs[item.core].setdefault(pair, len(senders) * self.cores + len(pairs[item.core]))
                    item.waits.append((semaphore, 1))
                    there.posts.append((semaphore, 1))


def _range(region: Region) -> tuple[int, int]:
    address = region.buffer.address
    if address is None:
        raise ValueError(f"buffer '{region.buffer.name}' has no address")
    return address + region.start, address + region.start + region.size
