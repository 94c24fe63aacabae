# SPDX-License-Identifier: Apache-2.0
"""Which layers can write their result in place of their operand, and how."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gadl.passes.plan.in_place import Chain, Distances, distances
from gadl.passes.plan.plan import GroupPlan, LayerPlan

from .bounds import windows_of
from .costs import Costs
from .expand.bands import RowShape, row_shape
from .layers import Layer
from .rowwise import ELEMENTWISE, row_reads

#: Rows of a block that are tried, and how much slower than in one block the layer may be.
BLOCKS, SLOWER = (1, 2, 3, 4, 5, 6, 7, 8), 1.1
#: How often the weights of a product may come again, for so many blocks.
PASSES = (2, 3, 4, 6)
#: What operand and result may take together of what they take apart, and of the result alone.
SAVES, ALIKE = 0.85, 1.6
#: Parts of the channels that a depthwise layer makes beside its operand before they are copied over it.
SLICES = 8


class Kind(enum.Enum):
    """How a result goes over its operand."""

    #: Block of rows by block of rows, a little apart.
    ROWS = enum.auto()
    #: Some channels at a time, by way of a place beside it.
    CHANNELS = enum.auto()
    #: Element by element.
    ELEMENTS = enum.auto()


@dataclass(frozen=True)
class InPlace:
    """One way to do it: rows of a block (0: all), whether the weights come again for each, how far apart operand and result must
    be, bytes of both and beside them, and the cycles of array and vector unit.
    """

    kind: Kind
    block: int
    streamed: bool
    apart: Distances
    span: int
    beside: int
    array: float
    vector: float


def reads_all(layer: Layer) -> bool:
    """True for products of which every output channel reads all channels of the operand."""
    windows = windows_of(layer)
    return bool(windows) and not windows[0][0].depthwise


def slice_channels(costs: Costs, layer: Layer) -> int:
    """Channels that a depthwise layer makes at a time in place."""
    unit, channels = costs.machine.integer("mma.shape.1"), layer.result.shape[1]
    return min(channels, max(unit, channels // SLICES // unit * unit))


def ways_in_place(costs: Costs, layer: Layer) -> list[InPlace]:
    """The ways that save something; none where the layer cannot."""
    y, reads = row_shape(layer.result), row_reads(layer)
    if y is None or not reads or y.images != 1 or reads[0][0] is not layer.op.inputs[0]:
        return []
    x = row_shape(reads[0][0])
    if x is None:
        return []
    sizes = x.rows * x.row_bytes, y.rows * y.row_bytes
    windows = windows_of(layer)
    if layer.op.name in ELEMENTWISE:
        vector = costs.vector(y.rows * y.width * y.channels, y.element)
        found = [InPlace(Kind.ELEMENTS, 0, False, Distances(0, 0), sizes[1], 0, 0.0, vector)] if x == y else []
    elif layer.op.name not in ("conv", "linear") or len(reads) != 1 or not windows:
        found = []
    else:
        found = list(_by_rows(costs, layer, x, y))
        if not reads_all(layer) and x == y:
            found.append(_by_channels(costs, layer, y))
    return [w for w in found if w.span + w.beside <= SAVES * sum(sizes) and w.span <= ALIKE * sizes[1]]


def _by_channels(costs: Costs, layer: Layer, y: RowShape) -> InPlace:
    ((window, _),) = windows_of(layer)
    channels, dtype = slice_channels(costs, layer), layer.op.inputs[0].dtype
    piece = costs.accumulator_piece(window, y.rows, channels, dtype)
    count = -(-y.rows // piece.rows) * -(-window.ow // piece.columns) * -(-window.oc // piece.channels)
    size, beside = y.rows * y.row_bytes, 2 * y.rows * y.width * channels * y.element
    copying = -(-y.channels // channels) * costs.vector(beside // 2 // 4, 4)
    # To everybody else all of the operand is read and written, so the array waits for the copies.
    array = count * costs.piece_cycles(window, piece, dtype) + copying
    return InPlace(Kind.CHANNELS, 0, False, Distances(0, 0), size, beside, array, copying)


def _by_rows(costs: Costs, layer: Layer, x: RowShape, y: RowShape) -> Iterator[InPlace]:
    """With all weights there in the smallest blocks that are fast enough; products also with weights that come again for larger ones."""
    ((window, _),), ((operand, rows),) = windows_of(layer), row_reads(layer) or []
    machine = costs.machine
    bandwidth = machine["sram.banks"] * machine["sram.bank_bytes"] / machine["sram.groups"]

    def cycles(block: int) -> float:
        """Operand and result lie in the same banks."""
        piece = costs.accumulator_piece(window, block, window.oc, operand.dtype)
        count = -(-block // piece.rows) * -(-window.ow // piece.columns) * -(-window.oc // piece.channels)
        moved = costs.operand_bytes(window, piece, operand.dtype) + piece.rows * piece.columns * piece.channels * y.element
        return -(-y.rows // block) * count * max(costs.piece_cycles(window, piece, operand.dtype), moved / bandwidth)

    least = cycles(y.rows)
    blocks = [(block, False) for block in BLOCKS if block < y.rows and cycles(block) <= SLOWER * least][:1]
    if reads_all(layer):
        blocks += [(-(-y.rows // passes), True) for passes in PASSES if passes <= y.rows]
    for block, streamed in dict.fromkeys(blocks):
        apart = distances(rows, block, x.row_bytes, y.row_bytes)
        chain = Chain()
        chain.begin(0, x.rows * x.row_bytes)
        chain.follow(0, 1, y.rows * y.row_bytes, apart)
        yield InPlace(Kind.ROWS, block, streamed, apart, chain.size, 0, cycles(block), 0.0)


def way_of(costs: Costs, layer: Layer, plan: LayerPlan) -> InPlace | None:
    """The way that a plan names; None where it names none that there is."""
    if not plan.in_place:
        return None
    streamed = plan.channels > 0 and reads_all(layer)
    return next((w for w in ways_in_place(costs, layer) if (w.block, w.streamed) == (plan.rows, streamed)), None)


def chains_of(costs: Costs, groups: Sequence[tuple[Sequence[Layer], GroupPlan]], last: Mapping[int, int]) -> dict[tuple[int, int], Chain]:
    """The chains of a plan, by the number of a group and the `id` of a value that lies in one there.

    A layer goes over its operand where this lies on chip whole, kept or loaded, and nobody reads it afterwards: `last` is the index
    of the last layer that reads each value.
    """
    chains: dict[tuple[int, int], Chain] = {}
    kept: dict[int, int] = {}
    for number, (members, group) in enumerate(groups):
        for layer, plan in zip(members, group.layers, strict=True):
            operand, y = layer.op.inputs[0], row_shape(layer.result)
            way = way_of(costs, layer, plan) if group.iterations == 1 and group.cores == 1 else None
            x = row_shape(operand)
            if way is None or x is None or y is None or last[id(operand)] != layer.index:
                continue
            home = kept.get(id(operand), number), id(operand)
            if home not in chains:
                chains[home] = Chain()
                chains[home].begin(id(operand), x.rows * x.row_bytes)
            chains[number, id(layer.result)] = chains[home]
            if way.kind is Kind.ROWS:
                chains[home].follow(id(operand), id(layer.result), y.rows * y.row_bytes, way.apart)
            else:
                chains[home].replace(id(operand), id(layer.result))
        if group.iterations and group.cores == 1:
            kept |= {id(m.result): number for m, p in zip(members, group.layers) if p.kept}
    return chains
