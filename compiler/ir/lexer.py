# SPDX-License-Identifier: Apache-2.0
"""Tokens of `.gir` text. The text is untrusted: no token takes more than linear time."""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(
    # Strings in long runs between escapes: resources have millions of characters.
    r"""[ \t\r\n]*(?:(?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*")|(?P<name>%(?:"[^"\\\n]*(?:\\.[^"\\\n]*)*"|[A-Za-z0-9_.:/-]+))"""
    r"""|(?P<resource>\#[0-9]{1,9}(?![0-9]))|(?P<number>-?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|inf|nan)(?![A-Za-z_]))"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[{}()\[\]<>,:=@])|(?P<end>\Z))"""
)
_SPACE = re.compile(r"[ \t\r\n]*")
_INTEGER = re.compile(r"-?[0-9]+\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Characters of a number; arithmetic on longer ones would be slow before it fails.
MOST_DIGITS = 64


class SyntaxFault(Exception):
    """The current token cannot stand there."""


class ContentFault(Exception):
    """The text is well-formed but means nothing possible; the fault lies at `at`, by default at the last token taken."""

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


class Lexer:
    """A cursor over the tokens of a text: `kind` and `token` are the current one, `start` is where it begins.

    `previous` is where the token before it begins.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = self.start = self.previous = 0
        self.kind, self.token = "", ""

    def advance(self) -> str:
        """Move to the next token; returns the one left behind."""
        before, self.previous = self.token, self.start
        found = _TOKEN.match(self.text, self.position)
        if found is None or found.lastgroup is None:
            self.start = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]  # It matches nothing, too.
            raise SyntaxFault("unexpected character")
        self.kind, self.token = found.lastgroup, found.group(found.lastgroup)
        self.start, self.position = found.start(found.lastgroup), found.end()
        if self.kind == "number" and len(self.token) > MOST_DIGITS:
            raise SyntaxFault("unreasonably long number")
        return before

    def expect(self, *wanted: str) -> str:
        """Take a token that must be one of `wanted` (texts), or raise."""
        if self.token not in wanted or self.kind in ("string", "name"):
            raise SyntaxFault(f"expected {' or '.join(repr(w) for w in wanted)}, found {self.token[:40]!r}")
        return self.advance()

    def take(self, kind: str) -> str:
        """Take a token of a kind, or raise."""
        if self.kind != kind:
            raise SyntaxFault(f"expected a {kind}, found {self.token[:40]!r}")
        return self.advance()

    def accept(self, wanted: str) -> bool:
        """Take the token if it is `wanted`."""
        if self.token == wanted and self.kind not in ("string", "name"):
            self.advance()
            return True
        return False

    def string(self) -> str:
        """Take a string."""
        return _unquoted(self.take("string"))

    def integer(self) -> int:
        """Take an integer."""
        if not _INTEGER.match(self.token):
            raise SyntaxFault(f"expected an integer, found {self.token[:40]!r}")
        return int(self.take("number"))

    def name(self) -> str:
        """Take a value's name."""
        text = self.take("name")[1:]
        return _unquoted(text) if text.startswith('"') else text

    def number(self) -> int | float:
        """Take a number."""
        text = self.take("number")
        return int(text) if _INTEGER.match(text) else float(text)


def _unquoted(text: str) -> str:
    """The text of a string literal."""
    value = str(json.loads(text))
    if not value.isascii() and _SURROGATE.search(value):
        raise ContentFault("a string holds half a surrogate pair")
    return value
