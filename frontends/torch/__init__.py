# SPDX-License-Identifier: Apache-2.0
"""PyTorch: programs of `torch.export`, from memory or from a `.pt2` file. torch is imported only when one is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph

from . import create, elementwise, nn, norm, reduce, shape
from .importer import Importer, supported_ops
from .program import fix_shapes, load_program, lower

__all__ = ["import_torch", "supported_ops"]
_FUNCTION_MODULES = (create, elementwise, nn, norm, reduce, shape)


def import_torch(
    source: Path | str | Any, shapes: Mapping[str, tuple[int, ...]] | None = None, *, name: str = ""
) -> Graph:
    """Read an `ExportedProgram`, or the `.pt2` file of one, as a float graph that shares the weights' memory.

    `shapes` fixes dynamic inputs (`GADL-F003` lists the open ones); `name` is the graph's name, by default the file's.
    Raises `GadlError`: `GADL-F001` unreadable file, `GADL-F010` torch missing, `GADL-F011` a file that could run code,
    `GADL-F012` every op that cannot be expressed, `GADL-F013` to `GADL-F015` programs that are no tensor functions.
    """
    try:
        import torch
    except ImportError as error:
        raise GadlError.of("GADL-F010", source if isinstance(source, (str, Path)) else "", detail=str(error)) from None
    file = ""
    if isinstance(source, (str, Path)):
        path = Path(source)
        file, name = path.name, name or path.stem
        program = load_program(path)
    else:
        program = source
        if not isinstance(program, torch.export.ExportedProgram):
            raise GadlError.of("GADL-F001", path=type(program).__name__, detail="it is no ExportedProgram")
    program = fix_shapes(program, dict(shapes or {}), file)
    return Importer(lower(program, file), name or "model", file).run()
