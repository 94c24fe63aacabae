# SPDX-License-Identifier: Apache-2.0
"""Changes of plans that the spaces of all targets share: cuts between groups, iterations, chunks of channels, what is kept."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan


class Planned(Protocol):
    """A layer of a target."""

    @property
    def ops(self) -> tuple[int, ...]:
        """Indices of its ops in the segment."""


Layer = TypeVar("Layer", bound=Planned)
Groups = list[GroupPlan]
Move = Callable[[Groups, random.Random], Groups | None]
#: Attempts of a random change before the plan is returned as it is.
_ATTEMPTS = 24


@dataclass(frozen=True)
class TileChoices:
    """What the tile of a lone layer may be: rows, and where it has those output channels, input channels (beside all) and orders.

    An order says whether channels are outside, and whether what the inner loop reads again stays.
    """

    rows: Sequence[int]
    channels: Sequence[int] = ()
    depths: Sequence[int] = ()
    orders: Sequence[tuple[int, int]] = ()


class Moves(ABC, Generic[Layer]):
    """Random changes of the plans of one segment.

    `by_op` are its layers, in order, by their first op; chunks of channels are multiples of `unit`.
    """

    by_op: Mapping[int, Layer]
    unit: int

    @property
    @abstractmethod
    def moves(self) -> Sequence[Move]:
        """The changes that exist, the frequent ones several times. Each takes groups, and returns groups or None: nothing to change."""

    @abstractmethod
    def legal_group(self, group: GroupPlan, members: Sequence[Layer]) -> bool:
        """True when its layers can run that way."""

    @abstractmethod
    def by_rows(self, layer: Layer) -> bool:
        """True for a layer that can be part of a group."""

    @abstractmethod
    def height(self, members: Sequence[Layer]) -> int:
        """The rows of the tallest result: most iterations of a group."""

    @abstractmethod
    def first_chunk(self, layer: Layer) -> int:
        """The chunk of channels that a layer has in a single iteration, at first; 0: all."""

    @abstractmethod
    def divisible_channels(self, layer: Layer) -> int:
        """Output channels whose constants can be loaded in chunks; at most 1 where they cannot."""

    @abstractmethod
    def chunks(self, layer: Layer) -> Sequence[int]:
        """Chunks that divide the channels evenly."""

    @abstractmethod
    def alone(self, layer: Layer) -> GroupPlan | None:
        """The layer by itself; None where it finds no place."""

    @abstractmethod
    def tiles(self, layer: Layer) -> TileChoices:
        """Tiles of a lone layer that has any."""

    # -- plans -----------------------------------------------------------------

    def legal(self, plan: Plan) -> bool:
        """True when every layer runs once, in order, in a way that it can run; whether it fits shows when it is expanded."""
        chosen = [layer.ops for group in plan.groups for layer in group.layers]
        if chosen != [layer.ops for layer in self.by_op.values()]:
            return False
        return all(bool(group.layers) and self.legal_group(group, self.members(group)) for group in plan.groups)

    def members(self, group: GroupPlan) -> list[Layer]:
        """The layers of a group."""
        return [self.by_op[p.ops[0]] for p in group.layers]

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """A legal plan one move away; the plan itself where no move was found."""
        for _ in range(_ATTEMPTS):
            groups = rng.choice(self.moves)(list(plan.groups), rng)
            if groups is not None:
                made = replace(plan, groups=tuple(groups))
                if made != plan and self.legal(made):
                    return made
        return plan

    # -- moves -----------------------------------------------------------------

    def iterate(self, groups: Groups, rng: random.Random) -> Groups | None:
        """Another number of iterations."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0 or group.cores > 1:
            return None
        groups[index] = self.with_iterations(group, self._other_iterations(group, rng))
        return groups

    def _other_iterations(self, group: GroupPlan, rng: random.Random) -> int:
        height, now = self.height(self.members(group)), group.iterations
        counts = sorted({-(-height // rows) for rows in range(1, height + 1)})
        near = min(range(len(counts)), key=lambda i: abs(counts[i] - now))
        around = counts[max(0, near - 2) : near + 3]
        return rng.choice([*around, now - 1, now + 1, now // 2, now * 2, rng.choice(counts)])

    def with_iterations(self, group: GroupPlan, iterations: int) -> GroupPlan:
        """Chunks of channels belong to a single iteration: they come and go with it."""
        iterations = min(max(1, iterations), self.height(self.members(group)))
        if (iterations == 1) == (group.iterations == 1):
            return replace(group, iterations=iterations)
        layers = tuple(
            replace(p, channels=self.first_chunk(m) if iterations == 1 else 0) for m, p in zip(self.members(group), group.layers)
        )
        return replace(group, layers=layers, iterations=iterations)

    def shift(self, groups: Groups, rng: random.Random) -> Groups | None:
        """Some layers change to the group before or behind."""
        pairs = [i for i in range(len(groups) - 1) if groups[i].iterations and groups[i + 1].iterations]
        if not pairs:
            return None
        at = rng.choice(pairs)
        layers, first = (*groups[at].layers, *groups[at + 1].layers), len(groups[at].layers)
        cut = min(max(0, first + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 3, 4, 6, 8))), len(layers))
        kept = groups[at].layers[-1].kept
        made = [self.regroup(g, part) for g, part in ((groups[at], layers[:cut]), (groups[at + 1], layers[cut:])) if part]
        if len(made) == 2:
            made[0] = keeping(made[0], kept)
        return [*groups[:at], *made, *groups[at + 2 :]]

    def regroup(self, group: GroupPlan, layers: tuple[LayerPlan, ...]) -> GroupPlan:
        """`group` with other layers."""
        members = [self.by_op[p.ops[0]] for p in layers]
        iterations = min(max(1, group.iterations), self.height(members))
        kept = {p.ops for p in group.layers}
        fresh = tuple(
            p if p.ops in kept else LayerPlan(p.ops, channels=self.first_chunk(m) if iterations == 1 else 0) for p, m in zip(layers, members)
        )
        return replace(group, layers=fresh, iterations=iterations)

    def split(self, groups: Groups, rng: random.Random) -> Groups | None:
        """Two groups of one."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if len(group.layers) < 2:
            return None
        cut = rng.randrange(1, len(group.layers))
        parts = [keeping(self.regroup(group, group.layers[:cut]), rng.random() < 0.7), self.regroup(group, group.layers[cut:])]
        if rng.random() < 0.5:
            which = rng.randrange(2)
            parts[which] = self.with_iterations(parts[which], self._other_iterations(parts[which], rng))
        return [*groups[:index], *parts, *groups[index + 1 :]]

    def merge(self, groups: Groups, rng: random.Random) -> Groups | None:
        """One group of two neighbours."""
        pairs = [i for i in range(len(groups) - 1) if groups[i].iterations and groups[i + 1].iterations]
        if not pairs:
            return None
        at = rng.choice(pairs)
        model = groups[at + rng.randrange(2)]
        made = self.regroup(model, (*groups[at].layers, *groups[at + 1].layers))
        return [*groups[:at], made, *groups[at + 2 :]]

    def keep(self, groups: Groups, rng: random.Random) -> Groups | None:
        """A result that leaves its group stays on chip, or no longer does."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0:
            return None
        at = rng.choice((len(group.layers) - 1, rng.randrange(len(group.layers))))
        return with_layer(groups, index, at, replace(group.layers[at], kept=not group.layers[at].kept))

    def isolate(self, groups: Groups, rng: random.Random) -> Groups | None:
        """A layer leaves its group and runs from memory to memory."""
        index = rng.randrange(len(groups))
        group = groups[index]
        if group.iterations == 0:
            return None
        at = rng.randrange(len(group.layers))
        alone = self.alone(self.by_op[group.layers[at].ops[0]])
        if alone is None:
            return None
        before = [self.regroup(group, group.layers[:at])] if at else []
        behind = [self.regroup(group, group.layers[at + 1 :])] if at + 1 < len(group.layers) else []
        return [*groups[:index], *before, alone, *behind, *groups[index + 1 :]]

    def absorb(self, groups: Groups, rng: random.Random) -> Groups | None:
        """A lone layer joins a neighbouring group, or becomes a group."""
        lone = [i for i, g in enumerate(groups) if g.iterations == 0 and self.by_rows(self.members(g)[0])]
        if not lone:
            return None
        at = rng.choice(lone)
        (layer,) = groups[at].layers
        neighbours = [i for i in (at - 1, at + 1) if 0 <= i < len(groups) and groups[i].iterations]
        if not neighbours or rng.random() < 0.3:
            count = rng.randint(1, self.height(self.members(groups[at])))
            groups[at] = replace(groups[at], layers=(LayerPlan(layer.ops),), iterations=count)
            return groups
        into = rng.choice(neighbours)
        layers = (*groups[into].layers, layer) if into < at else (layer, *groups[into].layers)
        groups[into] = self.regroup(groups[into], layers)
        del groups[at]
        return groups

    def chunk(self, groups: Groups, rng: random.Random) -> Groups | None:
        """Another chunk of channels for one layer of a group."""
        index = rng.randrange(len(groups))
        group = groups[index]
        at = rng.randrange(len(group.layers))
        if group.iterations == 0:
            return None
        layer, plan = self.members(group)[at], group.layers[at]
        channels, unit = self.divisible_channels(layer), self.unit
        if channels <= 1:
            return None
        now = plan.channels or channels
        wanted = rng.choice([0, now + unit, now - unit, now // 2, now * 2, rng.choice(self.chunks(layer))])
        wanted = 0 if wanted >= channels or wanted <= 0 else -(-wanted // unit) * unit
        return with_layer(groups, index, at, replace(plan, channels=0 if wanted >= channels else wanted))

    def tile(self, groups: Groups, rng: random.Random) -> Groups | None:
        """Another tile of a lone layer: rows, channels, input channels at a time, which loop is outside, what is resident."""
        lone = [i for i, g in enumerate(groups) if g.iterations == 0 and g.layers[0].rows]
        if not lone:
            return None
        at = rng.choice(lone)
        (plan,), (layer,) = groups[at].layers, self.members(groups[at])
        choices = self.tiles(layer)
        if not choices.channels:
            groups[at] = replace(groups[at], layers=(replace(plan, rows=rng.choice(choices.rows)),))
            return groups
        match rng.randrange(4):
            case 0:
                plan = replace(plan, rows=rng.choice(choices.rows))
            case 1:
                plan = replace(plan, channels=rng.choice(choices.channels))
            case 2:
                plan = replace(plan, depth=rng.choice([0, *choices.depths]))
            case _:
                outside, resident = rng.choice(choices.orders)
                plan = replace(plan, order=LoopOrder.CHANNELS if outside else LoopOrder.ROWS, resident=bool(resident))
        groups[at] = replace(groups[at], layers=(plan,))
        return groups


def with_layer(groups: Groups, index: int, at: int, layer: LayerPlan) -> Groups:
    """The groups with another plan for one layer."""
    layers = groups[index].layers
    groups[index] = replace(groups[index], layers=(*layers[:at], layer, *layers[at + 1 :]))
    return groups


def keeping(group: GroupPlan, kept: bool) -> GroupPlan:
    """A group whose last result stays on chip, or does not."""
    return replace(group, layers=(*group.layers[:-1], replace(group.layers[-1], kept=kept)))
