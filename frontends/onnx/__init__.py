# SPDX-License-Identifier: Apache-2.0
"""ONNX: any opset from 7 on, read as it is, without converting versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, Severity, diagnostic
from gadl.compiler.ir.graph import Graph

from . import elementwise, nn, norm, quant, shape
from .importer import Importer, Unsupported, ir_dtype, supported_op_types
from .load import load_model

__all__ = ["import_onnx", "supported_op_types"]
_FUNCTION_MODULES = (elementwise, nn, norm, quant, shape)


def import_onnx(
    source: Path | str | Any,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    simplify: bool = True,
    warn: Callable[[Diagnostic], None] = lambda item: None,
) -> Graph:
    """Read a model file (or an `onnx.ModelProto`) as a float graph.

    `shapes` fixes dynamic inputs. Raises `GadlError` with every open dimension (`GADL-F003`), or with every node that cannot
    be expressed (`GADL-F002`, `GADL-F005`).
    """
    wanted = dict(shapes or {})
    model, simplified, name, file = load_model(source, wanted, simplify, warn)
    found = _input_shapes(model, wanted, file)
    if simplified is not None:
        try:
            return Importer(simplified, name, file).run(found)
        except GadlError as error:
            # Some onnxsim releases make graphs that are not valid: the model as it is decides.
            detail = f"its graph is not valid ({len(error.diagnostics)} nodes)"
            graph = Importer(model, name, file).run(found)
            warn(diagnostic("GADL-F004", file, Severity.WARNING, detail=detail))
            return graph
    return Importer(model, name, file).run(found)


def _input_shapes(model: Any, wanted: dict[str, tuple[int, ...]], file: str) -> dict[str, tuple[int, ...]]:
    """The static shape of every input."""
    problems: list[Diagnostic] = []
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    names = [v.name for v in inputs]
    problems += [diagnostic("GADL-F006", file, name=n, inputs=names) for n in wanted if n not in names]
    found: dict[str, tuple[int, ...]] = {}
    for value in inputs:
        try:
            ir_dtype(value.dtype)
        except Unsupported as error:
            problems.append(diagnostic("GADL-F005", file, op=f"input '{value.name}'", detail=str(error)))
        dims = None if value.shape is None else [d if isinstance(d, int) else str(d.value) for d in value.shape]
        if value.name in wanted:
            given = wanted[value.name]
            mismatch = dims is not None and (
                len(dims) != len(given) or any(isinstance(d, int) and d != g for d, g in zip(dims, given))
            )
            if mismatch:
                detail = f"--shape gives {list(given)}, the model says {dims}"
                problems.append(diagnostic("GADL-F005", file, op=f"input '{value.name}'", detail=detail))
            found[value.name] = given
        elif dims is None or any(not isinstance(d, int) or d < 0 for d in dims):
            shown = dims if dims is not None else ["?"]
            example = ",".join(str(d) if isinstance(d, int) and d > 0 else "1" for d in shown)
            dim = next((d for d in shown if not isinstance(d, int) or d < 0), "?")
            problems.append(diagnostic("GADL-F003", file, name=value.name, dim=dim, shape=f"[{', '.join(map(str, shown))}]",
                                       example=example))
        else:
            found[value.name] = tuple(d for d in dims if isinstance(d, int))
    GadlError.raise_if(problems)
    return found
