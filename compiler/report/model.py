# SPDX-License-Identifier: Apache-2.0
"""The data of a performance report: what `report.json` holds under `performance`, and what page and table are drawn from."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 2


class Spent(enum.Enum):
    """What a cycle of the run went to. Each cycle counts once: for the first of these that happens in it."""

    #: The product array works.
    ARRAY = "array"
    #: The array is there but slowed by others that use the same banks of SRAM; the drain and the vector unit likewise.
    BANKS = "banks"
    #: The array is idle, accumulators are drained.
    DRAIN = "drain"
    #: Only the vector unit works.
    VECTOR = "vector"
    #: Nothing computes, a transfer is under way.
    DRAM = "dram"
    #: Nothing works: issue, latency, waits between queues.
    WAITING = "waiting"


class Limit(enum.Enum):
    """What limits a layer, a group or the model."""

    MMA = "mma"
    DRAIN = "drain"
    VECTOR = "vector"
    DRAM = "dram"
    BANKS = "sram banks"
    WAITING = "waiting"
    #: It takes no cycle of its own: its work is done behind that of others.
    HIDDEN = "hidden"


@dataclass(frozen=True)
class Figures:
    """Numbers of a layer, a group or the model. Cycles of layers sum to those of their group, of groups to the model's.

    `measured_cycles` is L1: the sum of `spent`. `predicted_cycles` is L0: the sum of `predicted`, which is to the analytic model's
    timeline what `spent` is to the run's; empty where the target has no such model. `bound_cycles` is LBgeo: the
    largest entry of `bound`. `busy`: cycles per queue, hidden ones included. `work`: cycles
    that array, drain, vector unit and DRAM would need at full speed; `limit` follows from them and from `spent`.
    """

    measured_cycles: float
    predicted_cycles: float
    bound_cycles: float
    limit: Limit
    macs: int
    dram_bytes: int
    mac_utilisation: float
    spent: dict[str, float]
    work: dict[str, float]
    predicted: dict[str, float]
    bound: dict[str, float]
    busy: dict[str, float]


@dataclass(frozen=True)
class LayerRow(Figures):
    """A layer. `rows` and `channels` are the plan's; `steps` how many instructions it takes."""

    index: int
    name: str
    op: str
    source: str
    shape: tuple[int, ...]
    rows: int
    channels: int
    steps: int


@dataclass(frozen=True)
class GroupRow(Figures):
    """Layers that run together in `iterations` over rows (0: one layer from memory to memory).

    `estimated_cycles` is what the planner took the group for before it was expanded; None where it does not estimate.
    """

    index: int
    segment: int
    iterations: int
    estimated_cycles: float | None
    layers: tuple[LayerRow, ...]

    @property
    def name(self) -> str:
        """First and last layer."""
        first, last = self.layers[0].name, self.layers[-1].name
        return first if first == last else f"{first} … {last}"


@dataclass(frozen=True)
class SramBlock:
    """A buffer in the SRAM map: bytes `[address, address + size)` in cycles `[start, end)`; `layer` wrote it first."""

    name: str
    layer: str
    address: int
    size: int
    start: float
    end: float


@dataclass(frozen=True)
class Agreement:
    """L0, or the planner's estimate, against L1 over `count` rows that take cycles; None where a number is undefined.

    The median of |L0 - L1| / L1, the sum of |L0 - L1| over the sum of L1, and the rank correlation.
    """

    count: int
    median_relative_error: float | None
    weighted_relative_error: float | None
    spearman: float | None


@dataclass(frozen=True)
class Device:
    """The machine's roofs."""

    name: str
    clock_mhz: float
    macs_per_cycle: float
    dram_bytes_per_cycle: float
    sram_bytes: int
    sram_groups: int


@dataclass(frozen=True)
class Performance:
    """A compiled model's run on the simulated device; segments one after another, host operators take no time."""

    device: Device
    total: Figures
    groups: tuple[GroupRow, ...]
    layer_agreement: Agreement
    group_agreement: Agreement
    estimate_agreement: Agreement
    sram: tuple[SramBlock, ...]
    sram_peak_bytes: int
    #: Steps that were left out of the trace, which holds a million.
    left_out: int = 0
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def layers(self) -> tuple[LayerRow, ...]:
        """All layers, in execution order."""
        return tuple(layer for group in self.groups for layer in group.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain data: enumerations by value, cycles to a tenth."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    return round(value, 4) if isinstance(value, float) else value
