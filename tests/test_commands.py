# SPDX-License-Identifier: Apache-2.0
"""The commands as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from gadl.compiler.cli.gadl import main as gadl_command
from gadl.compiler.cli.gadlc import main as gadlc_command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((6, 3, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["a"], ["y"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6, 8, 8])], [w],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((4, 3, 8, 8)).astype(np.float32))
    np.savez(tmp_path / "in.npz", x=rng.standard_normal((1, 3, 8, 8)).astype(np.float32))
    return path


def call(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])  # type: ignore[arg-type]


def test_compile_run_bench_inspect_compare(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.gadl"
    shape = ("--shape", "x:1,3,8,8", "--calib", tmp_path / "calib.npz", "-o", out)
    result = call(gadlc_command, model, "--target", "npu", *shape, "--keep-tensors", "--json", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["self_check"]["equal"] and report["artifact"]["path"] == str(out)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    assert call(gadl_command, "run", out, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz").exit_code == 0
    assert np.load(tmp_path / "out.npz")["y"].shape == (1, 6, 8, 8)
    bench = call(gadl_command, "bench", out, "--runs", 2, "--json")
    assert json.loads(bench.stdout)["cycles"] == pytest.approx(report["plan"]["cycles"], abs=1)
    assert "MMA_CONV@MMA" in call(gadl_command, "inspect", out, "--asm").stdout
    assert "groups" in call(gadl_command, "inspect", out, "--plan").stdout
    compared = call(gadl_command, "compare", model, out, "--input", tmp_path / "in.npz", "--json")
    assert compared.exit_code == 0, compared.output
    found = json.loads(compared.stdout)
    assert found["differing_elements"] == 0 and found["layers"][-1]["sqnr_db"] > 25


def test_open_dimension_names_the_flag(model: Path) -> None:
    result = call(gadlc_command, model)
    assert result.exit_code == 3 and "GADL-F003" in result.output and "--shape x:1,3,8,8" in result.output
    chinese = call(gadlc_command, model, "--lang", "zh")
    assert "错误[GADL-F003]" in chinese.output and "办法" in chinese.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("missing.onnx",), 3, "GADL-F001"),
        (("MODEL", "--shape", "nonsense"), 2, "GADL-U001"),
        (("MODEL", "--shape", "x:1,3,8,8", "--target", "abacus"), 2, "GADL-T001"),
        (("MODEL", "--shape", "x:1,3,8,8"), 2, "GADL-Q001"),
        (("MODEL", "--shape", "x:1,3,8,8", "--stop-after", "abacus"), 2, "fuse_activation"),
        (("MODEL", "--shape", "x:1,3,8,8", "--tune", "--budget", "soon"), 2, "GADL-U001"),
        (("MODEL", "--shape", "x:1,3,8,8", "--budget", "60s", "--seed", "1"), 2, "--budget, --seed"),
        (("MODEL", "--shape", "x:1,3,8,8", "--calib", "nowhere"), 2, "GADL-Q010"),
        (("MODEL", "--shape", "x:1,3,8,8", "--machine", "abacus", "--precision", "fp16"), 2, "GADL-T010"),
    ],
)
def test_exit_codes(model: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = call(gadlc_command, *(model if a == "MODEL" else a for a in arguments))
    assert result.exit_code == code and text in result.output and "Traceback" not in result.output


def test_tune_and_replay(model: Path, tmp_path: Path) -> None:
    log, tuned, replayed = (tmp_path / name for name in ("net.jsonl", "tuned.gadl", "replayed.gadl"))
    shape = (model, "--shape", "x:1,3,8,8", "--calib", tmp_path / "calib.npz", "--tuning-log", log)
    result = call(gadlc_command, *shape, "-o", tuned, "--tune", "--budget", 12, "--jobs", 1)
    assert result.exit_code == 0 and "plans measured" in result.stdout and len(log.read_text().splitlines()) <= 12, result.output
    again = call(gadlc_command, *shape, "-o", replayed, "--json")
    assert json.loads(again.stdout)["tune"]["log"] == str(log) and tuned.read_bytes() == replayed.read_bytes()
    log.write_text("{}\n")
    missing = call(gadlc_command, *shape, "-o", replayed, "--lang", "zh")
    assert missing.exit_code == 0 and "警告[GADL-P010]" in missing.output and f"{log}:1" in missing.output and "GADL-P011" in missing.output


def test_nothing_half_written_is_left(model: Path, tmp_path: Path) -> None:
    before = {p.name for p in tmp_path.iterdir()}
    call(gadlc_command, model, "-o", tmp_path / "x.gadl")
    assert {p.name for p in tmp_path.iterdir()} == before


def test_dump_and_stop(model: Path, tmp_path: Path) -> None:
    result = call(gadlc_command, model, "--shape", "x:1,3,8,8", "--dump-ir", tmp_path / "ir", "--stop-after", "fuse_activation")
    assert result.exit_code == 0 and "clamp = (0.0, inf)" in result.stdout
    dumps = sorted(p.name for p in (tmp_path / "ir").iterdir())
    assert dumps[0] == "00_import.gir"
    again = call(gadlc_command, tmp_path / "ir" / dumps[0], "--precision", "fp16", "-o", tmp_path / "again.gadl")
    assert again.exit_code == 0, again.output


def test_small_commands() -> None:
    assert "npu" in call(gadl_command, "targets", "--ops").stdout
    assert call(gadl_command, "doctor").exit_code == 0
    assert "--shape" in call(gadl_command, "explain", "GADL-F003").stdout
    assert call(gadl_command, "explain", "GADL-F999").exit_code == 2
    assert len(call(gadl_command, "explain", "--lang", "zh").stdout.splitlines()) > 20
