# SPDX-License-Identifier: Apache-2.0
"""The page of the op set is current."""

from __future__ import annotations

from gadl.compiler.ir import docs
from gadl.compiler.ir.opdef import all_ops


def test_the_page_is_current() -> None:
    assert docs.PATH.read_text(encoding="utf-8") == docs.text(), "run python -m gadl.compiler.ir.docs"


def test_every_op_is_on_it() -> None:
    assert docs.text().count("\n### `") == len(list(all_ops()))
