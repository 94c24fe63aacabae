# SPDX-License-Identifier: Apache-2.0
"""Exported programs before they are walked: loaded from files, shapes fixed, decomposed as far as the IR needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

from .archive import checked_archive
from .importer import function_of


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns about its own internals; none of it concerns the user's model."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def load_program(path: Path) -> Any:
    """The `ExportedProgram` of a `.pt2` file; nothing in the file is executed (`gadl.frontends.torch.archive`)."""
    import torch

    table: Any = torch.export.default_decompositions()
    decomposable = {(_packet(op), op._overloadname) for op in table}
    data = checked_archive(path, lambda n, o: function_of(n, o) is not None or (n, o) in decomposable)
    with _quiet():
        try:
            return torch.export.load(data)
        except Exception as error:  # torch raises many types on damaged programs
            raise GadlError.of("GADL-F001", path.name, path=path.name, detail=_first_line(error)) from None


def _packet(op: Any) -> str:
    return str(op._schema.name).removeprefix("aten::")


def fix_shapes(program: Any, shapes: dict[str, tuple[int, ...]], file: str) -> Any:
    """The program for static shapes, traced again where inputs are dynamic.

    Raises `GADL-F006` for names that are no inputs, `GADL-F003` with every open dimension.
    """
    import torch

    inputs = _user_inputs(program)
    problems: list[Diagnostic] = [
        diagnostic("GADL-F006", file, name=n, inputs=list(inputs)) for n in shapes if n not in inputs
    ]
    dynamic = False
    for name, fake in inputs.items():
        dims = list(getattr(fake, "shape", ()))
        given = shapes.get(name)
        opened = [d for d in dims if not isinstance(d, int)]
        dynamic |= bool(opened)
        fits = given is not None and len(given) == len(dims)
        if given is not None and not (fits and all(not isinstance(d, int) or d == g for d, g in zip(dims, given))):
            detail = f"--shape gives {list(given)}, the program says [{', '.join(map(str, dims))}]"
            problems.append(diagnostic("GADL-F005", file, op=f"input '{name}'", detail=detail))
        elif opened and given is None:
            example = ",".join(str(d) if isinstance(d, int) else "1" for d in dims)
            shown = f"[{', '.join(map(str, dims))}]"
            problems.append(diagnostic("GADL-F003", file, name=name, dim=opened[0], shape=shown, example=example))
    GadlError.raise_if(problems)
    if not dynamic:
        return program
    flat = [
        torch.zeros(shapes.get(name, tuple(fake.shape)), dtype=fake.dtype) if hasattr(fake, "dtype") else fake
        for name, fake in inputs.items()
    ]
    with _quiet():
        try:
            args, kwargs = torch.utils._pytree.tree_unflatten(flat, program.call_spec.in_spec)
            return torch.export.export(program.module(), args, kwargs)
        except Exception as error:  # the program's own guards, or an op that rejects these sizes
            detail = f"it cannot run with these shapes: {_first_line(error)}"
            raise GadlError.of("GADL-F005", file, op="--shape", detail=detail) from None


def _user_inputs(program: Any) -> dict[str, Any]:
    """What torch traced each input with, by name."""
    nodes = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    names = [s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    return {n: nodes[n].meta.get("val") for n in names}


def lower(program: Any, file: str) -> Any:
    """The program in functional form, in ops that have an importer wherever torch can decompose into them.

    Ops that the IR has whole (layer_norm, gelu, hardswish, …) are kept: torch's table is used without them.
    """
    import torch

    table: Any = torch.export.default_decompositions()
    for op in list(table):
        if function_of(_packet(op), op._overloadname or "default") is not None:
            table.pop(op)
    with _quiet():
        try:
            return program.run_decompositions(table)
        except Exception as error:  # an op whose decomposition or shape rule fails on this program
            raise GadlError.of("GADL-F014", file, detail=_first_line(error)) from None
