# SPDX-License-Identifier: Apache-2.0
"""Reports: numbers that add up, traces that a device could have run, pages that need nothing else."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

import gadl
from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.cli.gadl import main as gadl_command
from gadl.compiler.cli.gadlc import main as gadlc_command
from gadl.compiler.diag import GadlError, Language
from gadl.compiler.diag.render import set_language
from gadl.compiler.driver import Artifact
from gadl.compiler.report import observe, write_report
from gadl.compiler.report.chrome import trace_json
from gadl.compiler.report.labels import labels
from gadl.compiler.report.measure import attribute, measure
from gadl.compiler.report.model import Limit, Performance, Spent
from gadl.compiler.report.page import MOST_BLOCKS, join_blocks, render_page
from gadl.compiler.report.score import agreement, spearman
from gadl.compiler.report.terminal import bar, plan_table
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.targets.npu import _sim
from gadl.targets.profile import BufferFacts, LayerFacts, MachineFacts, ProgramProfile, Role, Trace, Unit

#: A layer's name that would break out of a page, and looks like markup to a terminal.
EVIL = "evil</script><b>[bold]&"


def model() -> onnx.ModelProto:
    """Convolutions, a pooling, a residual sum, and a loop over the host (a softmax in the middle makes two segments)."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (16, 1, 3, 3), "w3": (8, 16, 1, 1)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w1"], ["b"], name=EVIL, pads=[1] * 4),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="depthwise", pads=[1] * 4, group=16),
        helper.make_node("Add", ["a", "c"], ["d"], name="sum"),
        helper.make_node("MaxPool", ["d"], ["e"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Softmax", ["e"], ["f"], name="softmax", axis=1),
        helper.make_node("Conv", ["f", "w3"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 16, 16])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    x = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)
    return gadl.compile(model(), target="npu", machine="edge", calibration=[{"x": x}])


@pytest.fixture(scope="module")
def seen(artifact: Artifact) -> tuple[Performance, list[ProgramProfile]]:
    performance, profiles = observe(ArtifactFile(artifact.data))
    assert performance is not None
    return performance, profiles


@pytest.fixture(params=list(Language), ids=lambda language: language.value)
def language(request: pytest.FixtureRequest) -> Iterator[Language]:
    set_language(request.param)
    yield request.param
    set_language(None)


def call(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])  # type: ignore[arg-type]


# --- the simulator's trace ---


def test_a_trace_changes_nothing_and_is_bounded(artifact: Artifact) -> None:
    for program in ArtifactFile(artifact.data).programs:
        plain = _sim.simulate(program, {}, functional=False, races=False)
        traced = _sim.simulate(program, {}, functional=False, races=False, trace=True)
        assert len(plain["trace"]) == 0 and traced["cycles"] == plain["cycles"] and traced["events_left_out"] == 0
        short = _sim.simulate(program, {}, functional=False, races=False, trace=True, most_events=3)
        assert len(short["trace"]) == 3 and short["events_left_out"] == len(traced["trace"]) - 3
        assert short["cycles"] == plain["cycles"]
        events = traced["trace"]
        assert int(events["bytes"].sum()) == plain["dram_read_bytes"] + plain["dram_write_bytes"]
        assert int(events["burst_bytes"].sum()) == plain["dram_burst_bytes"] and int(events["macs"].sum()) == plain["macs"]
        assert (events["end"] - events["start"] >= events["fixed"] + events["alone"] - 1e-6).all()
        assert float((events["end"] - events["start"]).sum()) == pytest.approx(sum(plain["busy"]))


def test_every_step_is_traced_once(artifact: Artifact, seen: tuple[Performance, list[ProgramProfile]]) -> None:
    steps = [np.sort(profile.trace.step) for profile in seen[1]]
    assert all((s == np.arange(len(s))).all() for s in steps)
    assert sum(map(len, steps)) == artifact.report["plan"]["steps"] == sum(y.steps for y in seen[0].layers)


# --- numbers ---


def test_numbers_add_up(artifact: Artifact, seen: tuple[Performance, list[ProgramProfile]]) -> None:
    performance, profiles = seen
    plan, total = artifact.report["plan"], performance.total
    assert len(profiles) == 2, "the softmax splits the model"
    assert total.measured_cycles == pytest.approx(sum(p.cycles for p in profiles))
    assert round(total.measured_cycles) == plan["cycles"] and total.macs == plan["macs"] and total.dram_bytes == plan["dram_bytes"]
    assert performance.sram_peak_bytes == plan["sram_peak_bytes"]
    assert total.bound_cycles == pytest.approx(plan["lbgeo_cycles"], abs=2)
    assert total.mac_utilisation == pytest.approx(plan["mac_utilisation"], abs=1e-4)
    for key in ("measured_cycles", "predicted_cycles", "macs", "dram_bytes"):
        assert sum(getattr(g, key) for g in performance.groups) == pytest.approx(getattr(total, key))
        for group in performance.groups:
            assert sum(getattr(y, key) for y in group.layers) == pytest.approx(getattr(group, key))
    for row in (total, *performance.groups, *performance.layers):
        assert sum(row.spent.values()) == pytest.approx(row.measured_cycles) and min(row.spent.values()) >= 0
        assert (row.limit is Limit.HIDDEN) == (row.measured_cycles < 0.5)
        assert sum(row.predicted.values()) == pytest.approx(row.predicted_cycles) and min(row.predicted.values()) >= 0
    assert total.predicted_cycles == pytest.approx(sum(p.predicted_cycles for p in profiles))
    estimates = [g.estimated_cycles for g in performance.groups]
    assert performance.estimate_agreement.count == len(estimates) and all(e is not None and e > 0 for e in estimates)
    assert {y.name for y in performance.layers} >= {"stem", EVIL, "depthwise", "pool", "head"}


def two_layers(*events: tuple[int, int, float, float, float, float]) -> ProgramProfile:
    """A run of two layers, as predicted. `events`: unit, layer, start, fixed, alone, end; units are load, array, vector unit, drain."""
    table = np.array(events)
    count = np.zeros(len(events), np.int64)
    trace = Trace(
        np.arange(len(events)), table[:, 0].astype(int), table[:, 1].astype(int), ("LD",) * len(events), count, count, count,
        table[:, 3], table[:, 4], table[:, 2], table[:, 5],
    )  # fmt: skip
    units = (Unit("LD0", Role.LOAD), Unit("MMA", Role.ARRAY), Unit("VEC", Role.VECTOR), Unit("EPI", Role.DRAIN))
    layers = tuple(LayerFacts(n, "conv", n, (1,), 0, {"array": 5.0}) for n in ("first", "second"))
    machine = MachineFacts("toy", 1000.0, 4.0, 8.0, 1024, 4)
    cycles, buffers = float(table[:, 5].max()), (BufferFacts("w", 0, 64, 0, len(events) - 1),)
    return ProgramProfile(machine, cycles, layers, buffers, units, trace, predicted=trace, predicted_cycles=cycles)


def spent(*events: tuple[int, int, float, float, float, float]) -> list[dict[str, float]]:
    """What the cycles of such a run went to, by layer; all of them went somewhere."""
    run = two_layers(*events)
    found = attribute(run.units, run.trace, run.cycles, 2)
    assert found.sum() == pytest.approx(run.cycles)
    return [dict(zip((kind.value for kind in Spent), row)) for row in found]


def test_each_cycle_goes_to_one_layer_and_cause() -> None:
    first, second = spent(
        (0, 1, 0, 4, 6, 10),  # load of the second layer: the first one's product is what waits until 12
        (1, 0, 10, 2, 10, 32),  # twice as long as alone
        (3, 0, 30, 0, 8, 40),  # its drain, two cycles of it behind the product; slowed
        (2, 1, 35, 1, 14, 50),  # the second layer's vector work, at first behind the drain
        (0, 1, 20, 0, 20, 45),  # its load, behind everything
        (0, 0, 52, 0, 1, 53),  # a transfer of the first layer, for which the second waits
        (1, 1, 55, 0, 5, 60),  # waits for four cycles more
    )
    assert first == pytest.approx({"array": 10, "banks": 10 + 1.6, "drain": 6.4, "vector": 0, "dram": 10, "waiting": 2})
    assert second == pytest.approx({"array": 5, "banks": 0, "drain": 0, "vector": 10, "dram": 1, "waiting": 4})


def test_transfers_of_a_layer_that_only_moves_data_are_its_work() -> None:
    first, second = spent((0, 0, 0, 5, 15, 20), (0, 1, 20, 2, 8, 30), (1, 1, 40, 0, 10, 50))
    assert first == pytest.approx(dict.fromkeys(first, 0) | {"dram": 20})
    assert second == pytest.approx(dict.fromkeys(second, 0) | {"dram": 10, "waiting": 10, "array": 10})
    # A load for the other layer stands back, as a load for one that computes does; what worked last has the end.
    first, second = spent((1, 1, 0, 0, 10, 10), (0, 1, 12, 0, 8, 20), (0, 0, 14, 0, 16, 30), (0, 1, 31, 0, 9, 40))
    assert first == pytest.approx(dict.fromkeys(first, 0) | {"dram": 18 + 9, "waiting": 2 + 1})
    assert second == pytest.approx(dict.fromkeys(second, 0) | {"array": 10})


def test_the_resource_at_work_is_the_limit() -> None:
    plan = Plan((GroupPlan((LayerPlan((0,)), LayerPlan((1,))), 2),))
    busy = measure([two_layers((1, 0, 0, 0, 70, 70), (0, 1, 70, 0, 30, 100))], [plan])
    assert busy is not None and busy.total.limit is Limit.MMA and busy.layers[1].limit is Limit.DRAM
    slowed = measure([two_layers((1, 0, 0, 0, 30, 70), (0, 1, 70, 0, 30, 100))], [plan])
    assert slowed is not None and slowed.total.limit is Limit.BANKS
    idle = measure([two_layers((1, 0, 0, 0, 10, 10), (2, 1, 10, 80, 10, 100))], [plan])
    assert idle is not None and idle.total.limit is Limit.WAITING
    hidden = measure([two_layers((1, 0, 0, 0, 90, 90), (0, 1, 0, 0, 30, 30))], [plan])
    assert hidden is not None and hidden.layers[1].limit is Limit.HIDDEN and hidden.layer_agreement.count == 1
    assert measure([], []) is None
    with pytest.raises(ValueError, match="layers"):
        measure([two_layers((1, 0, 0, 0, 10, 10))], [Plan((GroupPlan((LayerPlan((0,)),)),))])


def test_the_prediction_is_attributed_as_the_run_is() -> None:
    """Group and layer take what they take on either timeline; the scores compare these."""
    plan = Plan(tuple(GroupPlan((LayerPlan((i,)),)) for i in range(2)))
    run = two_layers((1, 0, 0, 0, 70, 80), (0, 1, 60, 0, 30, 100), (1, 1, 100, 0, 100, 200))
    run = dataclasses.replace(run, predicted=None)
    told = two_layers((1, 0, 0, 0, 72, 72), (0, 1, 60, 0, 30, 90), (1, 1, 90, 0, 108, 198))
    performance = measure([dataclasses.replace(run, predicted=told.trace, predicted_cycles=told.cycles)], [plan])
    assert performance is not None and performance.total.predicted_cycles == pytest.approx(198)
    assert [(g.measured_cycles, g.predicted_cycles) for g in performance.groups] == [pytest.approx((80, 72)), pytest.approx((120, 126))]
    assert performance.groups[1].predicted == pytest.approx({"array": 108, "banks": 0, "drain": 0, "vector": 0, "dram": 18, "waiting": 0})
    assert performance.group_agreement.median_relative_error == pytest.approx((8 / 80 + 6 / 120) / 2)
    assert performance.group_agreement.weighted_relative_error == pytest.approx(14 / 200)
    assert performance.estimate_agreement.count == 0, "nothing was estimated"
    guessed = measure([dataclasses.replace(run, estimated=(60.0, 180.0))], [plan])
    assert guessed is not None and guessed.group_agreement.count == 0 and [g.estimated_cycles for g in guessed.groups] == [60, 180]
    assert guessed.estimate_agreement.weighted_relative_error == pytest.approx(80 / 200)


def test_scores() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 400])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # Ties share ranks: ranks 0.5 0.5 2 3 against 0 1 2 3.
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486833)
    assert spearman(np.array([1.0]), np.array([1.0])) is None and spearman(np.ones(3), np.arange(3.0)) is None
    score = agreement([90, 100, 300, 7], [100, 100, 200, 0])
    assert score.count == 3 and score.median_relative_error == pytest.approx(0.1)
    assert score.weighted_relative_error == pytest.approx(110 / 400)
    assert agreement([], []).median_relative_error is None


# --- what is written ---


def test_trace_events_are_a_run(seen: tuple[Performance, list[ProgramProfile]]) -> None:
    performance, profiles = seen
    events = json.loads(trace_json(profiles))["traceEvents"]
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    blocks = [e for e in events if e["ph"] == "X"]
    assert len(blocks) == sum(y.steps for y in performance.layers) and {"MMA", "EPI", "ST"} <= set(threads.values())
    assert {e["name"] for e in blocks} <= {y.name for y in performance.layers}
    end_us = performance.total.measured_cycles / performance.device.clock_mhz
    queues: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for e in blocks:
        start, length = round(e["ts"] * 1000), round(e["dur"] * 1000)
        assert 0 <= start and 0 <= length and (start + length) / 1000 <= end_us + 0.001
        queues.setdefault((e["pid"], e["tid"]), []).append((start, start + length))
    assert set(queues) == set(threads)
    for spans in queues.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
    assert sum(e["args"].get("bytes", 0) for e in blocks) == performance.total.dram_bytes


def test_the_json_is_the_declaration(seen: tuple[Performance, list[ProgramProfile]]) -> None:
    performance, _ = seen
    plain = json.loads(json.dumps(performance.to_json(), allow_nan=False))
    assert plain["schema_version"] == 2 and set(plain) == {f.name for f in dataclasses.fields(Performance)}
    assert plain["groups"][0]["layers"][0]["limit"] in {limit.value for limit in Limit}
    for block in performance.sram:
        assert 0 <= block.address and block.address + block.size <= performance.device.sram_bytes
        assert 0 <= block.start <= block.end <= performance.total.measured_cycles + 1e-6


def test_the_page_stands_alone(
    artifact: Artifact, seen: tuple[Performance, list[ProgramProfile]], language: Language, tmp_path: Path
) -> None:
    report = dict(artifact.report)
    write_report(ArtifactFile(artifact.data), report, tmp_path / "report")
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.html", "report.json", "trace.json"}
    assert json.loads((tmp_path / "report" / "report.json").read_text()).keys() == artifact.report.keys() | {"performance"}
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:https?:)?//\w|\bsrc=|\bhref=|@import|url\(|\bfetch\(|XMLHttpRequest|<link|<iframe|</script><b>", page)
    assert page.count("<script") == page.count("</script>") == 2
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    data = json.loads(text)
    assert data["labels"] == labels(language)
    assert [y["name"] for g in data["data"]["groups"] for y in g["layers"]] == [y.name for y in seen[0].layers]
    assert f'lang="{"zh-CN" if language is Language.ZH else "en"}"' in page
    assert ("周期去向" in page) == (language is Language.ZH) and ("Where the cycles go" in page) == (language is Language.EN)
    assert "softmax" in page, "the op that stays on the host"
    lanes = data["data"]["lanes"]
    assert sum(len(lane["blocks"]) for lane in lanes) == 3 * sum(y.steps for y in seen[0].layers)
    for lane in lanes:
        gaps = np.array(lane["blocks"]).reshape(-1, 3)
        assert (gaps >= 0).all() and gaps[:, :2].sum() <= seen[0].total.measured_cycles + 1


def test_words_exist_for_everything() -> None:
    for chosen in Language:
        words = labels(chosen)
        assert all(words.values())
        for key in [f"limit.{x.value}" for x in Limit] + [f"verdict.{x.value}" for x in Limit] + [f"spent.{x.value}" for x in Spent]:
            assert words[key]
        template = (Path(gadl.__file__).parents[2] / "compiler/report/templates/report.html").read_text(encoding="utf-8")
        used = re.findall(r"\bwords\.(\w+)", template) + re.findall(r"\bW\.(\w+)", template)
        assert set(used) <= set(words)


def test_large_runs_give_small_pages(artifact: Artifact) -> None:
    count = 120_000
    rng = np.random.default_rng(0)
    start = np.cumsum(rng.integers(10, 40, count)).astype(float)
    layer = rng.integers(0, 2, count)
    events = [(i % 4, int(layer[i]), start[i], 0.0, 9.0, start[i] + 9) for i in range(count)]
    profile = two_layers(*events)
    plan = Plan((GroupPlan((LayerPlan((0,)), LayerPlan((1,))), 2),))
    performance = measure([profile], [plan])
    page = render_page(artifact.report, performance, [profile])
    lanes = json.loads(re.findall(r"application/json\">(.*?)</script>", page, re.DOTALL)[0])["data"]["lanes"]
    blocks = [np.array(lane["blocks"]).reshape(-1, 3) for lane in lanes]
    assert MOST_BLOCKS / 2 < sum(map(len, blocks)) <= MOST_BLOCKS + len(lanes) and len(page) < 2 << 20
    assert all(int(b[:, 1].sum()) == 9 * count // 4 for b in blocks), "time at work is kept"
    few = np.array([[0, 5, 0], [6, 9, 0], [9, 12, 1], [30, 40, 1], [41, 43, 2], [44, 47, 2]])
    assert join_blocks(few, 20).tolist() == [[0, 11, 0], [30, 40, 1], [41, 46, 2]]
    assert join_blocks(few, 1).tolist() == few.tolist()


# --- commands ---


def test_inspect_prints_every_layer(artifact: Artifact, seen: tuple[Performance, list[ProgramProfile]], tmp_path: Path) -> None:
    artifact.save(tmp_path / "net.gadl")
    for lang, word in (("en", "Limited by"), ("zh", "受限于")):
        result = call(gadl_command, "inspect", tmp_path / "net.gadl", "--plan", "--lang", lang)
        assert result.exit_code == 0 and word in result.stdout, result.output
        for layer in seen[0].layers:
            assert layer.name in result.stdout
        assert f"{seen[0].total.measured_cycles:,.0f}" in result.stdout
    plain = json.loads(call(gadl_command, "inspect", tmp_path / "net.gadl", "--plan", "--json").stdout)
    assert len(plain["plans"]) == 2 and plain["performance"] == seen[0].to_json()


def test_a_target_without_an_analytic_model_has_no_prediction() -> None:
    bare = dataclasses.replace(two_layers((1, 0, 0, 0, 70, 70), (0, 1, 70, 0, 30, 100)), predicted=None)
    performance = measure([bare], [Plan((GroupPlan((LayerPlan((0,)), LayerPlan((1,))), 2),))])
    assert performance is not None and performance.layer_agreement.median_relative_error is None
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table(performance))
    assert "first" in (text := console.export_text()) and "-100" not in text


def test_bars_keep_their_length() -> None:
    assert bar({"array": 1, "dram": 1, "waiting": 0}, 2).plain == "█" * 16
    assert len(bar({"array": 0.3, "dram": 0.3}, 1.2).plain) == 8 and bar({"array": 0}, 0).plain == ""


def test_a_target_without_a_simulator_still_has_a_page(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "net.onnx")
    result = call(gadlc_command, tmp_path / "net.onnx", "--target", "cpu", "-o", tmp_path / "net.gadl", "--report", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "r").iterdir()} == {"report.html", "report.json"}
    assert json.loads((tmp_path / "r" / "report.json").read_text())["performance"] is None
    assert labels()["no_device"] in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert call(gadl_command, "inspect", tmp_path / "net.gadl", "--plan").stdout.strip() == labels()["no_device"]


def test_a_compilation_without_a_report_is_not_traced(artifact: Artifact) -> None:
    assert "performance" not in artifact.report


def test_damaged_programs_are_named(artifact: Artifact) -> None:
    file = ArtifactFile(artifact.data, "net.gadl")
    at, size = file.sections["program", 0]
    for old, new in ((b'"buffers":{"names":["', b'"buffers":{"nemes":["'), (b'"layers":[{', b'"lawers":[{')):
        data = bytearray(artifact.data)
        found = data.index(old, at, at + size)
        data[found : found + len(old)] = new
        broken = ArtifactFile(bytes(data), "net.gadl")
        broken._checksums = {key: zlib.crc32(data[a : a + n]) for key, (a, n) in broken.sections.items()}
        with pytest.raises(GadlError, match="A001"):
            observe(broken)
