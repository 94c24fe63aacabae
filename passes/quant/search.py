# SPDX-License-Identifier: Apache-2.0
"""Search: quantise by several recipes, measure each on samples that none of them saw, and keep the best.

What is measured is the signal to quantisation noise ratio of the model's outputs, in exact integer arithmetic. Plain min-max is always
among the candidates, so that what comes back is never worse on those samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.types import Array

from .calibrate import calibrate
from .fit_weights import RoundingKind
from .measure import sqnr_db
from .observers import ByChannel, ObserverKind, Range
from .quantize import Prepared, Quantized, prepare, quantize_prepared
from .recipe import Effort, Recipe, Switches
from .specs import QuantRules

Feeds = Mapping[str, Array]
#: Every so manieth sample is kept to measure with, up to a number of elements in all of them, and at least and at most so many.
HELD_EVERY, HELD_ELEMENTS, FEWEST_HELD, MOST_HELD = 4, 96 << 20, 2, 16
#: Samples that fit, at most, by effort; memory may allow fewer.
FITTED = {Effort.FAST: 8, Effort.DEFAULT: 32, Effort.HIGH: 48}
#: Powers of equalisation that are tried.
POWERS = {Effort.FAST: (), Effort.DEFAULT: (0.0, 0.5), Effort.HIGH: (0.0, 0.25, 0.5, 0.75, 1.0)}


@dataclass(frozen=True)
class Trial:
    """A recipe and the mean signal to noise ratio of the outputs in dB."""

    recipe: Recipe
    sqnr_db: float


@dataclass
class Search:
    """Quantises one graph. `progress` hears what is tried next."""

    graph: Graph
    rules: QuantRules
    feeds: Sequence[Feeds]
    effort: Effort = Effort.DEFAULT
    switches: Switches = Switches()
    percentile: float = 99.99
    progress: Callable[[str], None] = lambda text: None

    def run(self) -> Quantized:
        """The best of all recipes; `report["search"]` lists them."""
        self._ranges: dict[ObserverKind, dict[str, Range]] = {}
        self._prepared: dict[Recipe, Prepared] = {}
        self._tried: dict[Recipe, tuple[Trial, Quantized]] = {}
        best = self._best(self._first())
        for recipe in self._more(best):
            self._try(recipe)
        best = self._best(self._tried)
        trial, made = self._tried[best]
        trials = [{"recipe": str(t.recipe), "sqnr_db": round(t.sqnr_db, 3), "chosen": t is trial} for t, _ in self._tried.values()]
        found: dict[str, Any] = {"effort": self.effort.value, "held_out": len(self.held), "recipe": str(best), "sqnr_db": round(trial.sqnr_db, 3)}
        return Quantized(made.graph, {**made.report, "search": found | {"trials": trials}})

    @cached_property
    def held(self) -> list[Feeds]:
        """Samples to measure with. Of few, all are for everything."""
        if len(self.feeds) < HELD_EVERY:
            return list(self.feeds)
        elements = sum(v.type.element_count for v in self.graph.values() if not v.is_constant)
        most = int(np.clip(HELD_ELEMENTS // max(1, elements), FEWEST_HELD, MOST_HELD))
        return list(self.feeds[HELD_EVERY - 1 :: HELD_EVERY][:most])

    @cached_property
    def _seen(self) -> list[Feeds]:
        """Samples to fit with."""
        kept = {id(f) for f in self.held} if len(self.feeds) >= HELD_EVERY else set()
        return [f for f in self.feeds if id(f) not in kept]

    @cached_property
    def _wanted(self) -> list[dict[str, Array]]:
        return [interpret(self.graph, feed) for feed in self.held]

    def _first(self) -> list[Recipe]:
        """Plain min-max, what the target prefers, and the fitted ones of the effort."""
        apply, observer = self.switches.apply, self.switches.observer or self.rules.observer
        plain = Recipe(self.switches.observer or ObserverKind.MIN_MAX, correct_bias=self.switches.correct_bias)
        fitted = Recipe(fit_ranges=True, rounding=RoundingKind.REGRESSION)
        recipes = [plain, Recipe(observer, equalize=self.rules.equalize)]
        if self.effort is Effort.FAST:
            recipes.append(apply(replace(fitted, equalize=self.rules.equalize, rounding=RoundingKind.NEAREST)))
        powers = list(dict.fromkeys(apply(replace(fitted, equalize=power)) for power in POWERS[self.effort]))
        if self.effort is Effort.DEFAULT and all(recipe.fit_ranges for recipe in powers):
            # What activations lose says which power is best before any weight is fitted.
            powers = [max(powers, key=lambda recipe: self._prepare(recipe).sqnr_db)]
        recipes += powers
        for recipe in recipes:
            self._try(recipe)
        return recipes

    def _more(self, best: Recipe) -> list[Recipe]:
        """Variants of the best recipe."""
        if self.effort is Effort.FAST or best.rounding is None:
            return []
        kinds = [RoundingKind.NEAREST] if self.effort is Effort.DEFAULT else [RoundingKind.NEAREST, RoundingKind.SECOND_ORDER]
        variants = [replace(best, rounding=kind) for kind in kinds]
        if self.effort is Effort.HIGH:
            variants.append(replace(best, fit_ranges=not best.fit_ranges))
        return [self.switches.apply(v) for v in variants]

    def _best(self, recipes: Sequence[Recipe] | Mapping[Recipe, Any]) -> Recipe:
        return max(recipes, key=lambda recipe: self._tried[recipe][0].sqnr_db)

    def _try(self, recipe: Recipe) -> None:
        if recipe in self._tried:
            return
        self.progress(str(recipe))
        made = quantize_prepared(self._prepare(recipe), self.rules, recipe, self._seen, FITTED[self.effort])
        ratio = float(np.mean([sqnr_db(want, interpret(made.graph, feed)) for want, feed in zip(self._wanted, self.held, strict=True)]))
        self._tried[recipe] = Trial(recipe, ratio), made

    def _prepare(self, recipe: Recipe) -> Prepared:
        """Graph and ranges, once for all ways to round."""
        key = replace(recipe, rounding=None, correct_bias=True)
        if key not in self._prepared:
            self._prepared[key] = prepare(self.graph, self._ranges_of(recipe.observer), self.rules, key, self._seen)
        return self._prepared[key]

    def _ranges_of(self, kind: ObserverKind) -> dict[str, Range]:
        if kind not in self._ranges:
            self._ranges[kind] = calibrate(self.graph, self.feeds, lambda: ByChannel(kind.create(self.percentile)))
        return self._ranges[kind]
