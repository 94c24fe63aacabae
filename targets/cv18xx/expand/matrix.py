# SPDX-License-Identifier: Apache-2.0
"""Matrices in local memory, and their transfers: as they lie in DDR, or with rows and columns exchanged on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gadl.compiler.ir.types import Array
from gadl.passes.plan.program import Ref, Region
from gadl.passes.plan.spans import Span

from ..chip import Chip
from ..local import align
from .context import Block, Expansion
from .instructions import Matrix

#: The most rows of a matrix in an instruction.
MOST_ROWS = 4095


def block_width(columns: int, chip: Chip) -> int:
    """Columns of a matrix that lie on one lane: all lanes take part."""
    return chip.units * -(-columns // (chip.units * chip.lanes)) if columns >= chip.units else columns


def pitch(columns: int, chip: Chip) -> int:
    """Bytes of a row on a lane."""
    width = block_width(columns, chip)
    blocks = -(-columns // width)
    return -(-blocks // chip.lanes) * align(width)


@dataclass(frozen=True)
class Stored:
    """A matrix in DDR: where it begins, and byte strides of rows and columns, one of which is 1."""

    at: Ref
    row: int
    column: int

    def part(self, rows: Span, columns: Span) -> Stored:
        """Some rows and columns."""
        offset = rows.first * self.row + columns.first * self.column
        return Stored(Ref(self.at.buffer, self.at.offset + offset), self.row, self.column)

    def region(self, rows: int, columns: int) -> Region:
        """From the first to the last element."""
        return Region(self.at.buffer, self.at.offset, (rows - 1) * self.row + (columns - 1) * self.column + 1)


@dataclass(frozen=True)
class Held:
    """A matrix in local memory, and its bytes."""

    matrix: Matrix
    block: Block


def room(context: Expansion, rows: int, columns: int, name: str, planes: int = 1) -> Held:
    """Room for a matrix, or for `planes` byte planes of it."""
    block = context.scratch(planes * rows * pitch(columns, context.chip), name)
    return Held(Matrix(block.at(), rows, columns, block_width(columns, context.chip)), block)


def load_matrix(context: Expansion, stored: Stored, rows: int, columns: int, name: str, early: bool = True) -> Held:
    """A matrix from DDR; where its columns are what lies together, it is transposed on the way."""
    held = room(context, rows, columns, name)
    fields, here = _fields(context, held, store=False), held.block
    across = stored.column != 1 and columns > 1
    if across and stored.row != 1 and rows > 1:
        raise ValueError("neither rows nor columns of the matrix lie together")
    if across:
        fields |= {"src_n": rows, "src_c": columns, "src_w": rows, "src_c_stride": stored.column}
        fields |= {"spec_func": 1, "dst_h_stride": held.matrix.width}
    else:
        fields |= {"src_n": rows, "src_c": rows, "src_w": columns, "src_c_stride": stored.row}
    context.transfer(fields, stored.at, here.at(), [stored.region(rows, columns)], [here.region], early)
    return held


def store_matrix(context: Expansion, held: Held, stored: Stored) -> None:
    """A matrix to DDR, row by row."""
    rows, columns = held.matrix.rows, held.matrix.columns
    fields = _fields(context, held, store=True)
    fields |= {"src_n": rows, "dst_c": rows, "dst_h": 1, "dst_w": columns, "dst_c_stride": stored.row}
    lanes = Region(held.block.buffer, 0, rows * pitch(columns, context.chip))
    context.transfer(fields, held.block.at(), stored.at, [lanes], [stored.region(rows, columns)])


def store_constant(context: Expansion, data: Array) -> Stored:
    """Put a matrix of bytes into the constants."""
    dense = np.ascontiguousarray(data).view(np.uint8)
    return Stored(Ref(context.constants, context.add(dense)), dense.shape[1], 1)


def _fields(context: Expansion, held: Held, store: bool) -> dict[str, Any]:
    """The side of local memory."""
    matrix, row = held.matrix, pitch(held.matrix.columns, context.chip)
    side, step = "src" if store else "dst", align(held.matrix.width)
    return {
        "trans_dir": int(store), "src_fmt": 1, "dst_fmt": 1, "sys_dtype": 1, f"{side}_c": matrix.blocks, f"{side}_h": 1,
        f"{side}_w": matrix.width, f"{side}_n_stride": row, f"{side}_c_stride": step if store else row, f"{side}_h_stride": step,
        "dst_h" if not store else "src_h": 1,
    }  # fmt: skip
