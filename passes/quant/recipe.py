# SPDX-License-Identifier: Apache-2.0
"""Recipes: ways to quantise a graph, as data. Each algorithm has a switch here."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from .fit_weights import RoundingKind
from .observers import ObserverKind


class Effort(enum.Enum):
    """How much is tried; the value is the spelling of the option."""

    #: One recipe beside the plain one, on few samples.
    FAST = "fast"
    DEFAULT = "default"
    #: More recipes on more samples.
    HIGH = "high"


class Coverage(enum.Enum):
    """Which ops become integer; the value is the spelling of the option."""

    #: All that have an integer form on the target.
    FULL = "full"
    #: Convolutions and products only.
    CORE = "core"


@dataclass(frozen=True)
class Recipe:
    """One way to quantise.

    `observer`: ranges as they were seen; `fit_ranges`: then those that cost the outputs least (`fit_ranges.py`). `equalize`: how far
    channels are brought towards one range before, as a power (`equalize.py`). `rounding`: how weights are fitted (`fit_weights.py`), None
    for the nearest integers and biases as they are; `correct_bias`: biases take back mean errors.
    """

    observer: ObserverKind = ObserverKind.MIN_MAX
    fit_ranges: bool = False
    equalize: float = 0.0
    rounding: RoundingKind | None = None
    correct_bias: bool = True

    def __str__(self) -> str:
        parts = [self.observer.value]
        if self.fit_ranges:
            parts.append("fitted ranges")
        if self.equalize:
            parts.append(f"equalize {self.equalize:g}")
        if self.rounding is not None:
            parts.append(self.rounding.value + ("" if self.correct_bias else " without bias correction"))
        return ", ".join(parts)


@dataclass(frozen=True)
class Switches:
    """What the user decided: None leaves it to the search."""

    observer: ObserverKind | None = None
    fit_ranges: bool | None = None
    equalize: float | None = None
    rounding: RoundingKind | None = None
    correct_bias: bool = True

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe as the user wants it."""
        changed = replace(recipe, correct_bias=self.correct_bias)
        if self.observer is not None:
            changed = replace(changed, observer=self.observer, fit_ranges=False)
        if self.fit_ranges is not None:
            changed = replace(changed, fit_ranges=self.fit_ranges)
        if self.equalize is not None:
            changed = replace(changed, equalize=self.equalize)
        if self.rounding is not None:
            changed = replace(changed, rounding=self.rounding)
        return changed
