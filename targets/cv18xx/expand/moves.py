# SPDX-License-Identifier: Apache-2.0
"""Copies of blocks of bytes within DDR, with any strides on both sides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gadl.passes.plan.program import Ref, Region
from gadl.passes.plan.spans import spans

from ..local import align
from ..strides import MOST_ROW_STRIDE
from .context import Expansion, Place, Trial, transfer_cycles
from .matrix import MOST_ROWS, Stored, load_matrix, pitch, store_matrix

#: The largest extent of a transfer.
MOST_EXTENT = 65535
#: Part of a lane that a block on its way takes.
BLOCK_PART = 8
#: Rows of a block, if there are so many.
FEWEST_ROWS = 64


@dataclass(frozen=True)
class Dim:
    """`count` elements, byte strides on both sides."""

    count: int
    source: int
    target: int


def dims_of(shape: Sequence[int], sources: Sequence[int], targets: Sequence[int]) -> list[Dim]:
    """The axes of a tensor that lies otherwise on both sides."""
    return [Dim(*dim) for dim in zip(shape, sources, targets, strict=True)]


def move(context: Expansion, x: Place, y: Place, dims: Sequence[Dim], source: int = 0, target: int = 0) -> None:
    """Copy a block of one tensor into another one: directly, or transposed on the way through local memory, whichever takes less time."""
    collapsed = _collapsed(dims)
    there, here = Ref(x.buffer, x.offset + source), Ref(y.buffer, y.offset + target)
    across = _crossed(collapsed)
    if across is None:
        _direct(context, there, here, collapsed)
        return
    tally = Tally(context.chip, context.mb_per_s)
    _direct(tally, there, here, collapsed)
    direct, tally.spent = tally.spent, 0
    _transposed(tally, there, here, collapsed, *across)
    if direct <= tally.spent:
        _direct(context, there, here, collapsed)
    else:
        _transposed(context, there, here, collapsed, *across)


class Tally(Trial):
    """Adds up what transfers cost; one within DDR passes it twice."""

    spent = 0

    def transfer(
        self, fields: dict[str, Any], source: Ref, target: Ref, reads: Sequence[Region], writes: Sequence[Region], early: bool = False
    ) -> None:
        """Counted, and forgotten."""
        named = {**fields, "src": source, "dst": target}
        self.spent += transfer_cycles(named, self.chip, self.mb_per_s)
        if fields["trans_dir"] == 2:
            self.spent += transfer_cycles({**named, "trans_dir": 1}, self.chip, self.mb_per_s)


def _direct(context: Expansion, there: Ref, here: Ref, dims: list[Dim]) -> None:
    """Rows from one place to the other, in as many transfers as it takes."""
    for from_, to, part in _transfers(dims):
        fields: dict[str, Any] = {"trans_dir": 2, "src_fmt": 1, "dst_fmt": 1, "src_n": part[0].count}
        for side in ("src", "dst"):
            fields |= {f"{side}_c": part[1].count, f"{side}_h": part[2].count, f"{side}_w": part[3].count}
            for name, dim in zip("nch", part):
                fields[f"{side}_{name}_stride"] = dim.source if side == "src" else dim.target
        source, target = Ref(there.buffer, there.offset + from_), Ref(here.buffer, here.offset + to)
        reads = _hull(source, [(dim.count, dim.source) for dim in part])
        context.transfer(fields, source, target, [reads], [_hull(target, [(dim.count, dim.target) for dim in part])])


def _hull(at: Ref, dims: list[tuple[int, int]]) -> Region:
    """From the first to the last byte."""
    return Region(at.buffer, at.offset, sum((count - 1) * stride for count, stride in dims) + 1)


def _crossed(dims: list[Dim]) -> tuple[int, int] | None:
    """The dimensions that are contiguous in the source and in the target, where these are two."""
    sources = [i for i, dim in enumerate(dims) if dim.source == 1 and dim.count > 1]
    targets = [i for i, dim in enumerate(dims) if dim.target == 1 and dim.count > 1]
    return (sources[0], targets[0]) if sources and targets and sources != targets else None


def _transposed(context: Expansion, there: Ref, here: Ref, dims: list[Dim], inner: int, outer: int) -> None:
    """Matrices of the source's innermost dimension and the target's are loaded transposed, and stored."""
    rows, columns = dims[inner], dims[outer]
    budget, unit = context.chip.lane_bytes // BLOCK_PART, context.chip.lanes * context.chip.units
    least = min(rows.count, FEWEST_ROWS)
    wide = columns.count
    while wide > unit and pitch(wide, context.chip) * least > budget:
        wide = align(wide // 2, unit)
    tall = min(rows.count, MOST_ROWS, budget // pitch(wide, context.chip))
    rest = [dim for i, dim in enumerate(dims) if i not in (inner, outer)]
    for at in itertools.product(*(range(dim.count) for dim in rest)):
        from_ = there.offset + sum(i * dim.source for i, dim in zip(at, rest))
        to = here.offset + sum(i * dim.target for i, dim in zip(at, rest))
        source = Stored(Ref(there.buffer, from_), 1, columns.source)
        target = Stored(Ref(here.buffer, to), rows.target, 1)
        for down in spans(rows.count, tall):
            for across in spans(columns.count, wide):
                held = load_matrix(context, source.part(down, across), down.count, across.count, "transposed", early=False)
                store_matrix(context, held, target.part(down, across))


def _collapsed(dims: Sequence[Dim]) -> list[Dim]:
    """Neighbouring dimensions that go on in memory on both sides are one; the innermost is contiguous."""
    found: list[Dim] = []
    for dim in dims:
        if dim.count == 1:
            continue
        if found and found[-1].source == dim.count * dim.source and found[-1].target == dim.count * dim.target:
            found[-1] = Dim(found[-1].count * dim.count, dim.source, dim.target)
        else:
            found.append(dim)
    if not found or (found[-1].source, found[-1].target) != (1, 1):
        found.append(Dim(1, 1, 1))
    # Transfers have four dimensions: the shortest ones are loops around them.
    return found if len(found) <= 4 else [*sorted(found[:-1], key=lambda dim: dim.count), found[-1]]


def _transfers(dims: list[Dim]) -> list[tuple[int, int, list[Dim]]]:
    """Blocks of four dimensions within the limits of a transfer, with their offsets on both sides."""
    for index, dim in enumerate(dims):
        large = dim.count > MOST_EXTENT
        if large and index == len(dims) - 1 and dim.count % 16 == 0:
            # A long row as several.
            return _transfers([*dims[:index], Dim(dim.count // 16, 16, 16), Dim(16, 1, 1)])
        if large or (len(dims) > 4 and index == 0):
            half = dim.count // 2
            if len(dims) > 4:
                return [
                    (n * dim.source + a, n * dim.target + b, part) for n in range(dim.count) for a, b, part in _transfers(dims[1:])
                ]
            first = _transfers([*dims[:index], Dim(half, dim.source, dim.target), *dims[index + 1 :]])
            rest = _transfers([*dims[:index], Dim(dim.count - half, dim.source, dim.target), *dims[index + 1 :]])
            return [*first, *((a + half * dim.source, b + half * dim.target, part) for a, b, part in rest)]
    padded = [Dim(1, 0, 0)] * (4 - len(dims)) + dims
    if max(padded[2].source, padded[2].target) > MOST_ROW_STRIDE and padded[2].count > 1:
        # The stride of rows has 16 bits: rows go one dimension up.
        if padded[0].count == 1:
            padded = [padded[1], padded[2], Dim(1, 0, 0), padded[3]]
        else:
            return [
                (n * padded[0].source + a, n * padded[0].target + b, part) for n in range(padded[0].count) for a, b, part in _transfers(dims[1:])
            ]
    return [(0, 0, padded)]
