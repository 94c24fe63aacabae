# SPDX-License-Identifier: Apache-2.0
"""A group of layers in iterations: every layer advances by some rows, intermediates stay in sliding bands in SRAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.in_place import Chain
from gadl.passes.plan.plan import GroupPlan, LayerPlan
from gadl.passes.plan.program import Buffer
from gadl.passes.plan.rows import RowFlow
from gadl.passes.plan.spans import Span, spans

from ..in_place import InPlace, Kind, slice_channels, way_of
from ..layers import Layer, Window, window_of
from ..rowwise import ahead, is_reduction, partial_bytes, partial_type, row_layers, row_reads, slice_axes, slices_pixels
from .attention import AttentionKernel
from .bands import Band, Live, row_shape, row_strides
from .context import Expansion, Tile
from .copying import CopyDim
from .elementwise import elementwise_rows
from .kernel import Kernel
from .matmul import MatmulKernel
from .normalise import NormKernel, SoftmaxKernel
from .pooling import pool_rows, pool_table, reduce_part, reduce_whole
from .reorder import ReorderKernel
from .resize import resize_rows, resize_tables
from .transposed import Phase, phase_weights, phase_windows
from .weights import packed_weights
from .window import Weights, WindowCompute, load_table


def may_keep(value: Value) -> bool:
    """True when the value can stay on chip between groups: rows of one image."""
    shape = row_shape(value)
    return shape is not None and shape.images == 1


class GroupExpansion:
    """Expands one group.

    `stored` are the results that must reach memory, `kept` those that stay on chip for later groups (both by `id`), `last` the
    index of the last layer that reads each value, `chains` where values lie that take each other's place.
    """

    def __init__(
        self, context: Expansion, layers: Sequence[Layer], plan: GroupPlan, stored: set[int], kept: set[int], last: Mapping[int, int],
        chains: Mapping[int, Chain],
    ) -> None:  # fmt: skip
        self.context, self.layers, self.plan, self.stored, self.kept, self.last = context, layers, plan, stored, kept, last
        self.chains = chains
        found = row_layers(layers)
        if found is None:
            raise ValueError("a layer of the group does not run by rows")
        self.flow = RowFlow(*found, plan.iterations)
        self.made_here = {id(layer.result) for layer in layers}
        self.values: dict[int, Value] = {id(v): v for layer in layers for v in (layer.result, *layer.op.inputs)}
        self.live: dict[int, Live] = {}
        self._kernels = [_kernel(context, layer, chosen) for layer, chosen in zip(layers, plan.layers, strict=True)]
        for layer, chosen, kernel in zip(layers, plan.layers, self._kernels):
            chain = chains.get(id(layer.result))
            if chain is not None and id(layer.op.inputs[0]) in chain.offsets and isinstance(kernel, _WindowKernel):
                kernel.way, kernel.from_bottom = way_of(context.costs, layer, chosen), id(layer.result) in chain.from_bottom

    def run(self) -> None:
        """Emit all steps, image by image."""
        shape = row_shape(self.layers[0].result)
        for image in range(1 if shape is None else shape.images):
            self.live = dict(self.context.kept)
            for iteration in range(self.flow.iterations):
                for index in range(len(self.layers)):
                    self._advance(index, iteration, image)
        self.context.kept |= {value: self.live[value] for value in self.kept}

    def _advance(self, index: int, iteration: int, image: int) -> None:
        """The rows that one layer adds in one iteration."""
        layer, kernel = self.layers[index], self._kernels[index]
        self.context.op = layer.index
        if isinstance(kernel, _ReductionKernel):
            self._take_in(layer, kernel, iteration, image)
        first, end = self.flow.rows(id(layer.result), iteration)
        if end == first:
            return
        sources: dict[int, Band] = {}
        for value, _ in [] if is_reduction(layer) else row_reads(layer) or ():
            if id(value) not in self.made_here:
                self._fetch(value, iteration, image)
            sources[id(value)] = self.live[id(value)].band
        self._share(index)
        target = self._grow(layer.result, end, iteration)
        kernel.rows(Span(first, end - first), sources, target.band)
        if id(layer.result) in self.stored:
            self._store(layer.result, Span(first, end - first), image)

    def _take_in(self, layer: Layer, kernel: _ReductionKernel, iteration: int, image: int) -> None:
        """The partial result of the rows that an iteration adds to a reduction."""
        first, end = self.flow.rows(id(layer.op), iteration)
        x = layer.op.inputs[0]
        if end > first:
            if id(x) not in self.made_here:
                self._fetch(x, iteration, image)
            kernel.take(Span(first, end - first), self.live[id(x)].band, self.flow.iterations)

    def _share(self, index: int) -> None:
        """Where everything happens in one iteration, a sum takes the place of an operand that nothing reads after it."""
        layer = self.layers[index]
        residual = layer.op.operand(3) if layer.op.name in ("conv", "linear") else None
        if self.flow.iterations != 1 or residual is None or id(layer.result) in self.live or residual is layer.op.inputs[0]:
            return
        there = self.live[id(residual)]
        if self.last[id(residual)] == layer.index and there.shape == row_shape(layer.result):
            self.live[id(layer.result)] = Live(there.shape, there.buffer, there.room, offset=there.offset)

    def _grow(self, value: Value, end: int, iteration: int) -> Live:
        """Make room for rows up to `end`; the halo moves to the front when the band is full."""
        there = self.live.get(id(value))
        if there is None:
            shape = row_shape(value)
            if shape is None:
                raise ValueError(f"'{value.name}' has no rows")
            slack = ahead(id(value), self.layers, self.stored)
            room = shape.rows if id(value) in self.kept else self.flow.capacity(id(value), slack)
            chain = self.chains.get(id(value))
            if chain is None:
                there = Live(shape, self.context.tile(room * shape.row_bytes, value.name).buffer, room)
            else:
                there = Live(shape, self.context.chain_buffer(chain), room, offset=chain.offsets[id(value)] - chain.low)
            self.live[id(value)] = there
        if end - there.base > there.room:
            keep = min(int(self.flow.needed_from(id(value))[iteration]), there.made)
            self._move(there, keep)
        there.made = max(there.made, end)
        return there

    def _move(self, there: Live, keep: int) -> None:
        """Copy rows from `keep` on to the front."""
        count = there.made - keep
        if count > 0:
            size = count * there.shape.row_bytes
            element = 4 if size % 4 == 0 and (keep - there.base) * there.shape.row_bytes % 4 == 0 else 1
            source, target = Tile(there.buffer, (keep - there.base) * there.shape.row_bytes), Tile(there.buffer)
            fields: dict[str, Any] = {
                "x_addr": source.at(0), "out_addr": target.at(0), "elem_bytes": element,
                "n0": size // element, "x_s0": element, "out_s0": element,
            }  # fmt: skip
            cycles = self.context.costs.vector(size // element, element)
            self.context.step("VEC", "VTR", fields, [source.region(0, size)], [target.region(0, size)], cycles, early=True)
        there.base = keep

    def _fetch(self, value: Value, iteration: int, image: int) -> None:
        """Load the rows of a value from outside that this iteration reads, over as many channels as memory can serve."""
        before, end = self.live[id(value)].made if id(value) in self.live else 0, self.flow.rows(id(value), iteration)[1]
        if end <= before:
            return
        self._grow(value, end, iteration)
        each = -(-(end - before) // self.context.costs.channels_for_full_rate)
        for rows in spans(end - before, each, before):
            tile, buffer, offset, extents = self._copied(value, rows, image)
            dims = [CopyDim(count, memory, chip) for count, memory, chip in extents]
            self.context.load(buffer, offset, tile, dims, value.dtype.size_bytes, early=True)

    def _store(self, value: Value, rows: Span, image: int) -> None:
        """Store new rows of a result."""
        tile, buffer, offset, extents = self._copied(value, rows, image)
        dims = [CopyDim(count, chip, memory) for count, memory, chip in extents]
        self.context.store(tile, buffer, offset, dims, value.dtype.size_bytes)

    def _copied(self, value: Value, rows: Span, image: int) -> tuple[Tile, Buffer, int, list[tuple[int, int, int]]]:
        """Rows on both sides: block on chip, buffer and offset in memory; extents with their strides in memory and on chip."""
        there, place = self.live[id(value)], self.context.place(value)
        images, row, pixel, channel = row_strides(value, place)
        shape = there.shape
        extents = [
            (rows.count, row, shape.row_bytes),
            (shape.width, pixel, shape.pixel_bytes),
            (shape.channels, channel, shape.element),
        ]
        return Tile(there.buffer, there.band.byte(rows.first)), place.buffer, place.offset + image * images + rows.first * row, extents


class _WindowKernel(Kernel):
    """conv, linear, conv_transpose: chunks of output channels, each with its weights; `way` is how the result goes over the operand."""

    way: InPlace | None = None
    from_bottom = False

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        super().__init__(context, layer, plan)
        self.phases: list[tuple[Phase | None, Phase | None, WindowCompute]] | None = None
        self.loaded: dict[tuple[int, int], Weights] = {}

    def _start(self) -> list[tuple[Phase | None, Phase | None, WindowCompute]]:
        """The products of the layer; tables are loaded where the layer first runs."""
        if self.phases is None:
            layer, table = self.layer, load_table(self.context, self.layer)
            if layer.op.name == "conv_transpose":
                self.phases = [
                    (row, column, WindowCompute(self.context, layer, window, phase_weights(layer, row, column), table))
                    for row, column, window in phase_windows(layer)
                ]
            else:
                window = window_of(layer.op)
                weights = packed_weights(layer.op, window.depthwise)
                self.phases = [(None, None, WindowCompute(self.context, layer, window, weights, table))]
        return self.phases

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        if self.way is None:
            for number, channels in self.chunks():
                self.chunk(number, channels, rows, sources, target)
        elif self.way.kind is Kind.CHANNELS:
            self._by_channels(rows, sources[id(self.layer.op.inputs[0])], target)
        else:
            blocks = list(spans(rows.count, self.way.block or rows.count, rows.first))
            for block in reversed(blocks) if self.from_bottom else blocks:
                for number, channels in self.chunks():
                    self.chunk(number, channels, block, sources, target)
                if self.way.streamed:
                    self.loaded.clear()

    def _by_channels(self, rows: Span, x: Band, target: Band) -> None:
        """Some channels beside the operand while those before them are copied over it."""
        ((_, _, compute),) = self._start()
        width, element = compute.window.ow, target.element
        waiting: tuple[Span, Tile] | None = None
        for number, chunk in self.chunks():
            for channels in spans(chunk.count, slice_channels(self.context.costs, self.layer), chunk.first):
                pixel = channels.count * element
                beside = self.context.tile(rows.count * width * pixel, "beside")
                band = Band(beside.buffer, width * pixel, pixel, element, rows.first, 0, channels.first)
                weights = self.loaded.get((number, chunk.first)) or compute.load_weights(chunk)
                self.loaded[number, chunk.first] = weights
                piece = self.context.costs.accumulator_piece(compute.window, rows.count, channels.count, self.layer.op.inputs[0].dtype)
                compute.block(rows, weights, piece, x, band, None, channels)
                if waiting is not None:
                    self._copy_over(rows, *waiting, width, target)
                waiting = channels, beside
        if waiting is not None:
            self._copy_over(rows, *waiting, width, target)

    def _copy_over(self, rows: Span, channels: Span, source: Tile, width: int, target: Band) -> None:
        size = channels.count * target.element
        unit = 4 if size % 4 == target.at(0, 0, channels.first).offset % 4 == target.pixel_bytes % 4 == 0 else 1
        fields: dict[str, Any] = {
            "x_addr": source.at(0), "out_addr": target.at(rows.first, 0, channels.first), "elem_bytes": unit,
            "n0": size // unit, "x_s0": unit, "out_s0": unit, "n1": width, "x_s1": size, "out_s1": target.pixel_bytes,
            "n2": rows.count, "x_s2": size * width, "out_s2": target.row_bytes,
        }  # fmt: skip
        read, written = source.region(0, rows.count * width * size), target.region(rows, Span(0, width), channels)
        self.context.step("VEC", "VTR", fields, [read], [written], self.context.costs.vector(rows.count * width * size // unit, unit))

    def chunks(self) -> list[tuple[int, Span]]:
        """The chunks of output channels: number of the product, and channels."""
        sizes = [compute.window.oc for _, _, compute in self._start()]
        return [(number, channels) for number, oc in enumerate(sizes) for channels in spans(oc, self.plan.channels or oc)]

    def chunk(self, number: int, channels: Span, rows: Span, sources: dict[int, Band], target: Band) -> None:
        """Some channels of some rows."""
        op, strides = self.layer.op, (*self.layer.op.attrs.get("strides", (1, 1)), 1)[:2]
        residual = op.operand(3)
        row, column, compute = self._start()[number]
        part, y = rows, target
        if row is not None and column is not None:
            start = max(0, -(-(rows.first - row.first) // strides[0]))
            part = Span(start, min(row.count, -(-(rows.end - row.first) // strides[0])) - start)
            y = target.phase(row.first, strides[0], column.first, strides[1])
        if part.count <= 0:
            return
        weights = self.loaded.get((number, channels.first))
        if weights is None:
            weights = self.loaded[number, channels.first] = compute.load_weights(channels)
        window: Window = compute.window
        piece = self.context.costs.accumulator_piece(window, part.count, channels.count, op.inputs[0].dtype)
        compute.block(part, weights, piece, sources[id(op.inputs[0])], y, None if residual is None else sources[id(residual)])


class _PoolKernel(Kernel):
    table: Tile | None = None
    started = False

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        if not self.started:
            self.table, self.started = pool_table(self.context, self.layer), True
        pool_rows(self.context, self.layer, rows, sources[id(self.layer.op.inputs[0])], target, self.table)


class _ResizeKernel(Kernel):
    tables: tuple[Tile, Tile] | None = None

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        if self.tables is None:
            self.tables = resize_tables(self.context, self.layer)
        resize_rows(self.context, self.layer, rows, sources[id(self.layer.op.inputs[0])], target, self.tables)


class _ReductionKernel(Kernel):
    part: Tile | None = None
    taken = 0

    def take(self, rows: Span, x: Band, iterations: int) -> None:
        """One more partial result."""
        shape, kind = row_shape(self.layer.op.inputs[0]), partial_type(self.layer)
        if shape is None:
            raise ValueError(f"'{self.layer.name}' has no rows")
        if self.part is None:
            self.part = self.context.tile(partial_bytes(self.layer, iterations), "partial")
        reduce_part(self.context, self.layer, rows, shape, x, kind, self.part, self.taken)
        self.taken += 1

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        if self.part is None:
            raise ValueError(f"'{self.layer.name}' took nothing in")
        channels = self.layer.result.type.element_count
        reduce_whole(self.context, self.layer, self.taken, channels, partial_type(self.layer), self.part, target)


class _CopyKernel(Kernel):
    """relayout that keeps the bytes, concat along channels."""

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        channel = 0
        for value in self.layer.op.inputs:
            x, shape = sources[id(value)], row_shape(value)
            if shape is None:
                raise ValueError(f"'{value.name}' has no rows")
            block = (rows, Span(0, shape.width), Span(0, shape.channels))
            to = (rows, Span(0, shape.width), Span(channel, shape.channels))
            fields: dict[str, Any] = {
                "x_addr": x.at(rows.first), "out_addr": target.at(rows.first, 0, channel), "elem_bytes": shape.element,
                "n0": shape.channels, "x_s0": shape.element, "out_s0": shape.element,
                "n1": shape.width, "x_s1": x.pixel_bytes, "out_s1": target.pixel_bytes,
                "n2": rows.count, "x_s2": x.row_bytes, "out_s2": target.row_bytes,
            }  # fmt: skip
            cycles = self.context.costs.vector(rows.count * shape.width * shape.channels, shape.element)
            self.context.step("VEC", "VTR", fields, [x.region(*block)], [target.region(*to)], cycles)
            channel += shape.channels


class _SliceKernel(Kernel):
    """Rows, pixels and channels in steps."""

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        op, shape = self.layer.op, row_shape(self.layer.result)
        if shape is None:
            raise ValueError(f"'{self.layer.name}' has no rows")
        starts, steps = op.attrs["starts"], op.attrs["steps"]
        row, pixel, channel = slice_axes(self.layer)
        x, element = sources[id(op.inputs[0])], shape.element
        first = starts[row] + rows.first * steps[row]
        column, across = (starts[pixel], steps[pixel]) if pixel >= 0 else (0, 1)
        fields: dict[str, Any] = {
            "x_addr": x.at(first, column, starts[channel]), "out_addr": target.at(rows.first), "elem_bytes": element,
            "n0": shape.channels, "x_s0": element * steps[channel], "out_s0": element,
            "n1": shape.width, "x_s1": x.pixel_bytes * across, "out_s1": target.pixel_bytes,
            "n2": rows.count, "x_s2": x.row_bytes * steps[row], "out_s2": target.row_bytes,
        }  # fmt: skip
        read = x.region(
            Span(first, (rows.count - 1) * steps[row] + 1), Span(column, (shape.width - 1) * across + 1),
            Span(starts[channel], (shape.channels - 1) * steps[channel] + 1),
        )  # fmt: skip
        written = target.region(rows, Span(0, shape.width), Span(0, shape.channels))
        cycles = self.context.costs.vector(rows.count * shape.width * shape.channels, element)
        self.context.step("VEC", "VTR", fields, [read], [written], cycles)


class _ElementwiseKernel(Kernel):
    constants: dict[int, Tile] | None = None

    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        if self.constants is None:
            constants = [v for v in self.layer.op.inputs if v.data is not None]
            self.constants = {id(v): self.context.load_constant(v.data, "operand") for v in constants if v.data is not None}
            if self.layer.op.name == "lut":
                self.constants[id(self.layer.op)] = self.context.load_constant(self.layer.op.attrs["table"], "table")
        elementwise_rows(self.context, self.layer, rows, sources, self.constants, target)


def _kernel(context: Expansion, layer: Layer, plan: LayerPlan) -> Kernel:
    kinds: dict[str, type[Kernel]] = {
        "conv": _WindowKernel, "linear": _WindowKernel, "conv_transpose": _WindowKernel, "max_pool": _PoolKernel,
        "avg_pool": _PoolKernel, "resize": _ResizeKernel, "reduce_sum": _ReductionKernel, "reduce_mean": _ReductionKernel,
        "reduce_max": _ReductionKernel, "reduce_min": _ReductionKernel, "reshape": ReorderKernel, "transpose": ReorderKernel,
        "relayout": _CopyKernel, "concat": _CopyKernel, "slice": _SliceKernel, "matmul": MatmulKernel, "softmax": SoftmaxKernel,
        "layer_norm": NormKernel, "rms_norm": NormKernel, "attention": AttentionKernel,
    }  # fmt: skip
    if layer.op.name == "slice" and not slices_pixels(layer):
        return ReorderKernel(context, layer, plan)
    return kinds.get(layer.op.name, _ElementwiseKernel)(context, layer, plan)
