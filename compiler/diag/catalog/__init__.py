# SPDX-License-Identifier: Apache-2.0
"""The catalogue of messages: one module per area, one entry per code; codes are stable for ever.

`GADL-F…` front ends, `GADL-I…` IR, `GADL-P…` placement and planning, `GADL-Q…` quantisation, `GADL-A…` artefacts,
`GADL-R…` runtime and devices, `GADL-U…` usage, `GADL-T…` targets and machines.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache

from .entry import Entry, Text

__all__ = ["Entry", "Text", "entries", "entry"]


@cache
def _table() -> dict[str, Entry]:
    table: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(__path__):
        for item in getattr(importlib.import_module(f"{__name__}.{module.name}"), "ENTRIES", ()):
            if item.code in table:
                raise ValueError(f"code {item.code} is declared twice")
            table[item.code] = item
    return table


def entry(code: str) -> Entry:
    """The entry of a code; `KeyError` when the catalogue has none."""
    return _table()[code]


def entries() -> Iterator[Entry]:
    """All entries, by code."""
    table = _table()
    yield from (table[code] for code in sorted(table))
