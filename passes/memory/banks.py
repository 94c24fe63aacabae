# SPDX-License-Identifier: Apache-2.0
"""Banks: memories that serve two users at full speed only where these use different groups of banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gadl.passes.plan.program import Buffer


@dataclass(frozen=True)
class Banks:
    """Groups of banks of `size` bytes each, and for each buffer (by `id`) the buffers used together with it and how much."""

    size: int
    together: Mapping[int, Sequence[tuple[Buffer, float]]]

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

    def meeting(self, buffer: Buffer, start: int, pressure: Mapping[int, float] | None = None) -> float:
        """How much the buffer at `start` would meet its company in the same groups (`pressure`, if it is known already)."""
        if pressure is None:
            pressure = self.pressure(buffer)
        if not pressure:
            return 0.0
        return sum(part * pressure.get(group, 0.0) for group, part in self.parts(start, buffer.size).items())
