# SPDX-License-Identifier: Apache-2.0
"""What a catalogue entry holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """One text in both languages; `{name}` is filled from the diagnostic's values."""

    en: str
    zh: str


@dataclass(frozen=True)
class Entry:
    """A code and its texts: what happened, why, what happens now, how to fix it, and a longer explanation."""

    code: str
    what: Text
    why: Text | None = None
    now: Text | None = None
    fix: Text | None = None
    explain: Text | None = None
    exit_code: int = 3
