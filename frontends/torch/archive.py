# SPDX-License-Identifier: Apache-2.0
"""Reading `.pt2` files without trusting them.

torch's own loader unpickles some members of the archive, opens compiled libraries, evaluates symbolic expressions as
Python and imports the classes that tree specifications name. So the file is never given to it: a second archive is made
in memory from members that are plain data (graph JSON that was checked, raw tensor bytes), and that is loaded.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

#: A graph larger than this is no graph that anybody exported.
MOST_GRAPH_BYTES = 256 << 20
_MODEL = "models/model.json"
_CONFIGS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}
_PLAIN_MEMBER = re.compile(r"(weight|tensor)_\d+\Z")
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)\Z")
#: Longest symbolic size that is read, in characters.
MOST_EXPRESSION = 4000
_SYMBOL = re.compile(r"[su]\d{1,9}")
_FUNCTIONS = frozenset({"Add", "Mul", "Integer", "Rational", "Min", "Max", "FloorDiv", "Mod", "PythonMod", "CeilDiv", "CleanDiv"})
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", None)
#: Node metadata that is text only; the rest of it is looked up in Python modules by name.
_KEPT_METADATA = ("stack_trace", "nn_module_stack")


def checked_archive(path: Path, known: Callable[[str, str], bool]) -> io.BytesIO:
    """The program in `path` as an archive of plain data.

    `known(name, overload)` tells which ATen ops may be called. Raises `GADL-F001` for a damaged file, `GADL-F011` for one
    that holds code, `GADL-F012` with every op that is not known.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _rebuilt(archive, path.name, known)
    except GadlError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError, zipfile.BadZipFile,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise GadlError.of("GADL-F001", path.name, path=path.name, detail=detail) from None


def _rebuilt(archive: zipfile.ZipFile, file: str, known: Callable[[str, str], bool]) -> io.BytesIO:
    members = {m.filename: m for m in archive.infolist()}
    roots = {name.partition("/")[0] for name in members}
    if len(roots) != 1 or len(members) != len(archive.infolist()):
        raise ValueError("it is not an archive of torch.export.save (torch 2.8 or later)")
    (root,) = roots
    size = Path(str(archive.filename)).stat().st_size
    if (
        any(m.compress_type != zipfile.ZIP_STORED for m in members.values())
        or sum(m.file_size for m in members.values()) > size
    ):
        raise ValueError("its members are compressed, which torch.export.save never does")
    if any(name.startswith(f"{root}/data/aotinductor/") for name in members):
        raise _unsafe(file, "compiled code (AOTInductor)")
    for name in members:
        if name.startswith(f"{root}/models/") and name != f"{root}/{_MODEL}":
            raise ValueError("it holds more than one program")
    if members[f"{root}/{_MODEL}"].file_size > MOST_GRAPH_BYTES:
        raise ValueError("its graph is too large")
    graph = json.loads(archive.read(f"{root}/{_MODEL}"))
    _check_program(graph, file, known)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for name in ("archive_format", "archive_version", "byteorder", ".data/version", "version"):
            if f"{root}/{name}" in members:
                target.writestr(f"model/{name}", archive.read(f"{root}/{name}"))
        for folder, config_name in _CONFIGS.items():
            config = json.loads(archive.read(f"{root}/{config_name}"))
            for member in _tensor_members(config, file):
                target.writestr(f"model/data/{folder}/{member}", archive.read(f"{root}/data/{folder}/{member}"))
            target.writestr(f"model/{config_name}", json.dumps(config))
        target.writestr(f"model/{_MODEL}", json.dumps(graph))
        # Example inputs are a pickle in the original; the compiler does not need them.
        target.writestr("model/data/sample_inputs/model.pt", b"")
    made.seek(0)
    return made


def _unsafe(file: str, what: str) -> GadlError:
    return GadlError.of("GADL-F011", file, path=file, what=what)


def _tensor_members(config: Any, file: str) -> list[str]:
    """Names of the raw tensor files that a payload configuration refers to; anything pickled is refused."""
    names: dict[str, None] = {}
    for held, entry in config["config"].items():
        if entry.get("use_pickle") or not _PLAIN_MEMBER.match(entry["path_name"]):
            raise _unsafe(file, f"a pickled object ('{held}')")
        names[entry["path_name"]] = None
    return list(names)


def _check_program(program: Any, file: str, known: Callable[[str, str], bool]) -> None:
    """Leave only data in the graph's JSON; raise for what cannot be cut away."""
    program["guards_code"] = []
    module = program["graph_module"]
    problems: list[Diagnostic] = []
    for index, node in enumerate(module["graph"]["nodes"]):
        target = node["target"]
        node["metadata"] = {k: v for k, v in node.get("metadata", {}).items() if k in _KEPT_METADATA}
        match = _ATEN.match(target)
        if target != "_operator.getitem" and (match is None or not known(*match.groups())):
            where = f"{file}: node #{index}"
            shown = target.removeprefix("torch.ops.")
            problems.append(
                diagnostic("GADL-F012", where, op=shown, detail="it is no ATen op that the IR or torch can express")
            )
    GadlError.raise_if(problems)
    for key, value in _walk(program):
        if key == "expr_str" and not is_arithmetic(value):
            raise _unsafe(file, "an expression that is no arithmetic on sizes")
        if (
            key in ("in_spec", "out_spec")
            and isinstance(value, str)
            and value
            and not _is_plain_tree(json.loads(value))
        ):
            raise _unsafe(file, "a tree of Python classes")


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested JSON, without recursion."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def is_arithmetic(text: Any) -> bool:
    """True for sums, products, quotients and small powers of sizes: nothing that sympy would look up, or never finish."""
    if not isinstance(text, str) or len(text) > MOST_EXPRESSION:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = sum(isinstance(n, ast.Pow) or (isinstance(n, ast.Name) and n.id == "Pow") for n in ast.walk(tree))
    return powers <= 4 and _is_size(tree.body)


def _is_size(node: ast.expr) -> bool:
    """One node of such an expression, as Python or as sympy's constructors."""
    match node:
        case ast.Constant(value=int() as value):
            return abs(value) < 1 << 63
        case ast.Name(id=name):
            return bool(_SYMBOL.fullmatch(name))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_size(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Div(), right=right):
            return _is_size(left) and _is_size(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _is_size(left) and _is_small(right)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str() as name)], keywords=assumptions):
            plain = all(isinstance(k.value, ast.Constant) and isinstance(k.value.value, bool) for k in assumptions)
            return plain and bool(_SYMBOL.fullmatch(name))
        case ast.Call(func=ast.Name(id="Pow"), args=[base, exponent], keywords=[]):
            return _is_size(base) and _is_small(exponent)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in _FUNCTIONS and all(_is_size(a) for a in arguments)
        case _:
            return False


def _is_small(node: ast.expr) -> bool:
    """An exponent from -4 to 4."""
    match node:
        case ast.Call(func=ast.Name(id="Integer"), args=[inner], keywords=[]):
            return _is_small(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _is_small(inner)
        case ast.Constant(value=int() as value):
            return abs(value) <= 4
        case _:
            return False


def _is_plain_tree(spec: Any) -> bool:
    """True for tuples, lists and dicts with text keys, as pytree writes them: `[version, node]`."""
    for key, value in _walk(spec):
        if key == "type" and value not in _CONTAINERS:
            return False
        if key == "context" and value is not None:
            context = json.loads(value) if isinstance(value, str) else value
            if context is not None and not (isinstance(context, list) and all(isinstance(c, str) for c in context)):
                return False
    return True
