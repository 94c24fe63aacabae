# SPDX-License-Identifier: Apache-2.0
"""OpenGADL: the open compiler and deployment toolchain for domestic NPUs.

`gadl.compile(model, target="npu")` makes an artefact, `gadl.load(path)` runs one. Both are imported on first use, so that a
device that only runs models never loads the compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Artifact", "Session", "compile", "load"]

if TYPE_CHECKING:
    from gadl.compiler.driver import Artifact, compile
    from gadl.runtime.session import Session, load

_LAZY = {
    "compile": "gadl.compiler.driver",
    "Artifact": "gadl.compiler.driver",
    "load": "gadl.runtime.session",
    "Session": "gadl.runtime.session",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gadl' has no attribute '{name}'")
