# SPDX-License-Identifier: Apache-2.0
"""What every expansion shares: the program under construction, where values lie in DDR, constants, transfers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array
from gadl.passes.plan.in_place import Chain
from gadl.passes.plan.program import Buffer, Program, Ref, Region, Step
from gadl.passes.plan.spans import Span

from ..chip import Chip
from ..cost import tdma_bytes, tiu_cycles
from ..emit import complete, tdma_fields, tiu_fields
from ..isa import Engine
from ..local import ALIGNMENT, Tile, View, align
from ..strides import Strides

#: Memories: lanes, and the regions of a `.cvimodel`: shared scratch, weights, private memory (inputs and outputs have regions 3 to 7).
LOCAL, SCRATCH, WEIGHTS, PRIVATE = "local", "ddr0", "ddr1", "ddr2"
TIU, TDMA = "TIU", "TDMA"


@dataclass(frozen=True)
class Place:
    """Where a value lies in DDR: buffer, byte offset, and the byte stride of each axis."""

    buffer: Buffer
    offset: int
    strides: Strides

    @property
    def n_str(self) -> int:
        """Of images."""
        return self.strides[0]

    @property
    def c_str(self) -> int:
        """Of channels."""
        return self.strides[min(1, len(self.strides) - 1)]

    @property
    def h_str(self) -> int:
        """Of rows; without an axis of rows a channel is one."""
        return self.strides[2] if len(self.strides) == 4 else self.c_str


@dataclass(frozen=True)
class Block:
    """Bytes that all lanes hold: the constants of some channels."""

    buffer: Buffer

    def at(self, offset: int = 0) -> Ref:
        """The address of a byte."""
        return Ref(self.buffer, offset)

    @property
    def region(self) -> Region:
        """All of it."""
        return Region(self.buffer, 0, self.buffer.size)


def ddr_span(n: int, c: int, h: int, w: int, n_str: int, c_str: int, h_str: int) -> int:
    """Bytes from the first to the last element."""
    return (n - 1) * n_str + (c - 1) * c_str + (h - 1) * h_str + w


def compute_cycles(fields: dict[str, Any], chip: Chip) -> int:
    """Cycles of a TIU instruction before its operands have addresses."""
    return tiu_cycles(complete(Engine.TIU, tiu_fields(fields, 0)), chip)


def transfer_cycles(fields: dict[str, Any], chip: Chip, mb_per_s: float) -> int:
    """Cycles of a TDMA instruction before its ends have addresses, at a rate of DDR."""
    cost = tdma_bytes(complete(Engine.TDMA, tdma_fields(fields, 0)))
    return int(max(cost.ddr * chip.mhz / mb_per_s, cost.beats))


class Expansion:
    """Collects the steps of one segment. `op` is the layer being expanded; every step is filed under it."""

    def __init__(self, chip: Chip, mb_per_s: float) -> None:
        self.chip, self.mb_per_s = chip, mb_per_s
        self.program = Program()
        self.places: dict[int, Place] = {}
        self.blob = bytearray()
        self._added: dict[tuple[int, bytes], int] = {}
        self.constants = self.program.buffer(WEIGHTS, 0, "constants", address=0)
        #: Buffers of constants.
        self.loaded: list[Buffer] = []
        self.op = 0
        #: Values that stay in local memory between groups, by `id`.
        self.kept: dict[int, Tile] = {}
        self._chains: dict[int, Buffer] = {}

    # -- data ------------------------------------------------------------------

    def tile(self, value: Value, n: int, c: int, rows: Span, w: int) -> Tile:
        """A new tile for rows of a value."""
        buffer = self.program.buffer(LOCAL, Tile.size(self.chip.lanes, n, c, rows.count, w), value.name)
        return Tile(buffer, self.chip.lanes, n, c, rows.count, w, rows.first)

    def chain_buffer(self, chain: Chain) -> Buffer:
        """The buffer that the values of a chain share."""
        if id(chain) not in self._chains:
            self._chains[id(chain)] = self.program.buffer(LOCAL, chain.size, "in place")
        return self._chains[id(chain)]

    def scratch(self, size: int, name: str) -> Block:
        """Bytes of every lane."""
        return Block(self.program.buffer(LOCAL, align(size), name))

    def constant(self, size: int, make: Callable[[], Array], name: str) -> Block:
        """`size` bytes of each lane: put `make()`, u8[lanes, size], into the constants, and load it with one transfer.

        Equal lanes are kept once.
        """
        block, lanes = self.scratch(size, name), self.chip.lanes
        self.loaded.append(block.buffer)
        data = self._constant(make)
        same = len(data) == 1
        offset = self.add(data)
        pitch = 0 if same else size
        fields = {
            "src_n": 1, "src_c": lanes, "src_h": 1, "src_w": size, "src_c_stride": pitch, "src_h_stride": 0 if same else size,
            "src_n_stride": pitch * lanes, "dst_c": lanes, "dst_h": 1, "dst_w": size, "dst_c_stride": align(size),
            "dst_h_stride": size, "dst_n_stride": align(size), "src_fmt": 1, "dst_fmt": 1, "trans_dir": 0,
        }  # fmt: skip
        read = Region(self.constants, offset, size if same else size * lanes)
        self.transfer(fields, Ref(self.constants, offset), block.at(), [read], [block.region])
        return block

    def _constant(self, make: Callable[[], Array]) -> Array:
        data = make()
        return data[:1] if (data == data[:1]).all() else data

    def add(self, data: Array) -> int:
        """Where bytes lie among the constants; they are appended unless they are there."""
        found = data.tobytes()
        key = len(found), hashlib.sha256(found).digest()
        if key not in self._added:
            self.blob.extend(b"\0" * (-len(self.blob) % ALIGNMENT))
            self._added[key] = len(self.blob)
            self.blob.extend(found)
            self.constants.size = len(self.blob)
        return self._added[key]

    # -- steps -----------------------------------------------------------------

    def compute(self, fields: dict[str, Any], reads: Sequence[Region], writes: Sequence[Region]) -> None:
        """A TIU instruction."""
        self.program.steps.append(Step(TIU, "TIU", fields, tuple(reads), tuple(writes), self.op, compute_cycles(fields, self.chip)))

    def transfer(
        self, fields: dict[str, Any], source: Ref, target: Ref, reads: Sequence[Region], writes: Sequence[Region], early: bool = False
    ) -> None:
        """A TDMA instruction between two places."""
        fields = {**fields, "src": source, "dst": target}
        cycles = transfer_cycles(fields, self.chip, self.mb_per_s)
        self.program.steps.append(Step(TDMA, "TDMA", fields, tuple(reads), tuple(writes), self.op, cycles, early))

    def load(self, value: Value, target: View, rows: Span, channels: Span | None = None, early: bool = True) -> None:
        """Rows of a value from DDR."""
        self._copy(value, target, rows, channels, store=False, early=early)

    def store(self, source: View, value: Value, rows: Span, channels: Span | None = None) -> None:
        """Rows of a value to DDR."""
        self._copy(value, source, rows, channels, store=True, early=False)

    def _copy(self, value: Value, local: View, rows: Span, channels: Span | None, store: bool, early: bool) -> None:
        place = self.places[id(value)]
        offset = place.offset + rows.first * place.h_str + (channels.first * place.c_str if channels else 0)
        memory = {"n_stride": place.n_str, "c_stride": place.c_str, "h_stride": place.h_str if local.h > 1 else local.w}
        lane = {"n_stride": local.n_str, "c_stride": local.c_str, "h_stride": local.h_str}
        source, target = (lane, memory) if store else (memory, lane)
        fields: dict[str, Any] = {"trans_dir": int(store), "src_fmt": 1, "dst_fmt": 1, "src_n": local.n}
        for side, strides in (("src", source), ("dst", target)):
            fields |= {f"{side}_c": local.c, f"{side}_h": local.h, f"{side}_w": local.w}
            fields |= {f"{side}_{name}": stride for name, stride in strides.items()}
        span = ddr_span(local.n, local.c, local.h, local.w, place.n_str, place.c_str, place.h_str)
        there, here = Ref(place.buffer, offset), local.address
        region = Region(place.buffer, offset, span)
        if store:
            self.transfer(fields, here, there, [local.region], [region])
        else:
            self.transfer(fields, there, here, [region], [local.region], early)


class Trial(Expansion):
    """Collects steps only for what they cost: constants have a size, and no content."""

    def _constant(self, make: Callable[[], Array]) -> Array:
        return np.zeros((self.chip.lanes, 0), np.uint8)

    def transfer(
        self, fields: dict[str, Any], source: Ref, target: Ref, reads: Sequence[Region], writes: Sequence[Region], early: bool = False
    ) -> None:
        """Transfers are estimated from their bytes."""

    @property
    def cycles(self) -> int:
        """Of the compute unit, since the last `clear`."""
        return sum(step.cycles for step in self.program.steps)

    def clear(self) -> None:
        """Forget all steps."""
        self.program.steps.clear()
        self.program.buffers.clear()
        self.loaded.clear()
