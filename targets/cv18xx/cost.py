# SPDX-License-Identifier: Apache-2.0
"""What commands cost: cycles of the TIU, DDR traffic of the TDMA, and the time of a stream by two models. All are estimates.

`serial_us` is the estimator by which the vendor's compiler chooses: both engines add up without overlap, of a transfer in
several pieces only the last one counts, copies between lanes count as DDR traffic, bf16 counts as int8. `overlap` has the same
cycles without these blind spots and lets both engines run at once under the ids of the stream. Neither knows the latency of a
descriptor, bank conflicts or DDR refresh. The formulas are facts read from the vendor's published sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .chip import Chip
from .descriptor import Command, DescriptorError
from .isa import LANE_SHIFT, LAST_ID, Direction, Elementwise, Engine, Pool, Special, Task

#: What `serial_us` assumes, and what a board has been seen to reach.
SERIAL_MB_PER_S, MB_PER_S = 7544, 3772
_UNITS = 16
#: Of the TDMA's port to local memory.
_BEAT_BYTES = 16
_PAGE, _BLOCK = 4096, 64
_ONE_TRANSFER = 1 << 13

#: Cycles of 16 results with 8-bit operands and with others.
_ELEMENTWISE = {
    Elementwise.MUL: (2.5, 4.5), Elementwise.MAC: (9.0, 11.0), Elementwise.ADD: (5.0, 7.0), Elementwise.SUB: (5.0, 7.0),
    Elementwise.MAX: (3.0, 5.0), Elementwise.MIN: (3.0, 5.0), Elementwise.SHIFT: (4.0, 4.0), Elementwise.AND: (3.0, 5.0),
    Elementwise.OR: (3.0, 5.0), Elementwise.XOR: (3.0, 5.0), Elementwise.COPY: (2.0, 4.0), Elementwise.GREATER_EQUAL: (3.0, 5.0),
}  # fmt: skip


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _up(a: Any, b: int) -> Any:
    return (a + b - 1) // b * b


def tiu_cycles(fields: Mapping[str, int], chip: Chip, serial: bool = False) -> int:
    """Cycles of a TIU descriptor; `serial` with the blind spots of `serial_us`. `DescriptorError`: no such operation."""
    wide = fields["opt_res0_seg"] == 0 or (not serial and fields["opd_typ"] == 1)
    per_channel = fields["opt_chl_quan"] == 1
    pixels = _ceil(fields["res0_h"] * fields["res0_w"], _UNITS // 2 if wide else _UNITS)
    rounds = fields["res0_n"] * _ceil((fields["res0_addr"] >> LANE_SHIFT) + fields["res0_c"], chip.lanes) * pixels
    bias = 2 if fields["tsk_opd_num"] == 3 and not per_channel else 0
    shift = 2 if wide else 1 if per_channel else 4
    partial = (0, 4, 4, 8)[fields["ps32_md"]]
    drain = 31 if per_channel else 12
    least = _UNITS if per_channel else 0
    kernel, task, unit = fields["opd1_h"] * fields["opd1_w"], fields["tsk_typ"], fields["tsk_eu_typ"]
    if task == Task.CONV:
        channels = fields["opd0_c"]
        fetches = math.ceil(_span(fields, _UNITS) / _UNITS) + 1
        products = _ceil(channels, 2 if fields["double_conv"] and not wide else 1) + max(0, fetches - channels)
        loop = max(kernel * products + bias + shift + partial, 0 if wide else least)
        return 41 + rounds * loop + drain
    if task == Task.POOL and unit == Pool.DEPTHWISE:
        if not wide or (kernel == 1 and not per_channel):
            shift = 3
        return rounds * (max(int(kernel * _depthwise_reads(fields, kernel)), least) + bias + shift) + drain
    if task == Task.POOL:
        if unit != Pool.AVERAGE:
            return int(rounds * (kernel * _pool_reads(fields, _UNITS) + 2))
        reads = _pool_reads(fields, _UNITS // 2 if wide else _UNITS)
        return rounds * (max(int(kernel * reads), least) + shift) + drain
    if task == Task.MATMUL:
        blocks = fields["res0_n"] * _ceil(fields["res0_c"], chip.lanes) * _ceil(fields["res0_w"], _UNITS // 2 if wide else _UNITS)
        return 41 + blocks * (fields["opd1_n"] + bias + shift + partial + (2 if fields["opt_res_add"] else 0)) + drain
    if task == Task.ELEMENTWISE and unit == Elementwise.LOOKUP:
        return rounds * (fields["opd1_h"] + 3) + 26 + drain
    if task == Task.ELEMENTWISE and unit in _ELEMENTWISE:
        return int(rounds * _elementwise_cycles(fields, serial)) + 26 + drain
    raise DescriptorError(f"there is no TIU operation {task}.{unit}")


def _span(fields: Mapping[str, int], results: int) -> float:
    """Input pixels under so many neighbouring results."""
    return ((results - 1) * fields["conv_op_x_str"]) / (fields["conv_opd0_x_ins0"] + 1) + 1


def _depthwise_reads(fields: Mapping[str, int], kernel: int) -> float:
    """Cycles that a tap waits for its pixels."""
    if kernel == 1:
        return 1
    width = max(fields["res0_w"], 1)
    columns, rows = (_UNITS, 1.0) if width >= _UNITS else (width, _UNITS / width)
    return _span(fields, columns) / _UNITS * rows + (_UNITS - 1) / _UNITS


def _pool_reads(fields: Mapping[str, int], results: int) -> float:
    """Cycles that a tap of a pool waits for its pixels."""
    if fields["res0_h"] * fields["res0_w"] == 1:
        return 1
    span = _span(fields, results)
    return max(1.0, span / results + ((results - 1) / results if span >= results else (span - 1) / results))


def _elementwise_cycles(fields: Mapping[str, int], serial: bool) -> float:
    """Cycles of 16 results."""
    narrow = not serial and not fields["opd_typ"]
    operands_8bit, result_8bit = narrow and fields["opt_opd0_seg"] == 1, narrow and fields["opt_res0_seg"] == 1
    unit = fields["tsk_eu_typ"]
    cycles = _ELEMENTWISE[Elementwise(unit)][0 if operands_8bit else 1]
    if unit == Elementwise.MUL and result_8bit:
        cycles += 3
    if unit in (Elementwise.ADD, Elementwise.SUB) and fields["opt_opd1_const"] and not operands_8bit:
        cycles -= 0.5
    if not result_8bit:
        cycles += 1
    return cycles * (30 / 16) if fields["res0_c_str"] % 16 else cycles


def tiu_macs(fields: Mapping[str, int]) -> int:
    """Products that a TIU descriptor adds up, padding among them."""
    results = fields["res0_n"] * fields["res0_c"] * fields["res0_w"]
    kernel = fields["res0_h"] * fields["opd1_h"] * fields["opd1_w"]
    if fields["tsk_typ"] == Task.CONV:
        return results * kernel * fields["opd0_c"]
    if fields["tsk_typ"] == Task.POOL and fields["tsk_eu_typ"] == Pool.DEPTHWISE:
        return results * kernel
    return results * fields["opd1_n"] if fields["tsk_typ"] == Task.MATMUL else 0


class TdmaCost(NamedTuple):
    """Of one transfer: bytes asked for in DDR, bytes that the bursts move there, 16-byte beats of local memory."""

    useful: int
    ddr: int
    beats: int
    direction: Direction


def tdma_bytes(fields: Mapping[str, int], serial: bool = False) -> TdmaCost:
    """Traffic of a TDMA descriptor; `serial` with the blind spots of `serial_us`."""
    direction = Direction(fields["trans_dir"])
    if direction is Direction.LOCAL:
        moved = max(_local_bytes(fields, "src"), _local_bytes(fields, "dst"))
        return TdmaCost(0, moved if serial else 0, moved // _BEAT_BYTES, direction)
    store, matrix = direction is Direction.STORE, fields["sys_dtype"] == 1
    transpose = fields["transpose_md"] if fields["spec_func"] == Special.TRANSPOSE else None
    side = "dst" if store else "src"
    n, c, h, w = fields["src_n"], fields[side + "_c"], fields[side + "_h"], fields[side + "_w"]
    n_stride, h_stride = fields[side + "_n_stride"], fields[side + "_h_stride"]
    c_stride = fields[side + "_c_stride_high"] << 16 | fields[side + "_c_stride_low"]
    base = fields[side + "_base_addr_high"] << 32 | fields[side + "_base_addr_low"]
    element = _element_bytes(fields, side)
    burst = 128 if store and fields["transpose_md"] == 3 else 256
    local_n, local_h, local_stride = n, fields["dst_h"], fields["dst_h_stride"]
    if matrix:
        n, h, h_stride = 1, 1, c_stride
        # Of a stored matrix the vendor's estimator counts every row as often as there are rows.
        local_n, local_h, local_stride = (local_n if serial else 1, 1, c_stride) if store else (1, local_h, local_stride)
    row = fields["dst_w"] * _element_bytes(fields, "dst")
    joined = local_stride == fields["dst_w"]
    row_beats = _ceil(local_stride * (local_h - 1) + row, _BEAT_BYTES) if joined else local_h * _ceil(row, _BEAT_BYTES)
    beats = local_n * fields["dst_c"] * row_beats
    if fields["trans_fmt"]:
        size = fields["src_n_stride"]
        moved = _traffic(base % _PAGE, (), size, burst)
        return TdmaCost(size, moved, beats if serial else _ceil(size, _BEAT_BYTES), direction)
    if store and transpose == 0:
        n = fields["src_c"]
    if not store and transpose in (1, 2):  # pixels with their channels innermost
        c, w, h_stride = w, c, c
        c_stride = h_stride * h
    useful = n * c * h * w * element
    if not useful:
        return TdmaCost(0, 0, beats, direction)
    if fields["spec_func"] == Special.FILL and not store and not serial:
        return TdmaCost(0, 0, beats, direction)
    columnwise = (store and fields["transpose_md"] == 3) or (not store and matrix and transpose == 0)
    rest = 0 if store else 16
    width = w * element if store else w  # of loads the vendor's estimator compares elements
    rows_joined = not columnwise and 0 <= h_stride - width <= rest
    pieces: tuple[tuple[int, int], ...] = ((n, n_stride), (c, c_stride), (h, h_stride))
    size = w * element
    if rows_joined:
        size, pieces = h_stride * (h - 1) + size, pieces[:2]
        if 0 <= c_stride - width * h <= rest:
            size, pieces = c_stride * (c - 1) + size, pieces[:1]
    elif columnwise and not store and serial:  # in tiles of 128 bytes
        size = (w - 1) % 128 + 1
    if serial:
        base, pieces = base + sum((count - 1) * stride for count, stride in pieces), ()
    moved = _traffic(base % _PAGE, tuple((count, stride % _PAGE) for count, stride in pieces if count > 1), size, burst)
    return TdmaCost(useful, moved, beats, direction)


def _element_bytes(fields: Mapping[str, int], side: str) -> int:
    return 2 if fields[side + "_fmt"] == 2 else 1


def _local_bytes(fields: Mapping[str, int], side: str) -> int:
    """Whole beats, in bytes, of one side of a copy within local memory."""
    w, h, stride = fields[side + "_w"], fields[side + "_h"], fields[side + "_h_stride"]
    row = w * _element_bytes(fields, side)
    channel = _up(stride * (h - 1) + row, _BEAT_BYTES) if stride == w else h * _up(row, _BEAT_BYTES)
    return int(fields["src_n"] * fields[side + "_c"] * channel)


@lru_cache(maxsize=1 << 16)
def _traffic(base: int, pieces: tuple[tuple[int, int], ...], size: int, burst: int) -> int:
    """DDR bytes of equal pieces at `base` + a multiple of each (count, stride); only where they lie in a page counts."""
    if not pieces:
        return int(_burst_bytes(base, size, burst))
    if math.prod(count for count, _ in pieces) <= _ONE_TRANSFER:
        starts: Any = base
        for count, stride in pieces:
            starts = np.add.outer(starts, np.arange(count) * stride)
        return int(_burst_bytes(starts % _PAGE, size, burst).sum())
    # Too many to list: how often each place in a page occurs, each dimension's sum by doubling.
    times = np.zeros(_PAGE, np.int64)
    times[base] = 1
    for count, stride in pieces:
        one, total, done = times, times, 1
        for bit in bin(count)[3:]:
            total, done = total + np.roll(total, done * stride), done * 2
            if bit == "1":
                total, done = one + np.roll(total, stride), done + 1
        times = total
    moved = _burst_bytes(np.arange(_PAGE), size, burst)
    return sum(int(a) * int(b) for a, b in zip(times, moved, strict=True))


def _burst_bytes(base: Any, size: int, burst: int) -> Any:
    """DDR bytes of one contiguous piece (or of pieces at an array of addresses): the part up to the next page, then the rest."""
    whole = base // _PAGE == (base + size) // _PAGE
    border = _up(base, _PAGE)
    head = whole * (size + base % 16) + (1 - whole) * (border - base)
    return _bursts(base, head, burst) + _bursts(border, (1 - whole) * (base + size - border), burst)


def _bursts(start: Any, length: Any, burst: int) -> Any:
    """Bytes in whole blocks of 64 that bursts from `start` on touch; every burst begins at a multiple of 16."""
    skew = start % _BLOCK // 16 * 16
    head = (skew != 0) * _BLOCK
    full, rest = length // burst, length % burst
    return full * (burst + head) + (rest != 0) * (head + _up(skew + _up(rest, 16), _BLOCK) - _up(skew, _BLOCK))


def serial_us(commands: Iterable[Command], chip: Chip) -> float:
    """The vendor's own estimate of a stream."""
    total_ns = 0
    for command in commands:
        if command.engine == Engine.TIU:
            total_ns += tiu_cycles(command.fields, chip, serial=True) * 1000 // chip.mhz
            continue
        cost = tdma_bytes(command.fields, serial=True)
        local_ns = 0 if cost.direction is Direction.LOCAL else cost.beats * 1000 // (chip.mhz * _BEAT_BYTES)
        total_ns += max(cost.ddr * 1000 // SERIAL_MB_PER_S, local_ns)
    return total_ns / 1000


def time_ns(command: Command, chip: Chip, mb_per_s: float = MB_PER_S) -> float:
    """How long a command keeps its engine busy in the overlap model."""
    if command.engine == Engine.TIU:
        return tiu_cycles(command.fields, chip) * 1000 / chip.mhz
    cost = tdma_bytes(command.fields)
    return max(cost.ddr * 1000 / mb_per_s, cost.beats * 1000 / chip.mhz)


class Overlap(NamedTuple):
    """Of a stream: how long each engine is busy, and when both are done."""

    tiu_us: float
    tdma_us: float
    total_us: float


def overlap(commands: Sequence[Command], chip: Chip, mb_per_s: float = MB_PER_S) -> Overlap:
    """Both engines at once, each in order and held back by the ids of the stream; `DescriptorError` when they dead-lock."""
    times = [time_ns(command, chip, mb_per_s) for command in commands]
    busy = {engine: sum(t for t, c in zip(times, commands, strict=True) if c.engine == engine) for engine in Engine}
    total = max((end for _, end in schedule(commands, times)), default=0.0)
    return Overlap(busy[Engine.TIU] / 1000, busy[Engine.TDMA] / 1000, total / 1000)


def schedule(commands: Sequence[Command], times_ns: Sequence[float]) -> list[tuple[float, float]]:
    """Start and end of every command that takes so long; `DescriptorError` when the ids dead-lock."""
    queues: dict[Engine, list[int]] = {Engine.TIU: [], Engine.TDMA: []}
    for index, command in enumerate(commands):
        queues[command.engine].append(index)
    spans = [(0.0, 0.0)] * len(commands)
    ends: dict[Engine, list[float]] = {engine: [0.0] for engine in queues}
    wrapped = {engine: len(queue) // LAST_ID * LAST_ID for engine, queue in queues.items()}
    moved = True
    while moved:
        moved = False
        for engine, other, name in ((Engine.TIU, Engine.TDMA, "cmd_id_gdma"), (Engine.TDMA, Engine.TIU, "wait_id_tpu")):
            queue, mine, theirs = queues[engine], ends[engine], ends[other]
            while len(mine) <= len(queue):
                index = queue[len(mine) - 1]
                wait = commands[index].fields[name]
                wait += wrapped[other] if wait else 0
                if wait >= len(theirs):
                    break
                start = max(mine[-1], theirs[wait])
                mine.append(start + times_ns[index])
                spans[index] = (start, mine[-1])
                moved = True
    if any(len(ends[engine]) <= len(queue) for engine, queue in queues.items()):
        raise DescriptorError("the ids of the stream dead-lock")
    return spans
