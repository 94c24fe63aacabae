# SPDX-License-Identifier: Apache-2.0
"""The chips of the family: one architecture with 2 or 8 lanes (facts read from the vendor's published sources)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """Numbers of one chip.

    `units`: int8 results that a lane works on at once, with up to two products each; 16-bit types halve them. `magic`
    starts every command header. `mhz` is the clock that the vendor's estimator assumes.
    """

    name: str
    lanes: int
    magic: int
    mhz: int = 500
    lane_bytes: int = 32768
    banks: int = 8
    units: int = 16

    @property
    def clock_mhz(self) -> float:
        """Of both engines."""
        return float(self.mhz)

    @property
    def macs_per_cycle(self) -> float:
        """In int8, with two products per unit."""
        return float(self.lanes * self.units * 2)

    @property
    def bank_bytes(self) -> int:
        """Of one lane."""
        return self.lane_bytes // self.banks


CHIPS = {chip.name: chip for chip in (Chip("cv180x", 2, 0xA8), Chip("cv181x", 8, 0xA7))}
