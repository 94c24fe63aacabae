# SPDX-License-Identifier: Apache-2.0
"""Searching, resuming and replaying the plans of a small network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gadl.compiler.diag import Diagnostic, GadlError
from gadl.compiler.ir.printer import save_gir
from gadl.compiler.tune.search import Progress
from gadl.passes.plan.plan import Plan
from gadl.targets.npu.space import NpuSpace

from .conftest import Compile, network

COUNT = 30


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_search_is_the_same_with_any_number_of_workers(build: Compile, tmp_path: Path) -> None:
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one = build(tune=COUNT, tuning_log=first, jobs=1)
    two = build(tune=COUNT, tuning_log=second, jobs=2)
    assert first.read_bytes() == second.read_bytes() and one.data == two.data
    assert len(lines(first)) == COUNT == one.report["tune"]["measured"]
    assert len({json.dumps(r["plan"]) for r in lines(first)}) == COUNT
    third = tmp_path / "three.jsonl"
    build(tune=COUNT, tuning_log=third, seed=1)
    assert lines(third)[0]["plan"] == lines(first)[0]["plan"] and lines(third)[1:] != lines(first)[1:]


def test_the_default_plan_is_first_and_the_best_is_built(build: Compile, tmp_path: Path) -> None:
    log, seen = tmp_path / "log.jsonl", list[Progress]()
    plain = build()
    made = build(tune=str(COUNT), tuning_log=log, progress=seen.append)
    tune, records = made.report["tune"], lines(log)
    assert round(records[0]["cycles"]) == plain.report["plan"]["cycles"] == tune["default_cycles"]
    best = min(r["cycles"] for r in records if r["cycles"] is not None)
    assert made.report["plan"]["cycles"] == round(best) == tune["best_cycles"] <= tune["default_cycles"]
    assert made.report["self_check"]["equal"] and tune["log"] == str(log) and tune["seconds"] > 0
    assert [p.done for p in seen] == sorted(p.done for p in seen) and seen[-1].done == seen[-1].total == COUNT
    assert seen[-1].best_cycles == best >= seen[-1].bound_cycles > 0


def test_the_log_alone_gives_the_same_artefact(build: Compile, tmp_path: Path) -> None:
    log, problems = tmp_path / "log.jsonl", list[Diagnostic]()
    tuned = build(tune=COUNT, tuning_log=log)
    before = log.read_bytes()
    replayed = build(tuning_log=log, warn=problems.append)
    assert replayed.data == tuned.data and log.read_bytes() == before and not problems
    assert "measured" not in replayed.report["tune"]


def test_a_search_that_was_cut_short_goes_on(build: Compile, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    build(tune=COUNT, tuning_log=whole)
    text = whole.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(text[:19]) + text[19][:50])
    again = build(tune=COUNT, tuning_log=part)
    assert again.report["tune"]["measured"] == COUNT - 19
    kept = part.read_bytes().splitlines(keepends=True)
    assert b"".join([*kept[:19], *kept[20:]]) == whole.read_bytes()
    assert build(tune=COUNT, tuning_log=whole).report["tune"]["measured"] == 0


def test_logs_are_merged_by_concatenation(build: Compile, tmp_path: Path) -> None:
    logs = [tmp_path / f"{seed}.jsonl" for seed in range(2)]
    made = [build(tune=COUNT, tuning_log=log, seed=seed) for seed, log in enumerate(logs)]
    merged = tmp_path / "merged.jsonl"
    merged.write_bytes(b"".join(log.read_bytes() for log in logs))
    best = min(made, key=lambda m: m.report["plan"]["cycles"])
    assert build(tuning_log=merged).report["plan"]["cycles"] == best.report["plan"]["cycles"]
    # Another seed goes on from what is there, and measures none of it again.
    more = build(tune=COUNT, tuning_log=merged, seed=7)
    plans = [json.dumps(r["plan"]) for r in lines(merged) if r["round"]]
    fresh = plans[-more.report["tune"]["measured"] + 1 :]
    assert not set(fresh) & set(plans[: -len(fresh)])
    assert more.report["plan"]["cycles"] <= best.report["plan"]["cycles"]


def test_damaged_and_foreign_lines_are_skipped_by_name(build: Compile, tmp_path: Path) -> None:
    log, problems = tmp_path / "log.jsonl", list[Diagnostic]()
    tuned = build(tune=10, tuning_log=log)
    good = log.read_bytes().splitlines(keepends=True)
    bad = [b"{\n", b"[1]\n", b'{"schema":99}\n', b"\xff\xfe\n", good[3][:100] + b"\n", b'{"schema":1,"cycles":"fast"}\n', b"[" * 100000 + b"\n",
           good[0].replace(b'"cycles":', b'"cycles":-'), good[0].replace(b'"rows":0', b'"rows":{}'), b"null\n"]  # fmt: skip
    log.write_bytes(b"".join([*bad, b"\n", *good]))
    assert build(tuning_log=log, warn=problems.append).data == tuned.data
    assert [p.code for p in problems] == ["GADL-P010"] * len(bad)
    assert [p.where for p in problems] == [f"{log}:{n}" for n in range(1, len(bad) + 1)]


def change(log: Path, out: Path, **fields: Any) -> Path:
    out.write_text("".join(json.dumps({**record, **fields}) + "\n" for record in lines(log)))
    return out


def test_records_of_something_else_give_the_default_plan(build: Compile, tmp_path: Path) -> None:
    log, other = tmp_path / "log.jsonl", tmp_path / "other.jsonl"
    tuned, plain = build(tune=COUNT, tuning_log=log), build()
    for fields in ({"compiler": "0.0.0"}, {"machine": "0"}, {"target": "other"}, {"segment": "0"}):
        problems: list[Diagnostic] = []
        assert build(tuning_log=change(log, other, **fields), warn=problems.append).data == plain.data
        assert [p.code for p in problems] == ["GADL-P011"]
    assert build(tuning_log=tmp_path / "absent.jsonl").data == plain.data
    # A search starts from what another version of the compiler found.
    moved = change(log, other, compiler="0.0.0")
    again = build(tune=6, tuning_log=moved)
    best = min((r for r in lines(log) if r["cycles"]), key=lambda r: r["cycles"])["plan"]
    assert best in [r["plan"] for r in lines(moved)[COUNT:]]
    assert again.report["plan"]["cycles"] == tuned.report["plan"]["cycles"]


def test_plans_that_cannot_be_used_are_passed_over(build: Compile, tmp_path: Path) -> None:
    log, problems = tmp_path / "log.jsonl", list[Diagnostic]()
    tuned = build(tune=COUNT, tuning_log=log)
    record = lines(log)[0]
    groups = record["plan"]["groups"]
    wrong = [groups[:-1], [{**groups[0], "iterations": 10**9}, *groups[1:]], [*groups, *groups], [], [{**groups[0], "layers": []}, *groups]]
    made = [json.dumps({**record, "cycles": 1 + i, "plan": {"groups": g}}) for i, g in enumerate(wrong)]
    log.write_bytes("\n".join(made).encode() + b"\n" + log.read_bytes())
    assert build(tuning_log=log, warn=problems.append).data == tuned.data
    assert [p.code for p in problems] == ["GADL-P012"] * len(wrong)


def test_plans_without_place_are_recorded_as_failed(build: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation refuses a third of all plans: they are in the log with the reason, and never tried again."""
    simulate = NpuSpace.simulate

    def strict(space: NpuSpace, plan: Plan) -> float:
        if plan != space.initial() and int(plan.digest, 16) % 3 == 0:
            raise GadlError.of("GADL-P001", layer="conv", memory="sram", needed=2, capacity=1)
        return simulate(space, plan)

    monkeypatch.setattr(NpuSpace, "simulate", strict)
    log = tmp_path / "log.jsonl"
    made = build(tune=COUNT, tuning_log=log)
    failed = [r for r in lines(log) if r["cycles"] is None]
    assert failed and all("GADL-P001" in r["problem"] for r in failed)
    assert made.report["tune"]["failed"] == len(failed) and made.report["self_check"]["equal"]
    assert build(tune=COUNT, tuning_log=log).report["tune"]["measured"] == 0


def test_a_model_trained_again_keeps_its_records(build: Compile, tmp_path: Path) -> None:
    log, problems = tmp_path / "log.jsonl", list[Diagnostic]()
    build(tune=10, tuning_log=log)
    save_gir(network("again", seed=5), tmp_path / "again.gir")
    save_gir(network("wider", width=32), tmp_path / "wider.gir")
    again = build(tmp_path / "again.gir", tuning_log=log, warn=problems.append)
    assert not problems and again.report["self_check"]["equal"]
    build(tmp_path / "wider.gir", tuning_log=log, warn=problems.append)
    assert [p.code for p in problems] == ["GADL-P011"]


def test_seconds_and_the_default_log(build: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = build(tune="0.2s")
    assert made.report["tune"]["log"] == "net.tuning.jsonl" and lines(tmp_path / "net.tuning.jsonl")


@pytest.mark.parametrize("budget", ["", "0", "0s", "-5", "60x", "1e9s", "s", "nan", 0, -1])
def test_bad_budgets(build: Compile, budget: str | int) -> None:
    with pytest.raises(GadlError) as caught:
        build(tune=budget)
    assert caught.value.diagnostics[0].code == "GADL-U001" and caught.value.exit_code == 2


def test_a_log_that_cannot_be_written(build: Compile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "log.jsonl"):
        with pytest.raises(GadlError) as caught:
            build(tune=5, tuning_log=path)
        assert caught.value.diagnostics[0].code == "GADL-U004" and caught.value.exit_code == 2


def test_targets_without_a_space_say_so(model: Path, tmp_path: Path) -> None:
    from gadl.compiler.driver import compile

    assert "tune" not in compile(model, "cpu", tune=5, tuning_log=tmp_path / "log.jsonl").report
