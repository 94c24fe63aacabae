# SPDX-License-Identifier: Apache-2.0
"""What every expansion shares: the program under construction, where values lie in memory, constants, loads and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array
from gadl.passes.plan.in_place import Chain
from gadl.passes.plan.program import Buffer, Program, Ref, Region, Step

from ..compression import stream_of
from ..costs import Costs
from .copying import CopyDim, StridedCopy, collapse, pieces

if TYPE_CHECKING:
    from .bands import Live

#: DRAM regions of a program container.
CONSTANTS, INPUTS, OUTPUTS, SCRATCH = "dram0", "dram1", "dram2", "dram3"
SRAM, ACC = "sram", "acc"


@dataclass(frozen=True)
class Place:
    """Where a value lies in DRAM: a buffer, a byte offset and byte strides per logical axis."""

    buffer: Buffer
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """A block of data in SRAM."""

    buffer: Buffer
    offset: int = 0

    def at(self, offset: int) -> Ref:
        """The address of a byte of the block."""
        return Ref(self.buffer, self.offset + offset)

    def region(self, start: int = 0, size: int | None = None) -> Region:
        """Bytes of the block."""
        return Region(self.buffer, self.offset + start, self.buffer.size - self.offset - start if size is None else size)


class Expansion:
    """Collects the steps of one segment.

    `op` and `name` are the layer being expanded; every step is filed under it.
    """

    def __init__(self, costs: Costs, load_queues: Sequence[str]) -> None:
        self.costs = costs
        self.program = Program()
        self.places: dict[int, Place] = {}
        self.blob = bytearray()
        self.constants = self.program.buffer(CONSTANTS, 0, "constants", address=0)
        #: Bytes of the constants that are loaded as they are used, and as they are kept.
        self.raw_bytes = self.stored_bytes = 0
        self.op = 0
        #: Values that stay on chip between groups, by `id`.
        self.kept: dict[int, Live] = {}
        self._chain_buffers: dict[int, Buffer] = {}
        self._load = {queue: 0 for queue in load_queues}

    # -- data --------------------------------------------------------------------

    def place(self, value: Value) -> Place:
        """Where `value` lies."""
        return self.places[id(value)]

    def add_constant(self, data: bytes, alignment: int = 64) -> int:
        """Append to the constants; returns the offset."""
        self.blob.extend(b"\0" * (-len(self.blob) % alignment))
        offset = len(self.blob)
        self.blob.extend(data)
        self.constants.size = len(self.blob)
        return offset

    def tile(self, size_bytes: int, name: str) -> Tile:
        """A new block in SRAM."""
        return Tile(self.program.buffer(SRAM, -(-size_bytes // 16) * 16, name))

    def chain_buffer(self, chain: Chain) -> Buffer:
        """The block in SRAM that the values of a chain share."""
        if id(chain) not in self._chain_buffers:
            self._chain_buffers[id(chain)] = self.tile(chain.size, "in place").buffer
        return self._chain_buffers[id(chain)]

    # -- steps -------------------------------------------------------------------

    def step(
        self,
        engine: str,
        instruction: str,
        fields: dict[str, Any],
        reads: Sequence[Region],
        writes: Sequence[Region],
        cycles: float = 0,
        early: bool = False,
    ) -> None:
        """Append a step of the current layer."""
        self.program.steps.append(
            Step(engine, instruction, fields, tuple(reads), tuple(writes), self.op, int(cycles), early)
        )

    def load(
        self, source: Buffer, offset: int, target: Tile, dims: Sequence[CopyDim], element_bytes: int = 1, early: bool = False
    ) -> None:
        """Copy from DRAM into a block, on the load queue with the least work so far."""
        for from_, to, part in pieces(collapse(dims, element_bytes)):
            cycles = self.costs.dma(part.rows, part.row_bytes)
            queue = self._queue(cycles)
            reads = [Region(source, offset + from_, part.source_span)]
            writes = [target.region(to, part.target_span)]
            fields = self._dma(part, Ref(source, offset + from_), target.at(to))
            self.step(queue, "LD", fields, reads, writes, cycles, early)

    @property
    def queues(self) -> tuple[str, ...]:
        """The load queues."""
        return tuple(self._load)

    def _queue(self, cycles: float) -> str:
        """The load queue with the least work so far, which takes on some more."""
        queue = min(self._load, key=lambda q: self._load[q])
        self._load[queue] += int(cycles)
        return queue

    def store(self, source: Tile, target: Buffer, offset: int, dims: Sequence[CopyDim], element_bytes: int = 1) -> None:
        """Copy a block to DRAM. The dims' `source` strides are those of the block."""
        for from_, to, part in pieces(collapse(dims, element_bytes)):
            reads = [source.region(from_, part.source_span)]
            writes = [Region(target, offset + to, part.target_span)]
            cycles = self.costs.dma(part.rows, part.row_bytes, store=True)
            self.step("ST", "ST", self._dma(part, source.at(from_), Ref(target, offset + to)), reads, writes, cycles)

    @staticmethod
    def _dma(copy: StridedCopy, source: Ref, target: Ref) -> dict[str, Any]:
        fields: dict[str, Any] = {"src": source, "dst": target, "row_bytes": copy.row_bytes}
        for number, dim in enumerate(reversed(copy.dims), start=1):
            fields |= {f"n{number}": dim.count, f"src_s{number}": dim.source, f"dst_s{number}": dim.target}
        return fields

    def load_constant(self, data: Array | bytes, name: str, packed: bool = True) -> Tile:
        """Put constant bytes into the program's constants, as a stream where that pays (and `packed`), and load them into a block."""
        raw = data if isinstance(data, bytes) else data.tobytes()
        tile, stream = self.tile(len(raw), name), stream_of(self.costs.machine, raw) if packed else None
        offset = self.add_constant(raw if stream is None else stream)
        self.raw_bytes += len(raw)
        self.stored_bytes += len(raw if stream is None else stream)
        if stream is None:
            self.load(self.constants, offset, tile, [CopyDim(len(raw), 1, 1)])
        else:
            self._load_stream(offset, len(stream), tile, len(raw))
        return tile

    def _load_stream(self, offset: int, size: int, target: Tile, decoded: int) -> None:
        """Memory moves the stream, the block takes what it expands to."""
        fields = {"src": Ref(self.constants, offset), "dst": target.at(0), "row_bytes": size, "decode": 1, "decoded_bytes": decoded}
        cycles = self.costs.dma(1, size)
        self.step(self._queue(cycles), "LD", fields, [Region(self.constants, offset, size)], [target.region(0, decoded)], cycles)
