# SPDX-License-Identifier: Apache-2.0
"""Plan: the decisions for one device segment, as data.

A plan is what heuristics choose, a tuner searches and a log stores. It says nothing that follows from the graph, and
`expand(plan)` of a target is deterministic. Groups hold layers that run together with their intermediates on chip; a
group of one layer runs from memory to memory.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


class LoopOrder(enum.Enum):
    """Which loop of a tiled layer is outside, hence what is loaded once."""

    #: Row stripes outside: activations are read once, weights once per stripe unless they are resident.
    ROWS = "rows"
    #: Channel chunks outside: weights are read once, activations once per chunk unless they are resident.
    CHANNELS = "channels"


@dataclass(frozen=True)
class LayerPlan:
    """Decisions for one layer.

    `ops` are indices into the segment's ops: the layer's op and what its drain absorbs. By itself a layer makes output tiles
    of `rows` and `channels`, from `depth` input channels at a time (0: all), whose products add up in the accumulators.
    `resident`: what the inner loop reads again stays on chip, weights under `ROWS`, an image's activations under `CHANNELS`. In a
    group `channels` is the chunk of output channels whose weights are loaded at a time (0: all), and the group decides on rows.
    Attention takes `rows` of queries (0: as the target sees fit) over tiles of `depth` keys (0: all), in a group too; `resident`: by
    itself, all keys and values of a head stay on chip.
    `kept`: the result stays on chip, whole, until its last reader has run, for later groups; who cannot read it there finds it in
    memory. `in_place`: where all rows run at once, the result takes the bytes of the layer's operand, if nobody reads that
    afterwards. `exchanged`: where several cores divide the rows, they pass those that others need through memory; otherwise each
    core computes all that it needs. `owners`: how many of them divide the rows (0: all). `spread`: cores divide the chunks of
    channels of a result of one row, and pass them through memory.
    """

    ops: tuple[int, ...]
    rows: int = 0
    channels: int = 0
    order: LoopOrder = LoopOrder.ROWS
    resident: bool = True
    depth: int = 0
    kept: bool = False
    in_place: bool = False
    exchanged: bool = False
    owners: int = 0
    spread: bool = False


@dataclass(frozen=True)
class GroupPlan:
    """Layers that run together in `iterations` over rows, intermediates on chip (0: one layer from memory to memory).

    `cores` divide the rows of every layer where there are several; then all runs in one iteration.
    """

    layers: tuple[LayerPlan, ...]
    iterations: int = 0
    cores: int = 1


@dataclass(frozen=True)
class Plan:
    """All groups of a segment, in execution order."""

    groups: tuple[GroupPlan, ...]

    def to_json(self) -> str:
        """The text form, stable for hashing and logs."""
        return json.dumps({"groups": [_plain(g) for g in self.groups]}, sort_keys=True, default=lambda e: e.value, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read `to_json`'s text; `ValueError`, `KeyError` or `TypeError` when it is not one."""
        return Plan(tuple(_group(g) for g in json.loads(text)["groups"]))

    @property
    def digest(self) -> str:
        """16 hex digits that identify the plan."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def _plain(group: GroupPlan) -> dict[str, Any]:
    """A group as data; what only several cores need is left out of plans for one, and `depth` where it is 0."""
    data = asdict(group)
    for layer in data["layers"]:
        if not layer["depth"]:
            del layer["depth"]
    if group.cores == 1:
        del data["cores"]
        for layer in data["layers"]:
            del layer["exchanged"], layer["owners"], layer["spread"]
    return data


def _group(data: dict[str, Any]) -> GroupPlan:
    return GroupPlan(tuple(_layer(layer) for layer in data["layers"]), int(data["iterations"]), int(data.get("cores", 1)))


def _layer(data: dict[str, Any]) -> LayerPlan:
    return LayerPlan(
        tuple(int(i) for i in data["ops"]),
        int(data["rows"]),
        int(data["channels"]),
        LoopOrder(data["order"]),
        bool(data["resident"] if "resident" in data else data["weights_resident"]),  # the key of older logs
        int(data.get("depth", 0)),
        bool(data["kept"]),
        bool(data.get("in_place", False)),
        bool(data.get("exchanged", False)),
        int(data.get("owners", 0)),
        bool(data.get("spread", False)),
    )
