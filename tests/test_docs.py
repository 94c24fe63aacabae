# SPDX-License-Identifier: Apache-2.0
"""The pages are true where a machine can tell: links, options, code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from gadl.compiler.cli.gadl import main as gadl_command
from gadl.compiler.cli.gadlc import main as gadlc_command

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
#: Options of other programs.
FOREIGN = {"--build", "--preset", "--install", "--prefix", "--cflags", "--libs", "--static", "--target", "--out", "--allow-shlib-undefined"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths_exist(page: Path) -> None:
    for path in re.findall(r"`((?:compiler|frontends|passes|targets|runtime|csrc|tests|docs|examples|benchmarks|cmake)/[\w/.-]*)", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_options_exist(page: Path) -> None:
    assert isinstance(gadl_command, click.Group)
    groups = [c for c in gadl_command.commands.values() if isinstance(c, click.Group)]
    commands = [gadlc_command, gadl_command, *gadl_command.commands.values(), *(c for group in groups for c in group.commands.values())]
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    known = {o for c in commands for p in c.params for o in (*p.opts, *p.secondary_opts)} | set(re.findall(r'add_argument\("(--[^"]+)"', scripts)) | FOREIGN
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text(encoding="utf-8"))) <= known


def test_the_chinese_readme_has_the_same_commands_and_links() -> None:
    english, chinese = (ROOT.joinpath(name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))

    def code(text: str) -> list[str]:
        return [re.sub(r"\s*#.*", "", block) for block in re.findall(r"```.*?```", text, re.S)]

    assert code(english) == code(chinese)
    assert re.findall(r"\]\((docs/[^)]+)\)", english) == re.findall(r"\]\((docs/[^)]+)\)", chinese)


def test_the_chinese_page_of_the_board_has_the_same_commands_and_links() -> None:
    english, chinese = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("board-cv18xx.md", "board-cv18xx.zh-CN.md"))
    blocks = [[re.sub(r"\s*#.*", "", block) for block in re.findall(r"```.*?```", text, re.S)] for text in (english, chinese)]
    assert blocks[0] == blocks[1] and blocks[0]
    assert re.findall(r"\]\(([^)]+)\)", english) == re.findall(r"\]\(([^)]+)\)", chinese)
    assert [line.count("#") for line in english.splitlines() if line.startswith("#")] == [line.count("#") for line in chinese.splitlines() if line.startswith("#")]


def test_the_pass_of_the_page_works(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "add-a-pass.md").read_text(encoding="utf-8")
    the_pass, the_test = re.findall(r"```python\n(.*?)```", text, re.S)
    module = ModuleType("gadl.passes.canonicalize.fold_double_negation")
    exec(the_pass, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(ROOT / "tests" / "passes")
    space: dict[str, object] = {}
    exec(the_test, space)
    space["test_a_pair_vanishes"]()  # type: ignore[operator]
