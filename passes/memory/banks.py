# SPDX-License-Identifier: Apache-2.0
"""Banks: memories that serve two users at full speed only where these use different groups of banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gadl.passes.plan.program import Buffer


@dataclass(frozen=True)
class Greed:
    """Some cycles in which bytes `[start, start + size)` of a buffer are asked for `times` what a group of banks gives."""

    start: int
    size: int
    times: float
    cycles: float


@dataclass(frozen=True)
class Banks:
    """Groups of banks of `size` bytes each, and for each buffer (by `id`) the buffers used together with it and how much.

    `greedy` buffers lose time by themselves where they lie in one group; in two, each gives a part.
    """

    size: int
    together: Mapping[int, Sequence[tuple[Buffer, float]]]
    greedy: Mapping[int, Sequence[Greed]] = field(default_factory=dict)

    def parts(self, start: int, size: int) -> dict[int, float]:
        """The part of `[start, start + size)` in each group."""
        first, last = start // self.size, (start + size - 1) // self.size
        return {
            g: (min(start + size, (g + 1) * self.size) - max(start, g * self.size)) / size for g in range(first, last + 1)
        }

    def pressure(self, buffer: Buffer) -> dict[int, float]:
        """What the company of a buffer costs it in each group of banks."""
        found: dict[int, float] = {}
        for other, weight in self.together.get(id(buffer), ()):
            if other.address is not None:
                for group, part in self.parts(other.address, other.size).items():
                    found[group] = found.get(group, 0.0) + weight * part
        return found

    def alone(self, buffer: Buffer, start: int) -> float:
        """The cycles that a buffer at `start` loses by itself."""
        lost = 0.0
        for greed in self.greedy.get(id(buffer), ()):
            most = max(self.parts(start + greed.start, greed.size).values())
            lost += greed.cycles * max(0.0, most * greed.times - 1)
        return lost

    def meeting(self, buffer: Buffer, start: int, pressure: Mapping[int, float] | None = None) -> float:
        """How many cycles the buffer at `start` loses, to its company in the same groups (`pressure`, if it is known already) and alone."""
        if pressure is None:
            pressure = self.pressure(buffer)
        lost = self.alone(buffer, start)
        if not pressure:
            return lost
        return lost + sum(part * pressure.get(group, 0.0) for group, part in self.parts(start, buffer.size).items())
