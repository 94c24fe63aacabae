# SPDX-License-Identifier: Apache-2.0
"""Assembler and disassembler: one instruction a line.

    LD@LD0 src=64 dst=0 row_bytes=256 wait(3,1) post(4,1) #12

Fields that are 0 are left out; enumerations are written by name; `;` starts a comment; `#n` is the debug id.
"""

from __future__ import annotations

import re

from .instruction import Instruction, IsaError
from .isa import BY_NAME, Queue

_ITEM = re.compile(r"(?:(?P<key>\w+)=(?P<value>-?\w+)|(?P<sem>wait|post)\((?P<s>\d+),(?P<c>\d+)\)|#(?P<debug>\d+))\Z")


def disassemble(instructions: list[Instruction]) -> str:
    """The text of a list of instructions."""
    return "".join(f"{_line(item)}\n" for item in instructions)


def _line(item: Instruction) -> str:
    spec, parts = BY_NAME[item.name], [f"{item.name}@{item.queue.name}"]
    for declared in spec.fields:
        value = item.fields.get(declared.name, 0)
        if value:
            known = declared.values is not None and value in declared.values._value2member_map_
            parts.append(f"{declared.name}={declared.values(value).name if known and declared.values else value}")
    parts += [f"wait({s},{c})" for s, c in item.waits] + [f"post({s},{c})" for s, c in item.posts]
    return " ".join(parts) + (f" #{item.debug}" if item.debug else "")


def assemble(text: str) -> list[Instruction]:
    """The instructions of a text; `IsaError` names the line."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(";", 1)[0].split()
        if not words:
            continue
        try:
            found.append(_instruction(words))
        except (IsaError, KeyError, ValueError) as error:
            raise IsaError(f"line {number}: {error}") from None
    return found


def _instruction(words: list[str]) -> Instruction:
    name, _, queue = words[0].partition("@")
    if name not in BY_NAME:
        raise IsaError(f"there is no instruction '{name}'")
    declared = {f.name: f for f in BY_NAME[name].fields}
    fields: dict[str, int] = {}
    semaphores: dict[str, list[tuple[int, int]]] = {"wait": [], "post": []}
    debug = 0
    for word in words[1:]:
        match = _ITEM.match(word)
        if match is None:
            raise IsaError(f"cannot read '{word}'")
        if match["key"]:
            item = declared.get(match["key"])
            if item is None:
                raise IsaError(f"{name} has no field '{match['key']}'")
            text = match["value"]
            numeric = re.fullmatch(r"-?\d+", text) is not None
            if not numeric and item.values is None:
                raise IsaError(f"'{text}' is not a number")
            fields[item.name] = int(text) if numeric or item.values is None else item.values[text].value
        elif match["sem"]:
            semaphores[match["sem"]].append((int(match["s"]), int(match["c"])))
        else:
            debug = int(match["debug"])
    made = Instruction(name, Queue[queue], fields, tuple(semaphores["wait"]), tuple(semaphores["post"]), debug)
    made.encode()
    return made
