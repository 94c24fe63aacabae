# SPDX-License-Identifier: Apache-2.0
"""Disassembler: one command a line.

    TIU  7 after 12 CONV res0=1x32x14x14@0:0x1200 opd0=1x16x14x14@0:0x0 opd1=16x32x3x3@0:0x2400 opt_relu_typ=1 ...
    TDMA 13 after 7 STORE src=1x32x14x14@0:0x1200/6272,196,14 dst=32x14x14@3+0x0/6272,196,14

An engine's own id, the id of the other one that must be done (0: none), the operation, then the operands as shape, place and
strides, and the other fields by name. A local place is lane:offset, a place in DDR base register+address. What has its reset
value is left out, strides of a tensor together.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from .descriptor import Command
from .isa import LANE_SHIFT, LAYOUTS, Direction, Elementwise, Engine, Pool, Special, Task

_UNITS: Mapping[int, type[enum.IntEnum]] = {Task.POOL: Pool, Task.ELEMENTWISE: Elementwise}
#: Set in every command.
_ENABLED = {"cmd_en", "cmd_id_en", "vld", "bar_en"}


def disassemble(commands: Iterable[Command]) -> str:
    """The text of a list of commands."""
    return "".join(f"{line(command)}\n" for command in commands)


def line(command: Command) -> str:
    """One command; different commands have different lines."""
    fields = command.fields
    shown: set[str] = set(_ENABLED)
    if command.engine == Engine.TIU:
        head = f"TIU  {fields['cmd_id_tpu']} after {fields['cmd_id_gdma']} {operation(command)}"
        shown |= {"cmd_id_tpu", "cmd_id_gdma", "tsk_typ", "tsk_eu_typ"}
        operands = [_operand(fields, name, shown) for name in ("res0", "opd0", "opd1", "opd2")]
    else:
        head = f"TDMA {fields['cmd_id']} after {fields['wait_id_tpu']} {operation(command)}"
        shown |= {"cmd_id", "wait_id_tpu", "trans_dir", "spec_func"}
        operands = [_side(fields, side, Direction(fields["trans_dir"]), shown) for side in ("src", "dst")]
    reset = LAYOUTS[command.engine].reset
    others = [f"{name}={value}" for name, value in fields.items() if name not in shown and value != reset[name]]
    others += [f"{name}=0" for name in fields if name in _ENABLED and not fields[name]]
    return " ".join([head, *filter(None, operands), *others])


def operation(command: Command) -> str:
    """What a command does; numbers where there is no name."""
    fields = command.fields
    if command.engine == Engine.TDMA:
        special = fields["spec_func"]
        return Direction(fields["trans_dir"]).name + (f".{_name(Special, special)}" if special else "")
    task, unit = fields["tsk_typ"], fields["tsk_eu_typ"]
    if task == Task.POOL and unit == Pool.DEPTHWISE:
        return Pool.DEPTHWISE.name
    units = _UNITS.get(task)
    name = str(unit) if units is None else _name(units, unit)
    return _name(Task, task) + ("" if units is None and not unit else f".{name}")


def _name(names: type[enum.IntEnum], value: int) -> str:
    return names(value).name if value in names._value2member_map_ else str(value)


def _place(address: int) -> str:
    """A local address."""
    return f"{address >> LANE_SHIFT}:{address & ((1 << LANE_SHIFT) - 1):#x}"


def _changed(fields: Mapping[str, int], names: list[str], engine: Engine) -> bool:
    return any(fields[name] != LAYOUTS[engine].reset[name] for name in names)


def _operand(fields: Mapping[str, int], name: str, shown: set[str]) -> str:
    """An operand of the TIU, nothing when it has reset values only."""
    shape, strides = ([f"{name}_{axis}{kind}" for axis in "nchw"] for kind in ("", "_str"))
    shown.update(shape, strides, (f"{name}_addr",))
    stepped = _changed(fields, strides, Engine.TIU)
    if not stepped and not _changed(fields, [*shape, f"{name}_addr"], Engine.TIU):
        return ""
    text = f"{name}={'x'.join(str(fields[n]) for n in shape)}@{_place(fields[f'{name}_addr'])}"
    return text + ("/" + ",".join(str(fields[n]) for n in strides) if stepped else "")


def _side(fields: Mapping[str, int], side: str, direction: Direction, shown: set[str]) -> str:
    """Source or destination of a transfer; both have the source's n."""
    shape = [*(["src_n"] if side == "src" else []), *(f"{side}_{axis}" for axis in "chw")]
    strides = [f"{side}_n_stride", f"{side}_c_stride_high", f"{side}_c_stride_low", f"{side}_h_stride"]
    low, high, register = (f"{side}_{n}" for n in ("base_addr_low", "base_addr_high", "base_reg_sel"))
    shown.update(shape, strides, (low,))
    if direction is Direction.LOCAL or (direction, side) in ((Direction.LOAD, "dst"), (Direction.STORE, "src")):
        place = _place(fields[low])
    else:
        shown.update((high, register))
        place = f"{fields[register]}+{fields[high] << 32 | fields[low]:#x}"
    text = f"{side}={'x'.join(str(fields[n]) for n in shape)}@{place}"
    if not _changed(fields, strides, Engine.TDMA):
        return text
    n, c, h = fields[strides[0]], fields[strides[1]] << 16 | fields[strides[2]], fields[strides[3]]
    return f"{text}/{n},{c},{h}"
