# SPDX-License-Identifier: Apache-2.0
"""One kernel for each kind of layer: rows of a result from tiles of its operands."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gadl.compiler.ir.graph import Op, Value
from gadl.compiler.ir.types import Array, Requant
from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.program import Ref
from gadl.passes.plan.spans import Span, spans

from ..isa import Elementwise
from ..layers import Layer, Shape, shape_of, window_of, zero_point_of
from ..local import Tile, View, align
from .context import Block, Expansion
from .instructions import RECORD, Fields, Padding, copy, elementwise, scatter

#: What the fields of a convolution hold at most.
MOST_PADDING = 15
#: Bytes of a lane that the second byte plane of a sum may take, where there are more channels.
SUM_BYTES = 4096


def shape_or_raise(value: Value) -> Shape:
    """The shape of a value that a constraint let pass."""
    found = shape_of(value)
    if found is None:
        raise ValueError(f"'{value.name}' has no shape on the chip")
    return found


def two_step(requant: Requant, channels: int) -> tuple[Array, Array]:
    """Multipliers and shifts of the two-step rule, one for each channel."""
    multiplier, shift = requant.multiplier.astype(np.int64), requant.shift.astype(np.int64) - 31
    dead = multiplier == 0
    # A channel that is always zero: the smallest factor there is.
    multiplier, shift = np.where(dead, 1 << 30, multiplier), np.where(dead, 31, shift)
    if shift.min() < 0 or shift.max() > 31:
        raise ValueError("a factor has no encoding")
    return np.broadcast_to(multiplier, (channels,)), np.broadcast_to(shift, (channels,))


def relu_of(layer: Layer) -> bool:
    """True where negative results become zero."""
    bounds = layer.op.attrs.get("clamp")
    return bounds is not None and bounds[0] == 0


def by_lane(rows: Array, lanes: int) -> Array:
    """`rows`: u8[channels, bytes], channel c on lane `c mod lanes`. u8[lanes, slots * bytes]."""
    slots = -(-len(rows) // lanes)
    padded = np.zeros((slots * lanes, rows.shape[1]), np.uint8)
    padded[: len(rows)] = rows
    return padded.reshape(slots, lanes, -1).transpose(1, 0, 2).reshape(lanes, -1)


def records(bias: Array | None, requant: Requant, channels: Span, total: int) -> Array:
    """u8[channels, 9]: bias, multiplier, shift."""
    multiplier, shift = two_step(requant, total)
    found = np.zeros((channels.count, RECORD), np.uint8)
    some = slice(channels.first, channels.end)
    if bias is not None:
        found[:, :4] = np.ascontiguousarray(bias[some].astype("<i4")).view(np.uint8).reshape(-1, 4)
    found[:, 4:8] = np.ascontiguousarray(multiplier[some].astype("<u4")).view(np.uint8).reshape(-1, 4)
    found[:, 8] = shift[some]
    return found


class Kernel(ABC):
    """Rows of one layer's result."""

    #: The last channels come first, because the result goes over the operand.
    backwards = False
    #: The channel of the layer that the first channel of the tiles is.
    first = 0

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        self.context, self.layer, self.plan, self.op = context, layer, plan, layer.op
        self.lanes = context.chip.lanes
        self.shape = shape_or_raise(layer.result)

    @abstractmethod
    def rows(self, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        """Emit the steps that make `rows`; each operand's tile (by `id`) holds at least the rows that these read."""

    def slice(self, channels: Span, rows: Span, sources: Mapping[int, Tile], target: Tile) -> None:
        """Some rows of some channels; the tiles hold just these channels. For layers whose channels have nothing to do with each other."""
        whole, self.shape = self.shape, replace(self.shape, c=channels.count)
        self.first, plan, self.plan = channels.first, self.plan, replace(self.plan, channels=0)
        self.rows(rows, sources, target)
        self.shape, self.first, self.plan = whole, 0, plan

    def source(self, sources: Mapping[int, Tile], number: int = 0) -> Tile:
        """The tile of an operand."""
        return sources[id(self.op.inputs[number])]

    def end_iteration(self) -> None:
        """Forget constants that do not stay; most kernels have none."""
        return None

    # -- forms -----------------------------------------------------------------

    def exact(self, tile: Tile, rows: Span) -> Tile:
        """A tile of just these rows, which the units see in the aligned form: a copy where it is another."""
        if tile.rows == rows and tile.view().aligned:
            return tile
        return self.copied(tile, rows, rows, 0, 0)

    def even(self, tile: Tile, rows: Span) -> Tile:
        """A tile with these rows of an operand that begin at a multiple of 16; itself where they do."""
        return tile if tile.view(rows).starts_even else self.copied(tile, rows, rows, 0, 0)

    def even_result(self, target: Tile, rows: Span) -> Tile:
        """Where to make rows of the result: in their tile where they begin at a multiple of 16 there, else apart (`settle`)."""
        return target if target.view(rows).starts_even else self.apart(rows)

    def settle(self, made: Tile, target: Tile, rows: Span) -> None:
        """Rows that were made apart go where they belong."""
        if made is not target:
            self.emit_copy(made.view(rows), target.view(rows))

    def apart(self, rows: Span) -> Tile:
        """A tile of its own for rows of the result."""
        shape = self.shape
        size = Tile.size(self.lanes, shape.n, shape.c, rows.count, shape.w)
        return Tile(self.context.program.buffer("local", size, "apart"), self.lanes, shape.n, shape.c, rows.count, shape.w, rows.first)

    def copied(self, tile: Tile, rows: Span, around: Span, left: int, right: int) -> Tile:
        """Rows in a tile of their own, with room above, below and on both sides."""
        width = tile.w + left + right
        size = Tile.size(self.lanes, tile.n, tile.c, around.count, width)
        made = Tile(self.context.program.buffer("local", size, "copy"), self.lanes, tile.n, tile.c, around.count, width, around.first)
        target = made.view(rows)
        if left or right:
            target = View(
                Ref(target.address.buffer, target.address.offset + left), tile.n, tile.c, rows.count, tile.w, made.n_str, made.c_str, width, 1,
                False, target.region,
            )  # fmt: skip
        if around != rows or left or right:
            self.clear(made)
        self.emit_copy(tile.view(rows), target)
        return made

    def clear(self, tile: Tile) -> None:
        """All bytes become what stands for zero in the first operand."""
        view, zero = tile.view(), zero_point_of(self.op.inputs[0])
        self.context.compute(elementwise(Elementwise.MUL, view, view, 0), [], [view.region])
        if zero:
            self.context.compute(elementwise(Elementwise.MAX if zero > 0 else Elementwise.MIN, view, view, zero), [view.region], [view.region])

    def emit_copy(self, source: View, target: View) -> None:
        """Bytes as they are."""
        even = source.w_str == target.w_str == 1 and source.starts_even and target.starts_even
        fields = copy(source, target) if even else scatter(source, target)
        self.context.compute(fields, [source.region], [target.region])

    def emit(self, fields: Fields, reads: list[View | Block], writes: View) -> None:
        """An instruction of the compute unit."""
        self.context.compute(fields, [r.region for r in reads], [writes.region])


class WindowKernel(Kernel):
    """What layers with sliding windows share: geometry, padding."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self.window = window_of(layer.op)
        self.operand = shape_or_raise(layer.op.inputs[0])
        self._map = self.window.rows(self.shape.h, self.operand.h)

    def reads(self, rows: Span) -> Span:
        """Operand rows that some rows read."""
        low, high = int(self._map.low[rows.first]), int(self._map.high[rows.end - 1])
        return Span(low, max(high, low + 1) - low) if low < self.operand.h else Span(self.operand.h - 1, 1)

    def padding(self, rows: Span, held: Span, value: int | None = None) -> Padding:
        """Padding around the operand rows `held` for result rows; by default with what stands for zero."""
        value = zero_point_of(self.op.inputs[0]) if value is None else value
        window = self.window
        up, down = window.padding(range(rows.first, rows.end), range(held.first, held.end))
        right = window.right(self.shape.w, self.operand.w)
        # Columns behind the last window are passed over: there are too few for another one.
        return Padding(up, down, window.left, max(0, right), value)

    def prepared(self, tile: Tile, rows: Span) -> tuple[Tile, Padding]:
        """The operand of some rows in the aligned form and the padding that remains: what exceeds the fields is made of zeros."""
        held = self.reads(rows)
        padding = self.padding(rows, held)
        if max(padding.up, padding.down, padding.left, padding.right) <= MOST_PADDING:
            return self.exact(tile, held), padding
        around = Span(held.first - padding.up, held.count + padding.up + padding.down)
        return self.copied(tile, held, around, padding.left, padding.right), Padding(0, 0, 0, 0, padding.value)

    def channel_chunks(self) -> list[Span]:
        """The chunks of output channels."""
        chunks = list(spans(self.shape.c, self.plan.channels or self.shape.c))
        return chunks[::-1] if self.backwards else chunks


def packed(first: Array, second: Array) -> Array:
    """u8[lanes, bytes]: one behind the other, the second at a multiple of 16."""
    return np.concatenate([np.pad(first, ((0, 0), (0, -first.shape[1] % 16))), second], 1)


def folded_bias(op: Op, weights: Array) -> Array | None:
    """i32[oc]: the bias, less what the operand's zero point adds to every sum. `weights`: i8[oc, ...]."""
    zero, bias = zero_point_of(op.inputs[0]), integers(op.operand(2))
    if not zero:
        return bias
    return (0 if bias is None else bias.astype(np.int64)) - zero * weights.astype(np.int64).reshape(len(weights), -1).sum(1)


def integers(value: Value | None) -> Array | None:
    """The integers of a constant operand."""
    return None if value is None else value.data


def sum_channels(shape: Shape, lanes: int) -> int:
    """Channels that are added at a time: the second byte plane of the sum takes room beside the result."""
    return max(1, SUM_BYTES // align(shape.h * shape.w)) * lanes


def exact_factor(requant: Requant) -> int:
    """The integer that a requantisation multiplies by exactly."""
    multiplier, shift = int(requant.multiplier[0]), int(requant.shift[0])
    factor, rest = divmod(multiplier, 1 << shift)
    if rest or len(requant.multiplier) > 1:
        raise ValueError("not a whole factor")
    return factor


def small_factor(requant: Requant) -> tuple[int, int]:
    """The factor of eight bits and the shift of an average that is rounded half up."""
    multiplier, shift = int(requant.multiplier[0]), int(requant.shift[0])
    return multiplier >> 23, shift - 23


def sum_numbers(requants: tuple[Requant, Requant, Requant]) -> tuple[int, int, int]:
    """Factors of both operands of a sum, and its shift."""
    a, b, out = requants
    return exact_factor(a), exact_factor(b), int(out.shift[0]) - int(math.log2(int(out.multiplier[0])))
