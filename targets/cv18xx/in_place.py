# SPDX-License-Identifier: Apache-2.0
"""Which layers can write their result in place of their operand: channel by channel, or element by element.

An engine's instructions run in order, so some channels of a result may take the bytes of channels that earlier instructions have
read: the result lies one instruction's worth of channels below its operand, or above it where channels are made from the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gadl.passes.plan.in_place import Chain, Distances
from gadl.passes.plan.plan import GroupPlan

from .expand.group import tile_bytes
from .expand.kernel import shape_or_raise
from .layers import Layer, is_depthwise
from .local import Tile, align

#: Parts of the channels that are made one after another.
PARTS = 6
_ELEMENTS = frozenset({"add", "sub", "mul", "min", "max", "relu", "clamp", "lut", "requantize"})


@dataclass(frozen=True)
class InPlace:
    """`channels` of an instruction (0: all), how far apart operand and result must be, and the lane bytes of both."""

    channels: int
    apart: Distances
    span: int


def way_in_place(layer: Layer, lanes: int) -> InPlace | None:
    """How a layer's result goes over its first operand; None where it cannot."""
    if layer.op.inputs[0].is_constant:
        return None
    x, y = shape_or_raise(layer.op.inputs[0]), shape_or_raise(layer.result)
    if layer.op.name in _ELEMENTS:
        return InPlace(0, Distances(0, 0), tile_bytes(layer, lanes, y.h)) if x == y else None
    if not (is_depthwise(layer.op) or layer.op.name == "max_pool") or x.n != 1 or x.h * x.w < y.h * y.w:
        return None
    slots = -(-y.c // lanes)
    part = -(-slots // PARTS)
    ours, theirs = align(y.h * y.w), align(x.h * x.w)
    starts = range(0, slots, part)
    below = max(min(at + part, slots) * ours - at * theirs for at in starts)
    above = max(min(at + part, slots) * theirs - at * ours for at in starts)
    apart = Distances(below, above)
    chain = Chain()
    chain.begin(0, Tile.size(lanes, x.n, x.c, x.h, x.w))
    chain.follow(0, 1, Tile.size(lanes, y.n, y.c, y.h, y.w), apart)
    return InPlace(part * lanes, apart, chain.size)


def chains_of(groups: Sequence[tuple[Sequence[Layer], GroupPlan]], lanes: int) -> dict[tuple[int, int], Chain]:
    """The chains of a plan, by the number of a group and the `id` of a value that lies in one there."""
    chains: dict[tuple[int, int], Chain] = {}
    kept: dict[int, int] = {}
    makers = {id(m.result): m for members, _ in groups for m in members}
    for number, (members, group) in enumerate(groups):
        for layer, plan in zip(members, group.layers, strict=True):
            way = way_in_place(layer, lanes) if plan.in_place and group.iterations == 1 else None
            if way is None:
                continue
            operand, y = layer.op.inputs[0], shape_or_raise(layer.result)
            home = kept.get(id(operand), number), id(operand)
            if home not in chains:
                x = shape_or_raise(operand)
                chains[home] = Chain()
                # A sum has a second byte plane behind it while it is made.
                maker = makers.get(id(operand))
                chains[home].begin(id(operand), Tile.size(lanes, x.n, x.c, x.h, x.w) if maker is None else tile_bytes(maker, lanes, x.h))
            chain = chains[number, id(layer.result)] = chains[home]
            if way.channels:
                chain.follow(id(operand), id(layer.result), Tile.size(lanes, y.n, y.c, y.h, y.w), way.apart)
            else:
                chain.replace(id(operand), id(layer.result))
                chain.high = max(chain.high, chain.offsets[id(layer.result)] + tile_bytes(layer, lanes, y.h))
        if group.iterations:
            kept |= {id(m.result): number for m, p in zip(members, group.layers) if p.kept}
    return chains

