# SPDX-License-Identifier: Apache-2.0
"""Imports point one way (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What the modules of a folder may import of ours, by prefix. The longest matching folder decides.
ALLOWED = {
    "compiler/diag": ("gadl.compiler.diag",),
    "compiler/ir": ("gadl.compiler.diag", "gadl.compiler.ir"),
    "compiler/artifact": ("gadl.compiler.diag", "gadl.compiler.artifact"),
    "compiler": ("gadl",),
    "frontends": ("gadl.frontends", "gadl.compiler.ir", "gadl.compiler.diag"),
    "passes": ("gadl.passes", "gadl.compiler.ir", "gadl.compiler.diag"),
    "targets": ("gadl.targets", "gadl.passes", "gadl.compiler.ir", "gadl.compiler.artifact", "gadl.compiler.diag"),
    "runtime": ("gadl.runtime", "gadl.compiler.artifact", "gadl.compiler.diag"),
}
FILES = [p for folder in ("compiler", "frontends", "passes", "targets", "runtime") for p in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> list[str]:
    """Absolute names of everything that a module imports."""
    package = ["gadl", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            found.append(".".join(x for x in (base, node.module or "") if x))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    folder = max((f for f in ALLOWED if name.startswith(f + "/")), key=len)
    for module in imports(path):
        assert module.split(".")[0] not in ("compiler", "frontends", "passes", "targets", "runtime"), f"bare import of {module}"
        if module == "gadl" and folder == "compiler":
            continue
        if module.split(".")[0] == "gadl":
            assert module.startswith(ALLOWED[folder]), f"{name} imports {module}"


def test_the_runtime_loads_neither_onnx_nor_torch() -> None:
    code = "import sys, gadl.runtime; print([m for m in ('onnx', 'onnx_ir', 'torch', 'onnxsim') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=True)
    assert result.stdout.strip() == "[]"


def test_generated_headers_are_current() -> None:
    from gadl.compiler.artifact import header as artifact_header
    from gadl.targets.npu import header as isa_header

    for module in (artifact_header, isa_header):
        assert module.PATH.read_text(encoding="utf-8") == module.text(), f"run python -m {module.__name__}"
