# SPDX-License-Identifier: Apache-2.0
"""ONNX: any opset from 7 on, read as it is, without converting versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic
from gadl.compiler.ir.graph import Graph

from . import control, einsum, elementwise, nn, norm, quant, reduce, shape
from .importer import MOST_BYTES, Importer
from .load import load_model
from .node import Unsupported, ir_dtype, supported_op_types
from .simplify import simplified

__all__ = ["import_onnx", "supported_op_types"]
_FUNCTION_MODULES = (control, einsum, elementwise, nn, norm, quant, reduce, shape)


def import_onnx(
    source: Path | str | bytes | Any,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    simplify: bool = True,
    warn: Callable[[Diagnostic], None] = lambda item: None,
) -> Graph:
    """Read a model (a file, its bytes or an `onnx.ModelProto`) as a float graph.

    `shapes` fixes dynamic inputs. With `simplify`, a model with unsupported ops gets a second chance through onnxsim.
    Raises `GadlError` with every open dimension (`GADL-F003`), or with every node that cannot be expressed (`GADL-F002`,
    `GADL-F005`); an unreadable model is `GADL-F001`. The file is not trusted.
    """
    wanted = {name: tuple(int(d) for d in dims) for name, dims in (shapes or {}).items()}
    model, name, file = load_model(source)
    found = _input_shapes(model, wanted, file)
    try:
        return Importer(model, name, file).run(found)
    except GadlError as error:
        # Damaged nodes stay damaged.
        if not simplify or any(d.code != "GADL-F002" for d in error.diagnostics):
            raise
        simpler = simplified(model, found, file, warn)
        if simpler is None:
            raise
        try:
            return Importer(simpler, name, file).run(found)
        except GadlError:
            # Nodes are named as in the user's own file.
            raise error from None


def _input_shapes(model: Any, wanted: dict[str, tuple[int, ...]], file: str) -> dict[str, tuple[int, ...]]:
    """The static shape of every input; all problems at once."""
    problems: list[Diagnostic] = []
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    names = [str(v.name) for v in inputs]
    problems += [diagnostic("GADL-F006", file, name=n, inputs=names) for n in wanted if n not in names]
    problems += [diagnostic("GADL-F007", file, name=n, detail="two inputs have this name") for n in {*names} if names.count(n) > 1]
    found: dict[str, tuple[int, ...]] = {}
    for value in inputs:
        # 0 is what old exporters write for an open dimension.
        dims = None if value.shape is None else [d if isinstance(d, int) and d > 0 else _symbol(d) for d in value.shape]
        try:
            if not isinstance(value.type, onnx_ir.TensorType):
                raise Unsupported(f"it is not a tensor but {value.type}")
            size = ir_dtype(value.dtype).size_bytes
        except Unsupported as error:
            problems.append(diagnostic("GADL-F007", file, name=value.name, detail=str(error)))
            continue
        if value.name in wanted:
            given = wanted[value.name]
            mismatch = dims is not None and (
                len(dims) != len(given) or any(isinstance(d, int) and d != g for d, g in zip(dims, given))
            )
            if mismatch or min(given, default=1) < 1:
                detail = f"--shape gives {list(given)}, the model says [{', '.join(map(str, dims or []))}]"
                problems.append(diagnostic("GADL-F007", file, name=value.name, detail=detail))
            found[value.name] = given
        elif dims is None or any(not isinstance(d, int) for d in dims):
            problems.append(_open(value.name, dims, file))
        else:
            found[value.name] = tuple(d for d in dims if isinstance(d, int))
        for dim in found.get(value.name, ()):
            size *= dim
        if size > MOST_BYTES:
            problems.append(diagnostic("GADL-F007", file, name=value.name, detail=f"it would take {size} bytes"))
    GadlError.raise_if(problems)
    return found


def _symbol(dim: Any) -> str:
    """The name of an open dimension."""
    return str(dim) if isinstance(dim, int) else str(dim.value or "?")


def _open(name: str, dims: list[int | str] | None, file: str) -> Diagnostic:
    """`GADL-F003` with an example that fixes it."""
    shown = dims if dims is not None else ["?"]
    example = ",".join(str(d) if isinstance(d, int) else "1" for d in shown)
    dim = next((d for d in shown if not isinstance(d, int)), "?")
    return diagnostic("GADL-F003", file, name=name, dim=dim, shape=f"[{', '.join(map(str, shown))}]", example=example)
