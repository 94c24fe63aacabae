# SPDX-License-Identifier: Apache-2.0
"""Targets of other packages: `examples/target`, as pip would install it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gadl
from gadl.compiler import registry
from gadl.compiler.diag import GadlError
from gadl.compiler.ir.parser import load_gir
from gadl.runtime.session import Session

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).parents[2] / "examples" / "target"
GRAPH = """gir 1.0 float
graph "net" {
  input %x : f32[1,3,4,5]
  input %z : f32[1,3,4,5]
  %a : f32[1,3,4,5] = add(%x, %z)
  %r : f32[1,3,4,5] = relu(%a)
  %s : f32[1,3,4,5] = softmax(%r) {axis = 1}
  %y : f32[1,3,4,5] = add(%s, %x)
  output "y" = %y
}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], Path]:
    """Puts the example, with the given entry points, where Python finds installed packages."""

    def put(points: dict[str, str]) -> Path:
        site = tmp_path / "site"
        (site / "gadl_toy-0.1.dist-info").mkdir(parents=True)
        (site / "gadl_toy-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: gadl-toy\nVersion: 0.1\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (site / "gadl_toy-0.1.dist-info" / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")
        shutil.copy(EXAMPLE / "gadl_toy.py", site)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "gadl_toy", raising=False)
        return site

    return put


def declared() -> dict[str, str]:
    points: dict[str, str] = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    return points


def compile_and_run(folder: Path) -> dict[str, object]:
    """Through the target `toy`, against numpy; returns the report."""
    path = folder / "net.gir"
    path.write_text(GRAPH)
    assert load_gir(path).name == "net"
    artifact = gadl.compile(path, target="toy")
    artifact.save(folder / "net.gadl")
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal((1, 3, 4, 5)).astype(np.float32) for n in "xz"}
    positive = np.exp(np.maximum(feeds["x"] + feeds["z"], 0))
    (found,) = Session(folder / "net.gadl").run(feeds).values()
    np.testing.assert_allclose(found, positive / positive.sum(1, keepdims=True) + feeds["x"], atol=1e-5)
    return artifact.report


def test_the_example_compiles_and_runs(install: Callable[[dict[str, str]], Path], tmp_path: Path) -> None:
    install(declared())
    report = compile_and_run(tmp_path)
    assert report["placement"]["toy"] == 2 and [r["op"] for r in report["placement"]["reasons"]] == ["softmax"]  # type: ignore[index]
    assert report["plan"]["steps"] == 2  # type: ignore[index]


def test_the_same_module_works_in_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text("")
    shutil.copy(EXAMPLE / "gadl_toy.py", tmp_path / "toy" / "target.py")
    monkeypatch.setattr(gadl.targets, "__path__", [*gadl.targets.__path__, str(tmp_path)])
    registry._own.cache_clear()
    try:
        compile_and_run(tmp_path)
    finally:
        registry._own.cache_clear()
        for name in [n for n in sys.modules if n.startswith("gadl.targets.toy")]:
            del sys.modules[name]


def test_a_broken_package_is_named_and_harms_no_other_target(install: Callable[[dict[str, str]], Path]) -> None:
    install({"toy": "gadl_toy:MISSING", "other": "gadl_toy:TARGET", "npu": "gadl_toy:TARGET"})
    for name in ("toy", "other"):
        with pytest.raises(GadlError, match="GADL-T003") as caught:
            registry.target(name)
        assert caught.value.diagnostics[0].values["name"] == name
    assert registry.target("npu").driver == "sim"
    with pytest.raises(GadlError, match="GADL-T001.*"):
        registry.target("nobody")
