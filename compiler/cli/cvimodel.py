# SPDX-License-Identifier: Apache-2.0
"""`gadl inspect` of a `.cvimodel`, ours or the vendor's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from gadl.compiler.diag import ExitCode, GadlError, Language, current_language
from gadl.compiler.diag.catalog import Text
from gadl.targets.cv18xx.cost import MB_PER_S
from gadl.targets.cv18xx.cvimodel import MAGIC, decode
from gadl.targets.cv18xx.listing import describe

_ESTIMATED = Text(f"estimated at {MB_PER_S} MB/s", f"按 {MB_PER_S} MB/s 估计")
_ALL = Text("all sections", "全部段")
_MD5 = {
    "equal": Text("the MD5 is that of its contents", "MD5 与内容一致"),
    "different": Text("the MD5 is not that of its contents", "MD5 与内容不符"),
}


def is_cvimodel(path: Path) -> bool:
    """True when the file starts like one."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def inspect(path: Path, asm: bool, as_json: bool) -> int:
    """Print all that a `.cvimodel` holds, or its commands; what cannot be read is an error at the end."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GadlError.of("GADL-A010", path, detail=str(error)) from None
    found, problems = describe(decode(data, str(path)), asm)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        for line in _assembler(found) if asm else _lines(found):
            click.echo("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line))
    GadlError.raise_if(problems)
    return ExitCode.OK


def _assembler(found: dict[str, Any]) -> Iterable[str]:
    for section in found["sections"]:
        if "asm" in section:
            yield f"; {section['name']}"
            yield from section["asm"]


def _say(text: Text) -> str:
    return text.zh if current_language() is Language.ZH else text.en


def _lines(found: dict[str, Any]) -> Iterable[str]:
    made_by = (f"version {found['version']}", found["mlir_version"], found["build_time"])
    yield f"{found['name']}  {found['chip']}  {'  '.join(filter(None, made_by))}  {_say(_MD5[found['md5']])}"
    for index, program in enumerate(found["programs"]):
        yield f"program {index}  shared {program['shared_bytes']} B  private {program['private_bytes']} B"
        for tensor in program["tensors"]:
            use = "in" if tensor["name"] in program["inputs"] else "out" if tensor["name"] in program["outputs"] else ""
            scale = "" if tensor["qscale"] is None else f"  qscale {tensor['qscale']:.6g}"
            yield f"  {use:<3} {_tensor(tensor)}{scale}"
        for routine in program["routines"]:
            what = routine.get("section") or routine.get("function") or ""
            arguments = ", ".join(f"{key}={value}" for key, value in (routine.get("arguments") or {}).items())
            yield f"  {routine['kind']} {what}{f'({arguments})' if arguments else ''}: {', '.join(routine['inputs'])} -> {', '.join(routine['outputs'])}"
    for weight in found["weights"]:
        yield f"weight  {_tensor(weight)}"
    for section in found["sections"]:
        how = "".join(f"  {name}" for name in ("encrypted", "compressed") if section[name])
        yield f"section {section['name']:<24} {section['kind']:<10} offset {section['offset']:>10}  {section['bytes']:>10} B{how}"
        if "estimated" in section:
            yield from _estimated(section["estimated"])
    if "estimated" in found and sum("estimated" in section for section in found["sections"]) > 1:
        yield _say(_ALL)
        yield from _estimated(found["estimated"])


def _tensor(tensor: dict[str, Any]) -> str:
    shape = "x".join(str(dim) for dim in tensor["shape"])
    return f"{tensor['name']:<32} {tensor['dtype']}[{shape}]  {tensor['region']}+{tensor['address']:#x}  {tensor['bytes']} B"


def _estimated(numbers: dict[str, Any]) -> Iterable[str]:
    times = [f"{name} {numbers[f'{name}_us']:.1f} us" for name in ("serial", "overlap", "tiu", "tdma")]
    yield f"        {_say(_ESTIMATED)}: {'  '.join(times)}"
    traffic = [f"{name} {numbers[f'{name}_bytes'] / 1024:.1f} KiB" for name in ("load", "store", "ddr")]
    yield f"        {numbers['tiu_commands']} TIU  {numbers['tdma_commands']} TDMA  {numbers['macs'] / 1e6:.1f} MMAC  {'  '.join(traffic)}"
