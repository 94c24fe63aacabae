# SPDX-License-Identifier: Apache-2.0
"""Hazards of a command stream, from its descriptors alone: which bytes of local memory each command touches, and what orders them.

Nothing here knows the compiler's buffers or regions. Engines run their own commands in order; a command starts when the command of
the other engine that it waits for is done, and so is everything that one knew to be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from gadl.targets.cv18xx.chip import Chip
from gadl.targets.cv18xx.descriptor import Command
from gadl.targets.cv18xx.isa import Direction, Elementwise, Engine, Pool, Special, Task

Bytes = np.ndarray
NONE = np.zeros(0, np.int64)
NUMBER, WAIT = {Engine.TIU: "cmd_id_tpu", Engine.TDMA: "cmd_id"}, {Engine.TIU: "cmd_id_gdma", Engine.TDMA: "wait_id_tpu"}
OTHER = {Engine.TIU: Engine.TDMA, Engine.TDMA: Engine.TIU}


@dataclass(frozen=True)
class Access:
    """Bytes of local memory, each `lane * lane_bytes + offset`."""

    reads: Bytes
    writes: Bytes


@lru_cache(maxsize=1 << 12)
def tensor(chip: Chip, address: int, n: int, c: int, h: int, w: int, n_str: int, c_str: int, h_str: int, w_str: int, element: int) -> Bytes:
    """Every byte of a tensor whose channels go round the lanes. Bytes beyond a lane's end are an error."""
    first, offset = address >> 15, address & 0x7FFF
    lane, slot = (first + np.arange(c)) % chip.lanes, (first + np.arange(c)) // chip.lanes
    inside = np.add.outer(np.add.outer(np.add.outer(np.arange(n) * n_str, slot * c_str), np.arange(h) * h_str), np.arange(w) * w_str)
    inside = np.add.outer(inside + offset, np.arange(element))
    assert inside.size == 0 or (inside.min() >= 0 and inside.max() < chip.lane_bytes), "beyond the end of a lane"
    return np.unique(inside + lane[None, :, None, None, None] * chip.lane_bytes)


def aligned(chip: Chip, address: int, n: int, c: int, h: int, w: int) -> Bytes:
    """A tensor of bytes in the form whose strides the unit computes."""
    c_str = -(-h * w // 16) * 16
    return tensor(chip, address, n, c, h, w, c_str * -(-((address >> 15) + c) // chip.lanes), c_str, w, 1, 1)


def per_channel(chip: Chip, address: int, channels: int, size: int, pitch: int | None = None) -> Bytes:
    """`size` bytes for each channel."""
    return tensor(chip, address, 1, channels, 1, size, 0, pitch or size, 0, 1, 1)


def _operand(chip: Chip, f: Mapping[str, int], name: str) -> Bytes:
    """An operand or result of bytes with its own strides, or in the aligned form."""
    shape = [f[f"{name}_{axis}"] for axis in "nchw"]
    if f[f"short_{name}_str"] == 0:
        return aligned(chip, f[f"{name}_addr"], *shape)
    assert f[f"short_{name}_str"] == 3, f"{name}: strides of another kind"
    return tensor(chip, f[f"{name}_addr"], *shape, *(f[f"{name}_{axis}_str"] for axis in "nchw"), 1)


def _planes(chip: Chip, f: Mapping[str, int], count: int) -> Bytes:
    """Byte planes of the result."""
    one = _operand(chip, f, "res0")
    assert (one % chip.lane_bytes).max() + (count - 1) * f["res0_b_str"] < chip.lane_bytes, "a plane beyond the end of a lane"
    return np.unique(np.add.outer(np.arange(count) * f["res0_b_str"], one))


def _tiu(chip: Chip, f: Mapping[str, int]) -> Access:
    assert f["opd_typ"] == 0 and f["opt_opd0_seg"] == 1, "only bytes"
    task, unit = Task(f["tsk_typ"]), f["tsk_eu_typ"]
    result, reads, parts = _operand(chip, f, "res0"), [], f["ps32_md"]
    kernel, constant = f["opd1_h"] * f["opd1_w"], f["opt_opd1_const"] == 1
    if not (task == Task.ELEMENTWISE and f["opt_opd0_const"]):
        reads.append(_operand(chip, f, "opd0"))
    record = 0 if not f["opt_chl_quan"] else 9 if f["tsk_opd_num"] == 3 else 5
    match task:
        case Task.CONV:
            reads.append(per_channel(chip, f["opd1_addr"], f["opd1_c"], kernel * f["opd1_n"]))
            reads.append(per_channel(chip, f["opd2_addr"], f["opd2_c"], record) if record else NONE)
            assert f["opd1_c"] == f["res0_c"] and f["opd1_n"] == f["opd0_c"] and (record or f["tsk_opd_num"] == 2)
        case Task.POOL if unit == Pool.DEPTHWISE:
            reads.append(per_channel(chip, f["opd1_addr"], f["opd1_c"], kernel, -(-kernel // 16) * 16))
            reads.append(per_channel(chip, f["opd2_addr"], f["opd2_c"], record) if record else NONE)
            assert f["opd1_c"] == f["res0_c"] and (record or f["tsk_opd_num"] == 2)
        case Task.POOL:
            assert f["tsk_opd_num"] == 1 or (unit == Pool.AVERAGE and constant)
        case Task.MATMUL:
            reads.append(aligned(chip, f["opd1_addr"], f["opd1_n"], f["opd1_c"], 1, f["res0_w"]))
            if f["tsk_opd_num"] == 3:
                reads.append(aligned(chip, f["opd2_addr"], 4, f["opd2_c"], 1, f["opd2_w"]))
        case Task.ELEMENTWISE if unit == Elementwise.LOOKUP:
            reads.append(aligned(chip, f["opd1_addr"], 1, f["opd1_c"], f["opd1_h"], f["opd1_w"]))
        case Task.ELEMENTWISE:
            if f["tsk_opd_num"] > 1 and not constant:
                assert f["opt_opd1_seg"] == 1
                reads.append(_operand(chip, f, "opd1"))
    if parts:  # 32-bit sums: first, middle, last
        sums = _planes(chip, f, 4)
        return Access(np.unique(np.concatenate([*reads, sums if parts != 2 else NONE])), sums if parts != 1 else result)
    if f["opt_res_add"]:
        reads.append(_planes(chip, f, 2))
    if not f["opt_res0_seg"]:
        result = _planes(chip, f, 2)
    return Access(np.unique(np.concatenate(reads)), result)


def _side(chip: Chip, f: Mapping[str, int], side: str) -> Bytes:
    """The local end of a transfer."""
    assert f[f"{side}_fmt"] == 1, "only bytes"
    address = f[f"{side}_base_addr_low"]
    n, h, w = f["src_n"], f[f"{side}_h"], f[f"{side}_w"]
    if f["spec_func"] == Special.TRANSPOSE and side == "dst":  # columns of the source become rows of a matrix
        assert f["sys_dtype"]
        n = f["src_w"]
    c_str = f[f"{side}_c_stride_high"] << 16 | f[f"{side}_c_stride_low"]
    if f["sys_dtype"]:  # rows of a matrix, whose columns go round the lanes
        assert f[f"{side}_c"] <= chip.lanes and h == 1
        c_str = 0
    return tensor(chip, address, n, f[f"{side}_c"], h, w, f[f"{side}_n_stride"], c_str, f[f"{side}_h_stride"], 1, 1)


def _tdma(chip: Chip, f: Mapping[str, int]) -> Access:
    direction = Direction(f["trans_dir"])
    assert f["trans_fmt"] == 0, "a transfer of another kind"
    from_local = direction in (Direction.STORE, Direction.LOCAL) and f["spec_func"] != Special.FILL
    to_local = direction in (Direction.LOAD, Direction.LOCAL)
    return Access(_side(chip, f, "src") if from_local else NONE, _side(chip, f, "dst") if to_local else NONE)


def accesses(chip: Chip, commands: Sequence[Command]) -> list[Access]:
    """What every command touches; an assertion fails where that is not understood."""
    return [(_tiu if c.engine == Engine.TIU else _tdma)(chip, c.fields) for c in commands]


@dataclass(frozen=True)
class Order:
    """Of every command: its number in its queue, and the newest command of the other engine that is done before it starts."""

    number: list[int]
    done: list[int]


def order(commands: Sequence[Command]) -> Order:
    """Numbers from 1; an assertion fails on ids that are not those of a queue, or on a wait for a command that comes later."""
    counts = {engine: 0 for engine in Engine}
    known: dict[Engine, list[int]] = {engine: [0] for engine in Engine}
    found = Order([], [])
    for command in commands:
        mine, theirs = command.engine, OTHER[command.engine]
        counts[mine] += 1
        wait = command.fields[WAIT[mine]]
        assert command.fields[NUMBER[mine]] == counts[mine] and wait <= counts[theirs]
        known[mine].append(max(known[mine][-1], wait))
        found.number.append(counts[mine])
        found.done.append(known[mine][-1])
    return found


@dataclass(frozen=True)
class Race:
    """Command `second` may start before `first`, which comes earlier in the stream, is done; indices into the stream."""

    first: int
    second: int


def races(chip: Chip, commands: Sequence[Command], touched: Sequence[Access]) -> list[Race]:
    """Commands of different engines that touch the same byte, one of them writing, in no order. One for each later command at most."""
    queues: dict[Engine, list[int]] = {engine: [] for engine in Engine}
    size, found, ordered = chip.lanes * chip.lane_bytes, [], order(commands)
    readers, writers = ({engine: np.zeros(size, np.int32) for engine in Engine} for _ in range(2))
    for index, (command, access) in enumerate(zip(commands, touched, strict=True)):
        mine, theirs = command.engine, OTHER[command.engine]
        newest = 0
        for before, bytes_ in ((writers, access.reads), (writers, access.writes), (readers, access.writes)):
            newest = max(newest, int(before[theirs][bytes_].max(initial=0)))
        if newest > ordered.done[index]:
            found.append(Race(queues[theirs][newest - 1], index))
        queues[mine].append(index)
        readers[mine][access.reads] = writers[mine][access.writes] = ordered.number[index]
    return found


def awaited(commands: Sequence[Command], index: int) -> int:
    """The command that another one waits for."""
    engine = commands[index].engine
    place = OTHER[engine], commands[index].fields[WAIT[engine]]
    return next(i for i, c in enumerate(commands) if (c.engine, c.fields[NUMBER[c.engine]]) == place)


def hulls_meet(chip: Chip, before: Access, after: Access) -> bool:
    """True where what lies between the first and the last byte of two accesses, one of them writing, overlaps on any lanes."""

    def meet(a: Bytes, b: Bytes) -> bool:
        a, b = a % chip.lane_bytes, b % chip.lane_bytes
        return bool(a.size and b.size and a.min() <= b.max() and b.min() <= a.max())

    return meet(before.writes, after.reads) or meet(before.reads, after.writes) or meet(before.writes, after.writes)


def weakened(commands: Sequence[Command], index: int) -> list[Command] | None:
    """The stream with one wait less, for the command before; None where the command has no wait of its own."""
    command = commands[index]
    name = WAIT[command.engine]
    before = max((c.fields[name] for c in commands[:index] if c.engine == command.engine), default=0)
    if command.fields[name] <= before:
        return None
    changed = replace(command, fields={**command.fields, name: command.fields[name] - 1})
    return [*commands[:index], changed, *commands[index + 1 :]]


def conflicts(touched: Sequence[Access], commands: Sequence[Command]) -> list[Race]:
    """Every pair of commands of different engines that touch the same byte, one of them writing: by looking at all pairs."""
    found = []
    for second, after in enumerate(touched):
        for first, before in enumerate(touched[:second]):
            if commands[first].engine == commands[second].engine:
                continue
            pairs = ((before.writes, after.writes), (before.writes, after.reads), (before.reads, after.writes))
            if any(np.intersect1d(a, b, assume_unique=True).size for a, b in pairs):
                found.append(Race(first, second))
    return found


def reachable(commands: Sequence[Command]) -> np.ndarray:
    """`[a, b]`: command a is done before b starts; the transitive closure of queues and waits."""
    count = len(commands)
    closure = np.zeros((count, count), bool)
    places = {(c.engine, c.fields[NUMBER[c.engine]]): i for i, c in enumerate(commands)}
    for index, command in enumerate(commands):
        for engine, number in ((command.engine, command.fields[NUMBER[command.engine]] - 1), (OTHER[command.engine], command.fields[WAIT[command.engine]])):
            if number:
                before = places[engine, number]
                closure[before, index] = True
                closure[:, index] |= closure[:, before]
    return closure
