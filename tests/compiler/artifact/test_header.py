# SPDX-License-Identifier: Apache-2.0
"""The generated C header is current."""

from __future__ import annotations

from gadl.compiler.artifact import header


def test_the_header_is_current() -> None:
    assert header.PATH.read_text(encoding="utf-8") == header.text(), "run: python -m gadl.compiler.artifact.header"
