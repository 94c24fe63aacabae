# SPDX-License-Identifier: Apache-2.0
"""Diagnostics as text: what, where, why, what now."""

from __future__ import annotations

import contextvars
import enum
import os

from .catalog import Text, entry
from .errors import Diagnostic


class Language(enum.Enum):
    """Language of messages."""

    EN = "en"
    ZH = "zh"


_LANGUAGE: contextvars.ContextVar[Language | None] = contextvars.ContextVar("gadl_language", default=None)
_LABELS = {
    Language.EN: {"why": "why", "now": "now", "fix": "fix", "error": "error", "warning": "warning", "note": "note"},
    Language.ZH: {"why": "原因", "now": "现状", "fix": "办法", "error": "错误", "warning": "警告", "note": "提示"},
}


def current_language() -> Language:
    """The language set by `--lang`, else by GADL_LANG or LANG, else English."""
    chosen = _LANGUAGE.get()
    if chosen is not None:
        return chosen
    wanted = os.environ.get("GADL_LANG") or os.environ.get("LANG", "")
    return Language.ZH if wanted.lower().startswith("zh") else Language.EN


def set_language(language: Language | None) -> None:
    """Fix the language of this context; None returns to the environment's."""
    _LANGUAGE.set(language)


def text(source: Text, language: Language, values: dict[str, object]) -> str:
    """A catalogue text in one language with its values."""
    template = source.zh if language is Language.ZH else source.en
    return template.format_map({key: _plain(value) for key, value in values.items()})


def _plain(value: object) -> object:
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple, set)) else value


def headline(item: Diagnostic) -> str:
    """What happened, alone."""
    return text(entry(item.code).what, current_language(), item.values)


def render(item: Diagnostic, language: Language | None = None) -> str:
    """The message as people read it, without colour."""
    chosen = language or current_language()
    labels, known = _LABELS[chosen], entry(item.code)
    lines = [f"{labels[item.severity.value]}[{item.code}]: {text(known.what, chosen, item.values)}"]
    if item.where:
        lines.append(f"  --> {item.where}")
    for label, part in (("why", known.why), ("now", known.now), ("fix", known.fix)):
        if part is not None:
            lines.append(f"   {labels[label]}: {text(part, chosen, item.values)}")
    return "\n".join(lines)
