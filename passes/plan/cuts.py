# SPDX-License-Identifier: Apache-2.0
"""Where to cut a sequence of layers into groups, and which values stay on chip between them.

Dynamic programming over cuts with a beam of labels. A label is a state behind some layers: the time so far, the constants of
later layers that are on chip already (the stock), and the values that are kept there. While the arrays work, memory that is
idle loads constants ahead, as far as there is room; so a group that leaves room pays for the weights of those behind it.
Nothing here knows a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from .tiling import Floats

#: Labels that are followed at each cut.
BEAM = 24
#: Results of one group of which every subset is tried as kept; of more, all or none.
MOST_SUBSETS = 3
#: A kept value's buffer has room for what goes over it from the beginning: how much more than the value takes.
MOST_GROWTH = 1.6
#: More bytes than any memory has, for what cannot be.
FAR = 1e15


@dataclass(frozen=True)
class Memory:
    """What the groups share: on-chip `capacity` in bytes, off-chip `rate` in bytes per cycle, `latency` in cycles, and how many
    loads may wait for it at once. `packed` is what a byte of constants on chip takes off chip, `price` the cycles that a byte moved
    counts beside its time.
    """

    capacity: float
    rate: float
    latency: float
    channels: int
    packed: float = 1.0
    price: float = 0.0

    @property
    def constant_rate(self) -> float:
        """On-chip bytes of constants per cycle."""
        return self.rate / self.packed


@dataclass(frozen=True)
class Crossing:
    """A value that a group reads from outside, or leaves for later.

    Its bytes; where it passes memory those of its band, and those that the first iteration cannot do without.
    """

    value: int
    size: int
    band: Floats
    first: Floats


@dataclass(frozen=True)
class Over:
    """A result that takes the place of a value in one iteration, `block` rows at a time (0: all), with constants that come again
    for each block where `streamed`; both together take `span` bytes.
    """

    value: int
    result: int
    span: int
    block: int = 0
    streamed: bool = False


@dataclass(frozen=True)
class Ways:
    """How layers `[first, end)` may run as one group; vectors are over the ways.

    `parts` is the number of iterations (0: a layer from memory to memory, alone on the chip), `work` the cycles of the busiest
    engine, memory aside, `inside` the bytes of values that live within the group. `constants` lie on chip to the end where
    `resident`; elsewhere `piece` bytes of them at a time. `shared`: where all happens in one iteration, a kept result takes the
    place of an operand that it is as large as. `over`: the result goes over an operand, which nobody reads afterwards.
    `seen`: another look at values in memory, which takes no time and no room. `together`: `resident` constants come as one, and
    nothing starts before they are there. `sliced`: some channels at a time. `chunk`: the channels whose constants come at a time,
    where the target leaves that to the search.
    """

    first: int
    end: int
    parts: Floats
    work: Floats
    inside: Floats
    constants: int
    resident: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    piece: int
    reads: tuple[Crossing, ...] = ()
    results: tuple[Crossing, ...] = ()
    shared: bool = False
    over: Over | None = None
    seen: frozenset[int] = frozenset()
    together: bool = False
    sliced: bool = False
    chunk: int = 0


def advance(
    memory: Memory, ways: Ways, stock: Floats, held: Floats, loaded: Floats, awaited: Floats, stored: float, behind: float
) -> tuple[Floats, Floats]:
    """What a group takes and the stock that it leaves, over states before it and ways to run it; infinite where it does not fit.

    `held` are bytes on chip beside constants; `loaded` come from memory, of these `awaited` before anything starts; `stored` go
    there. `behind` are the constants of all later groups.
    """
    alone = ways.parts == 0
    parts = np.maximum(ways.parts, 1)
    room = memory.capacity - held
    there = np.minimum(stock, room)
    mine = np.minimum(there, ways.constants)
    rest = ways.constants - mine
    late = np.where(
        ways.resident & (not ways.together),
        np.maximum(rest / memory.constant_rate - ways.work / parts, 0),
        np.maximum(np.minimum(ways.piece, ways.constants) - mine, 0) / memory.constant_rate,
    )
    ramp = memory.latency * ((loaded > 0) * 2.0 + (stored > 0)) + awaited / memory.rate
    moved = loaded + stored + rest * memory.packed
    transfers = parts * (len(ways.reads) + (stored > 0)) + 2.0 * (ways.end - ways.first) * (not ways.seen)
    length = np.maximum(ways.work + late + ramp, moved / memory.rate + transfers * memory.latency / memory.channels)
    spare = (length * memory.rate - moved) / memory.packed
    left = np.minimum(there - mine + spare, room - np.where(ways.resident, ways.constants, 0))
    left = np.where(alone, 0, np.minimum(left, behind))
    fits = np.where(alone, held == 0, room >= np.where(ways.resident, ways.constants, min(ways.piece, ways.constants)))
    return np.where(fits, length, np.inf), left


@dataclass(frozen=True)
class Cut:
    """A group that was chosen: layers `[first, end)`, iterations, the results that stay on chip, and if one goes over an operand.

    `streamed`: constants come in pieces, in every iteration again; `sliced`: some channels at a time.
    """

    first: int
    end: int
    parts: int
    kept: frozenset[int]
    over: Over | None = None
    streamed: bool = False
    sliced: bool = False
    chunk: int = 0


@dataclass(frozen=True)
class _Label:
    time: float
    stock: float
    kept: frozenset[int]
    cut: Cut | None = None
    before: _Label | None = None
    live: int = 0  # bytes of what is kept
    until: int = -1  # the last layer that reads any of it
    roomy: tuple[int, int] = (0, 0)  # a kept value whose buffer has room for those before it, and the bytes of that

    def worth(self, rate: float) -> float:
        """When memory would be done with what is on chip: the label's rank."""
        return self.time - self.stock / rate


@dataclass
class _Bucket:
    """Candidates at one cut."""

    time: list[Floats] = field(default_factory=list)
    stock: list[Floats] = field(default_factory=list)
    origin: list[tuple[Ways, list[_Label], frozenset[int]]] = field(default_factory=list)
    bare: list[np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = field(default_factory=list)


class Uncovered(ValueError):
    """No sequence of groups covers all layers; none goes beyond `layer`."""

    def __init__(self, layer: int) -> None:
        super().__init__("no sequence of groups covers all layers")
        self.layer = layer


class CutSearch:
    """The search. `ways(first)` gives every group that starts at a layer.

    `last` is the last layer that reads each value, `sizes` the values that may stay on chip and their bytes, `constants` the
    bytes of every layer's constants.
    """

    def __init__(
        self, ways: Callable[[int], Iterable[Ways]], memory: Memory, last: Mapping[int, int], sizes: Mapping[int, int],
        constants: Sequence[int],
    ) -> None:  # fmt: skip
        self.ways, self.memory, self.last, self.sizes = ways, memory, last, sizes
        self.count = len(constants)
        self.behind = np.concatenate([np.cumsum(constants[::-1])[::-1], [0]]).astype(float)

    def run(self) -> list[Cut]:
        """The groups of least time; `Uncovered` where no sequence of groups covers all layers."""
        buckets = [_Bucket() for _ in range(self.count + 1)]
        labels = [_Label(0.0, 0.0, frozenset())]
        for at in range(self.count):
            if at:
                labels = self._best(buckets[at])
            if labels:
                for ways in self.ways(at):
                    self._follow(ways, labels, buckets[ways.end])
        found = self._best(buckets[self.count]) if self.count else labels
        if not found:
            raise Uncovered(max(at for at in range(self.count) if at == 0 or buckets[at].time))
        label: _Label | None = min(found, key=lambda item: item.time)
        cuts: list[Cut] = []
        while label is not None and label.cut is not None:
            cuts.append(label.cut)
            label = label.before
        return cuts[::-1]

    def _follow(self, ways: Ways, labels: list[_Label], bucket: _Bucket) -> None:
        """Every label goes on with every way and every choice of kept results."""
        time = np.array([label.time for label in labels])[:, None]
        stock = np.array([label.stock for label in labels])[:, None]
        live = np.array([float(label.live) for label in labels])[:, None]
        free = np.array([label.until < ways.end for label in labels])
        loaded = np.zeros((len(labels), 1))
        bands = np.tile(ways.inside, (len(labels), 1))
        awaited = np.zeros((len(labels), len(ways.parts)))
        for row, label in enumerate(labels):
            for item in ways.reads:
                if item.value not in label.kept:
                    loaded[row] += item.size
                    bands[row] += item.band
                    awaited[row] += item.first
            if not ways.seen.isdisjoint(label.kept):
                bands[row] = FAR
            if ways.over is not None:
                there = self._there(ways.over.value, label)
                bands[row] += self._place(ways.over, label) - there
                if ways.over.value in label.kept and ways.over.span > MOST_GROWTH * there:
                    bands[row] = FAR
        for kept in self._choices(ways):
            stored = sum(item.size for item in ways.results if item.value not in kept)
            held = live + bands
            if ways.over is None:
                held = held + sum(item.band for item in ways.results if item.value not in kept)
                held = held + sum(self.sizes[item.value] for item in ways.results if item.value in kept) * ~(ways.shared & (ways.parts == 1))
            length, left = advance(self.memory, ways, stock, held, loaded, awaited, stored, self.behind[ways.end])
            then = time + length + self.memory.price * (loaded + stored + ways.constants * self.memory.packed)
            if np.isfinite(then).any():
                bucket.time.append(then)
                bucket.stock.append(left)
                bucket.origin.append((ways, labels, kept))
                bucket.bare.append(np.repeat(free & (not kept), len(ways.parts)))

    def _there(self, value: int, label: _Label) -> int:
        """Bytes on chip for a value that is kept there, or loaded whole."""
        return label.roomy[1] if label.roomy[0] == value and value in label.kept else self.sizes[value]

    def _place(self, over: Over, label: _Label) -> int:
        """Bytes on chip for a value and the result that goes over it."""
        return max(self._there(over.value, label), over.span)

    def _choices(self, ways: Ways) -> list[frozenset[int]]:
        values = [item.value for item in ways.results if item.value in self.sizes]
        if len(values) > MOST_SUBSETS:
            return [frozenset(), frozenset(values)]
        return [frozenset(c) for n in range(len(values) + 1) for c in combinations(values, n)]

    def _best(self, bucket: _Bucket) -> list[_Label]:
        """The labels that no other beats, at most `BEAM` of them."""
        if not bucket.time:
            return []
        time, stock = np.concatenate([t.ravel() for t in bucket.time]), np.concatenate([s.ravel() for s in bucket.stock])
        rank = time - stock / self.memory.constant_rate
        starts = np.cumsum([0, *(t.size for t in bucket.time)])
        bare = np.where(np.concatenate(bucket.bare), time, np.inf)
        chosen = dict.fromkeys((*_least(time, 4 * BEAM), *_least(rank, 8 * BEAM), int(bare.argmin())))
        most: dict[frozenset[int], float] = {}
        found: list[_Label] = []
        for index in sorted(chosen, key=lambda i: (time[i], -stock[i])):
            if not np.isfinite(time[index]):
                break
            source = int(np.searchsorted(starts, index, "right")) - 1
            ways, labels, kept = bucket.origin[source]
            row, way = divmod(int(index - starts[source]), len(ways.parts))
            alive = frozenset(v for v in labels[row].kept | kept if self.last[v] >= ways.end)
            if stock[index] <= most.get(alive, -1.0):
                continue
            most[alive] = float(stock[index])
            streamed = bool(ways.parts[way] > 0 and not ways.resident[way] and ways.constants)
            cut = Cut(ways.first, ways.end, 0 if ways.seen else int(ways.parts[way]), kept, ways.over, streamed, ways.sliced, ways.chunk)
            roomy = labels[row].roomy
            if ways.over is not None and kept:
                roomy = ways.over.result, self._place(ways.over, labels[row])
            roomy = roomy if roomy[0] in alive else (0, 0)
            live, until = sum(self.sizes[v] for v in alive), max((self.last[v] for v in alive), default=-1)
            live += roomy[1] - self.sizes[roomy[0]] if roomy[1] else 0
            found.append(_Label(float(time[index]), float(stock[index]), alive, cut, labels[row], live, until, roomy))
        found.sort(key=lambda label: label.worth(self.memory.constant_rate))
        # A layer that wants the chip for itself ends all labels that keep something.
        return [*found[:BEAM], *[label for label in found[BEAM:] if not label.kept][:1]]


def _least(values: Floats, count: int) -> list[int]:
    """The positions of the least values, in any order."""
    if len(values) <= count:
        return list(range(len(values)))
    return np.argpartition(values, count)[:count].tolist()
