# SPDX-License-Identifier: Apache-2.0
"""The search: estimates rank, measurements decide, evolution goes on from the best.

Round 0 measures the default plan. Round 1 ranks the space's other starting points and changes of the default by estimate
and measures the best of different cuts. Every later round makes children of the fastest plans, ranks them by estimate times
what the measured plans taught about estimates, and measures the best, with some taken at random. Rounds have a fixed size,
so the result is the same for any number of workers.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gadl.passes.plan.plan import Plan
from gadl.targets.base import Estimate, PlanSpace

from .budget import Budget
from .measure import Measurement, Measurer
from .residual import Residual

#: Plans measured in round 1 and in every later one.
FIRST, BATCH = 16, 8
#: Children of the default plan that are ranked in round 1.
WIDE = 480
#: Plans that have children, and children that are ranked.
PARENTS, CHILDREN = 10, 160
#: Part of a batch that is taken at random; part of a parent's own error that its children are expected to inherit.
EXPLORE, INHERITED = 0.125, 0.8
#: How far an expectation is trusted: the standard deviation of its logarithm when the next plans are drawn.
DOUBT = 0.01
#: Moves of one child: mostly few.
MOVES = (1, 1, 1, 2, 2, 3, 4)
#: Part of the children that join or mix two parents.
JOINED = 0.3
#: Rounds without a single plan that is not known yet, after which a small space counts as searched.
MOST_EMPTY = 4


@dataclass(frozen=True)
class Trial:
    """One plan of the search with its estimate and its measurement."""

    plan: Plan
    estimate: Estimate
    cycles: float | None
    problem: str
    round: int

    @property
    def error(self) -> float | None:
        """log(measured / estimated); None where there is none."""
        if self.cycles is None or not math.isfinite(self.estimate.cycles):
            return None
        return math.log(self.cycles / self.estimate.cycles)


@dataclass(frozen=True)
class Progress:
    """How far a search is: `done` of `total` (measurements, or seconds where `unit` is `s`), the best cycles and their limit."""

    done: float
    total: float
    unit: str
    best_cycles: float
    bound_cycles: float


@dataclass(frozen=True)
class _Child:
    plan: Plan
    parent: Trial | None


class Search:
    """One search over a space.

    `known` are measurements by plan digest, taken as if they were made anew; `hints` plans that round 1 measures first.
    """

    def __init__(
        self, space: PlanSpace, measurer: Measurer, seed: int, known: Mapping[str, Measurement], hints: Sequence[Plan] = ()
    ) -> None:
        self.space, self.measurer, self.known, self.hints = space, measurer, known, hints
        self.rng = random.Random(seed)
        self.seen: set[str] = set()
        self.trials: list[Trial] = []
        self.others: list[Trial] = []
        self.model = Residual()
        self.spent = 0

    def learn(self, plans: Iterable[tuple[Plan, Measurement]]) -> None:
        """Take in plans that somebody else measured: they cost nothing, and may have children."""
        for plan, result in plans:
            if plan.digest not in self.seen and self.space.legal(plan):
                self.seen.add(plan.digest)
                self.others.append(Trial(plan, self.space.estimate(plan), result.cycles, result.problem, -1))

    def run(self, budget: Budget, found: Callable[[list[Trial]], None], watch: Callable[[Progress], None]) -> list[Trial]:
        """All trials of this search, in order. `found` gets the trials that were measured anew, after each round."""
        start, empty, number = time.monotonic(), 0, 0
        while True:
            now = time.monotonic() - start
            left = math.inf if budget.count is None else budget.count - self.spent
            if number and (left <= 0 or (budget.seconds is not None and now >= budget.seconds)):
                break
            chosen = [c.plan for c in self._round(number)][: int(min(left, FIRST))]
            empty = 0 if chosen else empty + 1
            if empty == MOST_EMPTY:
                break
            found(self._measure(chosen, number))
            number += 1
            best = min((t.cycles for t in self._population() if t.cycles is not None), default=math.nan)
            if budget.seconds is None:
                watch(Progress(self.spent, budget.count or 0, "", best, self.space.bound))
            else:
                watch(Progress(min(time.monotonic() - start, budget.seconds), budget.seconds, "s", best, self.space.bound))
        return self.trials

    def _round(self, number: int) -> list[_Child]:
        if number == 0:
            plan = self.space.initial()
            self.seen.add(plan.digest)
            return [_Child(plan, None)]
        if number == 1:
            first = [_Child(plan, None) for plan in self._unseen(self.hints)][:FIRST]
            pool = [_Child(plan, None) for plan in self.space.candidates(self.rng) if self.space.legal(plan)]
            return [*first, *self._best(self._by_cuts([*pool, *self._children(WIDE)]), FIRST - len(first))]
        return self._best(self._children(CHILDREN), BATCH)

    def _by_cuts(self, pool: list[_Child]) -> list[_Child]:
        """Of all that cut the layers at the same places, the one of least expected cycles: the first round looks widely."""
        best: dict[tuple[tuple[int, ...], ...], tuple[float, _Child]] = {}
        for child in pool:
            cuts = tuple(group.layers[0].ops for group in child.plan.groups)
            expected = self._expected(child)
            if child.plan.digest not in self.seen and expected < best.get(cuts, (math.inf, child))[0]:
                best[cuts] = (expected, child)
        return [child for _, child in best.values()]

    def _measure(self, plans: list[Plan], number: int) -> list[Trial]:
        """Measure what is not known; returns those."""
        missing = [p for p in plans if p.digest not in self.known]
        fresh = dict(zip((p.digest for p in missing), self.measurer.measure(missing) if missing else [], strict=True))
        made = []
        for plan in plans:
            result = fresh.get(plan.digest) or self.known[plan.digest]
            made.append(Trial(plan, self.space.estimate(plan), result.cycles, result.problem, number))
        self.trials += made
        self.spent += len(plans)
        taught = [t for t in self._population() if math.isfinite(t.estimate.cycles)]
        self.model.fit([t.estimate.features for t in taught], [t.error for t in taught])
        return [t for t in made if t.plan.digest in fresh]

    def _population(self) -> list[Trial]:
        return [*self.others, *self.trials]

    def _unseen(self, plans: Iterable[Plan]) -> Iterator[Plan]:
        """Plans that were never met, each once."""
        for plan in plans:
            if plan.digest not in self.seen and self.space.legal(plan):
                self.seen.add(plan.digest)
                yield plan

    def _children(self, count: int) -> list[_Child]:
        """Changes and joins of the fastest plans."""
        parents = sorted((t for t in self._population() if t.cycles is not None), key=lambda t: t.cycles or 0.0)[:PARENTS]
        found: list[_Child] = []
        for _ in range(count if parents else 0):
            parent = parents[min(int(self.rng.expovariate(3.0 / len(parents))), len(parents) - 1)]
            plan = parent.plan
            if len(parents) > 1 and self.rng.random() < JOINED:
                plan = self.rng.choice((self._join, self._mix))(plan, self.rng.choice(parents).plan)
            if plan is parent.plan or self.rng.random() < 0.5:
                for _ in range(self.rng.choice(MOVES)):
                    plan = self.space.mutate(plan, self.rng)
            found.append(_Child(plan, parent))
        return found

    def _join(self, left: Plan, right: Plan) -> Plan:
        """The first groups of one plan and the last of another, where both cut at the same place."""
        cuts = sorted(_cuts(left).keys() & _cuts(right).keys())
        if not cuts:
            return left
        at = self.rng.choice(cuts)
        made = replace(left, groups=(*left.groups[: _cuts(left)[at]], *right.groups[_cuts(right)[at] :]))
        return made if self.space.legal(made) else left

    def _mix(self, left: Plan, right: Plan) -> Plan:
        """The groups of one plan; half of the layers as another plan runs them, where it runs them in a like group."""
        other = {(layer.ops, min(group.iterations, 2)): layer for group in right.groups for layer in group.layers}
        groups = []
        for group in left.groups:
            kind = min(group.iterations, 2)
            layers = tuple(other.get((p.ops, kind), p) if self.rng.random() < 0.5 else p for p in group.layers)
            groups.append(replace(group, layers=layers))
        made = replace(left, groups=tuple(groups))
        return made if self.space.legal(made) else left

    def _best(self, pool: list[_Child], count: int) -> list[_Child]:
        """The children of least expected cycles, and some at random, none of them met before; not those that cannot fit."""
        pool = list({c.plan.digest: c for c in reversed(pool) if c.plan.digest not in self.seen}.values())[::-1]
        doubt = [math.exp(self.rng.gauss(0.0, DOUBT)) for _ in pool]
        ranked = sorted((self._expected(child) * doubt[index], index) for index, child in enumerate(pool))
        order = [index for expected, index in ranked if math.isfinite(expected)]
        chosen: list[_Child] = []
        while order and len(chosen) < count:
            at = self.rng.randrange(len(order)) if self.rng.random() < EXPLORE else 0
            chosen.append(pool[order.pop(at)])
        self.seen |= {child.plan.digest for child in chosen}
        return chosen

    def _expected(self, child: _Child) -> float:
        """Estimated cycles, corrected by the model and by how wrong the parent's estimate was; dearer where failure is likely."""
        estimate = self.space.estimate(child.plan)
        if not math.isfinite(estimate.cycles):
            return math.inf
        correction = self.model.ratio(estimate.features)
        parent = child.parent
        if parent is not None and (error := parent.error) is not None:
            correction += INHERITED * (error - self.model.ratio(parent.estimate.features))
        return estimate.cycles * math.exp(min(correction, 50.0)) * (1 + self.model.failure(estimate.features))


def _cuts(plan: Plan) -> dict[tuple[int, ...], int]:
    """The groups' first ops, and which group each begins (not the first group)."""
    return {group.layers[0].ops: index for index, group in enumerate(plan.groups) if index}
