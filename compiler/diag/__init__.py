# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: coded messages in English and Chinese, and the two kinds of failure."""

from __future__ import annotations

from .errors import Diagnostic, ExitCode, GadlError, InternalError, Severity, diagnostic
from .render import Language, current_language, render

__all__ = [
    "Diagnostic",
    "ExitCode",
    "GadlError",
    "InternalError",
    "Language",
    "Severity",
    "current_language",
    "diagnostic",
    "render",
]
