# SPDX-License-Identifier: Apache-2.0
"""Arguments of CPU routines: a flatbuffer of attributes, each a key and a value of one of six types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .flatbuffer import read, slot, write

Argument = float | bool | int | str | tuple[float, ...] | tuple[int, ...]

#: Name, kind and default of each slot's values.
_TYPES: tuple[tuple[str, Any, Any], ...] = (
    ("float", "f", 0.0), ("bool", "?", False), ("int", "i", 0), ("string", str, ""), ("floats", ["f"], ()), ("ints", ["i"], ()),
)  # fmt: skip
_PAIRS = [
    dataclasses.make_dataclass(name, [("key", Any, slot(0, str, "")), ("value", Any, slot(1, kind, none))])
    for name, kind, none in _TYPES
]
_Attribute = dataclasses.make_dataclass("Attribute", [(pair.__name__, Any, slot(i, pair, None)) for i, pair in enumerate(_PAIRS)])
_Arguments = dataclasses.make_dataclass("Arguments", [("attributes", Any, slot(0, [_Attribute], ()))])


def decode_arguments(data: bytes) -> dict[str, Argument]:
    """The arguments by name; `FlatbufferError` when they are damaged."""
    found: dict[str, Argument] = {}
    attributes: tuple[Any, ...] = read(_Arguments, data).attributes if data else ()
    for attribute in attributes:
        for pair in (getattr(attribute, name) for name, _, _ in _TYPES):
            if pair is not None:
                found[pair.key] = pair.value
    return found


def encode_arguments(arguments: Mapping[str, Argument]) -> bytes:
    """The flatbuffer of some arguments."""
    attributes: list[Any] = []
    for key, value in arguments.items():
        name = _type_name(value)
        pair = _PAIRS[[n for n, _, _ in _TYPES].index(name)]
        attributes.append(_Attribute(**{name: pair(key, value)}))
    return write(_Arguments(tuple(attributes)))


def _type_name(value: Argument) -> str:
    if isinstance(value, tuple):
        return "floats" if any(isinstance(item, float) for item in value) else "ints"
    return {bool: "bool", int: "int", float: "float", str: "string"}[type(value)]
