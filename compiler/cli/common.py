# SPDX-License-Identifier: Apache-2.0
"""What both commands share: options, errors on the terminal, exit codes, input files."""

from __future__ import annotations

import functools
import sys
import traceback
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.text import Text as RichText

from gadl.compiler.diag import Diagnostic, ExitCode, GadlError, Language, Severity, current_language, diagnostic, render
from gadl.compiler.diag.catalog import Text
from gadl.compiler.diag.render import set_language
from gadl.compiler.ir.types import Array

console = Console(stderr=True, highlight=False, soft_wrap=True)
_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}


def show(item: Diagnostic) -> None:
    """Print a diagnostic to standard error."""
    head, *rest = render(item).splitlines()
    console.print(RichText(head, style=_COLOURS[item.severity]))
    for line in rest:
        console.print(RichText(line))


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--lang` and `--debug`, print `GadlError` as people read it and exit with its code."""

    @click.option("--lang", type=click.Choice(["en", "zh"]), help="Language of messages / 消息语言")
    @click.option("--debug", is_flag=True, help="Show tracebacks / 显示调用栈")
    @functools.wraps(function)
    def run(*args: Any, lang: str | None, debug: bool, **kwargs: Any) -> None:
        if click.get_current_context().invoked_subcommand is not None:
            return  # of a group: its command comes next
        set_language(Language(lang) if lang else None)
        try:
            code = function(*args, **kwargs)
        except GadlError as error:
            if debug:
                traceback.print_exc()
            for item in error.diagnostics:
                show(item)
            code = error.exit_code
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt:
            code = 130
        except Exception as error:
            if debug:
                traceback.print_exc()
            show(diagnostic("GADL-U070", detail=f"{type(error).__name__}: {error}"))
            code = ExitCode.INTERNAL
        sys.exit(int(code or ExitCode.OK))

    return run


def on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` and `--timeout`."""

    @click.option("--device", help="Device [default: the artefact's]; cvi-cmodel for the CV18xx vendor's functional model")
    @click.option("--timeout", type=click.FloatRange(0.1), default=600.0, show_default=True, help="Seconds for one answer of a device in a process of its own")
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return run


def say(text: Text | None) -> str:
    """A text in the language of messages."""
    if text is None:
        return ""
    return text.zh if current_language() is Language.ZH else text.en


def parse_shapes(values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`name:1,3,224,224` options; `GADL-U001` when one is malformed."""
    shapes = {}
    for value in values:
        name, _, dims = value.rpartition(":")
        try:
            shapes[name] = tuple(int(d) for d in dims.split(","))
        except ValueError:
            name = ""
        if not name or min(shapes[name]) < 1:
            raise GadlError.of("GADL-U001", detail=f"--shape {value}: write name:1,3,224,224")
    return shapes


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz`; `GADL-U002` when it is not one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError, MemoryError, AttributeError) as error:
        raise GadlError.of("GADL-U002", path, path=path, detail=str(error) or type(error).__name__) from None
    except Exception as error:  # zlib and struct errors of damaged members
        raise GadlError.of("GADL-U002", path, path=path, detail=str(error) or type(error).__name__) from None


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an `.npz`, whole or not at all."""
    import io

    from gadl.compiler.diag.files import write_atomically

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())
