# SPDX-License-Identifier: Apache-2.0
"""Products from memory to memory: fully connected layers and products of two tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gadl.compiler.ir.types import Array
from gadl.passes.plan.program import Ref, Region

from ..layers import Layer
from ..local import Span, align, spans
from .context import Block, Expansion
from .instructions import Matrix, matrix_product
from .kernel import folded_bias, integers, relu_of, two_step

#: Part of a lane that the weights of one chunk may take, so that the next one comes meanwhile.
CHUNK_PART = 4


def block_width(columns: int, lanes: int, units: int) -> int:
    """Columns of a matrix that lie on one lane: all lanes take part."""
    return units * -(-columns // (units * lanes)) if columns >= units else columns


class Product:
    """Loads, multiplies and stores matrices."""

    def __init__(self, context: Expansion, layer: Layer) -> None:
        self.context, self.layer, self.op = context, layer, layer.op
        self.chip = context.chip

    def matrix(self, rows: int, columns: int, name: str, planes: int = 1) -> tuple[Matrix, Block]:
        """Room for a matrix, or for `planes` byte planes of it."""
        width = block_width(columns, self.chip.lanes, self.chip.units)
        size = planes * rows * self.pitch(columns)
        block = self.context.scratch(size, name)
        return Matrix(block.at(), rows, columns, width), block

    def pitch(self, columns: int) -> int:
        """Bytes of a row on a lane."""
        width = block_width(columns, self.chip.lanes, self.chip.units)
        blocks = -(-columns // width)
        return -(-blocks // self.chip.lanes) * align(width)

    def transfer(self, there: Ref, span: int, pitch: int, matrix: Matrix, block: Block, store: bool, rows: Span | None = None) -> None:
        """Rows of `pitch` bytes between DDR and a matrix (some of its rows)."""
        rows = rows or Span(0, matrix.rows)
        step = align(matrix.width)
        row = -(-matrix.blocks // self.chip.lanes) * step
        here = Ref(block.buffer, rows.first * row)
        fields: dict[str, Any] = {"trans_dir": int(store), "src_fmt": 1, "dst_fmt": 1, "sys_dtype": 1}
        if store:
            fields |= {
                "src_n": rows.count, "src_c": matrix.blocks, "src_h": 1, "src_w": matrix.width, "src_n_stride": row, "src_c_stride": step,
                "src_h_stride": step, "dst_c": rows.count, "dst_h": 1, "dst_w": matrix.columns, "dst_c_stride": pitch,
            }  # fmt: skip
        else:
            fields |= {
                "src_n": rows.count, "src_c": rows.count, "src_h": 1, "src_w": matrix.columns, "src_c_stride": pitch,
                "dst_c": matrix.blocks, "dst_h": 1, "dst_w": matrix.width, "dst_n_stride": row, "dst_c_stride": row,
                "dst_h_stride": step,
            }  # fmt: skip
        region, lane = Region(there.buffer, there.offset, span), Region(block.buffer, rows.first * row, rows.count * row)
        if store:
            self.context.transfer(fields, here, there, [lane], [region])
        else:
            self.context.transfer(fields, there, here, [region], [lane], early=True)


def expand_linear(context: Expansion, layer: Layer) -> None:
    """`y[M, N] = x[M, K] . w[N, K]^T + b`, some output columns at a time; one factor for all."""
    op, product = layer.op, Product(context, layer)
    x, y = context.places[id(op.inputs[0])], context.places[id(op.result)]
    rows, depth = math.prod(op.inputs[0].shape[:-1]), op.inputs[0].shape[-1]
    total = op.result.shape[-1]
    data = integers(op.inputs[1])
    if data is None:
        raise ValueError("weights must be constant")
    bias = folded_bias(op, data)
    multiplier, shift = two_step(op.attrs["requant"], 1)
    left, left_block = product.matrix(rows, depth, op.inputs[0].name)
    product.transfer(Ref(x.buffer, x.offset), rows * depth, depth, left, left_block, store=False)
    unit = context.chip.lanes * context.chip.units
    room = context.chip.lane_bytes // CHUNK_PART
    columns = max(1, room // (align(context.chip.units) * depth)) * unit if total >= context.chip.units else total
    for some in spans(total, min(columns, total)):
        right, right_block = product.matrix(depth, some.count, f"{layer.name}.weights")
        chunk = np.ascontiguousarray(data[some.first : some.end].T).view(np.uint8)
        product.transfer(*_constant(context, chunk), some.count, right, right_block, store=False)
        addend = None
        reads = [left_block.region, right_block.region]
        if bias is not None:
            planes, planes_block = product.matrix(4, some.count, f"{layer.name}.bias")
            chunk = np.ascontiguousarray(bias[some.first : some.end].astype("<i4")).view(np.uint8).reshape(-1, 4).T
            product.transfer(*_constant(context, np.ascontiguousarray(chunk)), some.count, planes, planes_block, store=False)
            addend = planes_block.at()
            reads.append(planes_block.region)
        result, result_block = product.matrix(rows, some.count, op.result.name)
        fields = matrix_product(left, right, result, int(multiplier[0]), int(shift[0]), relu_of(layer), addend)
        context.compute(fields, reads, [result_block.region])
        place = Ref(y.buffer, y.offset + some.first)
        product.transfer(place, (rows - 1) * total + some.count, total, result, result_block, store=True)


def _constant(context: Expansion, data: Array) -> tuple[Ref, int]:
    """Put bytes into the constants; where, and how many."""
    return Ref(context.constants, context.add(data)), data.size
