# SPDX-License-Identifier: Apache-2.0
"""The pass manager: order, dumps, stopping, and what is left behind when a pass fails."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from graphs import graph_of

from gadl.compiler.diag import GadlError, InternalError, diagnostic
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.parser import load_gir
from gadl.compiler.ir.passes import Pass, PassManager, StopAfter, named
from gadl.compiler.ir.printer import print_graph
from gadl.compiler.ir.types import DType, TensorType

BODY = '  input %x : f32[2]\n  %a : f32[2] = neg(%x)\n  %b : f32[2] = neg(%a)\n  output "y" = %b'


def remove_double_negation(graph: Graph) -> bool:
    """neg(neg(x)) --> x."""
    if not graph.ops:
        return False
    graph.set_outputs([graph.inputs[0]], graph.output_names)
    return graph.remove_dead_ops() > 0


def break_types(graph: Graph) -> bool:
    graph.ops[0].result.type = TensorType(DType.F32, (3,))
    return True


def break_types_silently(graph: Graph) -> bool:
    return not break_types(graph)


def crash(graph: Graph) -> bool:
    graph.ops.pop()
    raise KeyError("lost")


def test_passes_run_in_order_and_are_dumped_when_they_change_something(tmp_path: Path) -> None:
    graph, manager = graph_of(BODY), PassManager(dump_dir=tmp_path)
    manager.dump(graph, "import")
    manager.run(graph, [named(remove_double_negation), Pass("again", remove_double_negation), Pass("last", lambda g: True)])
    assert graph.ops == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00_import.gir", "01_remove_double_negation.gir", "02_last.gir"]
    assert str(load_gir(tmp_path / "00_import.gir")) == str(graph_of(BODY))
    assert list(manager.seconds) == ["remove_double_negation", "again", "last"] and min(manager.seconds.values()) >= 0


def test_stopping_carries_the_graph() -> None:
    graph, ran = graph_of(BODY), []
    with pytest.raises(StopAfter) as stop:
        PassManager(stop_after="first").run(graph, [Pass("first", lambda g: bool(ran.append(1))), Pass("second", lambda g: bool(ran.append(2)))])
    assert ran == [1] and stop.value.graph is graph


@pytest.mark.parametrize("run", [break_types, break_types_silently, crash])
def test_a_failing_pass_leaves_the_graph_before_it(tmp_path: Path, run: object) -> None:
    bad = named(run)  # type: ignore[arg-type]
    with pytest.raises(InternalError) as caught:
        PassManager(reproducer_dir=tmp_path).run(graph_of(BODY), [Pass("good", lambda g: False), bad])
    (found,) = caught.value.diagnostics
    path = tmp_path / f"gadl-reproducer-{bad.name}.gir"
    assert (found.code, found.values["name"], found.values["reproducer"]) == ("GADL-I070", bad.name, path)
    assert caught.value.exit_code == 70
    assert print_graph(load_gir(path)) == print_graph(graph_of(BODY))
    note = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert f"pass: {bad.name}\n" in note and f"gadlc {path.name} --stop-after {bad.name}" in note


def test_without_a_folder_it_is_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InternalError) as caught:
        PassManager().run(graph_of(BODY), [named(crash)])
    path = Path(str(caught.value.diagnostics[0].values["reproducer"]))
    assert path.parent.parent == tmp_path
    assert print_graph(load_gir(path)) == print_graph(graph_of(BODY))


def test_the_users_faults_pass_through() -> None:
    def refuse(graph: Graph) -> bool:
        raise GadlError(diagnostic("GADL-I010", name="x", detail="missing"))

    with pytest.raises(GadlError) as caught:
        PassManager().run(graph_of(BODY), [named(refuse)])
    assert type(caught.value) is GadlError
