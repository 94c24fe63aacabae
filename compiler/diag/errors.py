# SPDX-License-Identifier: Apache-2.0
"""A diagnostic is a code from the catalogue, a place and the values its text needs."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .catalog import entry


class Severity(enum.Enum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class ExitCode(enum.IntEnum):
    """Exit codes of the commands."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    UNSUPPORTED_MODEL = 3
    DEVICE = 4
    INTERNAL = 70


@dataclass(frozen=True)
class Diagnostic:
    """One message. `where` is a place as the user knows it (file, node, line); `values` fill the catalogue's text."""

    code: str
    where: str = ""
    severity: Severity = Severity.ERROR
    values: dict[str, Any] = field(default_factory=dict)


def diagnostic(code: str, where: object = "", severity: Severity = Severity.ERROR, **values: Any) -> Diagnostic:
    """A diagnostic whose code and values are checked against the catalogue at once."""
    entry(code)
    return Diagnostic(code, str(where), severity, values)


class GadlError(Exception):
    """The user's model, files or options are at fault: carries every diagnostic found, not only the first."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        if not diagnostics:
            raise ValueError("an error needs a diagnostic")
        self.diagnostics = diagnostics
        super().__init__(diagnostics)

    @classmethod
    def of(cls, code: str, where: object = "", **values: Any) -> GadlError:
        """An error of one diagnostic."""
        return cls(diagnostic(code, where, **values))

    @classmethod
    def raise_if(cls, diagnostics: Iterable[Diagnostic]) -> None:
        """Raise one error with all diagnostics, if there are any."""
        found = tuple(diagnostics)
        if found:
            raise cls(*found)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the first diagnostic's catalogue entry."""
        return ExitCode(entry(self.diagnostics[0].code).exit_code)

    def __str__(self) -> str:
        from .render import render

        return "\n".join(render(d) for d in self.diagnostics)


class InternalError(GadlError):
    """The compiler is at fault; a reproducer goes with it."""
