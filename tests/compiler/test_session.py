# SPDX-License-Identifier: Apache-2.0
"""Containers as they are: `gadl run`, `bench`, and what a self-check says that cannot run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

import gadl
from gadl.compiler.cli.gadl import main as gadl_command
from gadl.compiler.cli.gadlc import summary
from gadl.compiler.diag import GadlError, Language
from gadl.compiler.diag.render import set_language
from gadl.compiler.registry import target
from gadl.compiler.session import open_session
from gadl.runtime import cv18xx
from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.cvimodel import DataType, Port, build, decode, place_ports

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from cvi_standin import CONTAINER, SHAPE, build_standin

X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32) * 40


def call(*arguments: object) -> Result:
    return CliRunner().invoke(gadl_command, [str(a) for a in arguments])


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return build_standin(tmp_path / "cache", monkeypatch)


@pytest.mark.parametrize("chip", ["cv180x", "cv181x"])
def test_run_takes_floats_and_integers(chip: str, standin: Path, tmp_path: Path) -> None:
    container = CONTAINER.with_name(f"copy_{chip}.cvimodel")
    whole = np.clip(np.rint(X / 0.5), -128, 127).astype(np.int8)
    for given in (X, whole, X.reshape(1, 1, 16, 16)):
        np.savez(tmp_path / "in.npz", x=given)
        for raw in (True, False):
            result = call("run", container, "--device", "cvi-cmodel", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", *["--raw"] * raw)
            assert result.exit_code == 0, result.output
            got = np.load(tmp_path / "out.npz")["y"]
            assert got.dtype == (np.int8 if raw else np.float32) and np.array_equal(got, whole if raw else whole * np.float32(0.5))
    bench = call("bench", container, "--device", "cvi-cmodel", "--runs", 3, "--json")
    assert json.loads(bench.stdout)["device"] == "cvi-cmodel"


def test_a_crash_ends_the_command_with_the_code_of_a_device(standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "in.npz", x=X)
    for how, code in (("abort", "GADL-R010"), ("hang", "GADL-R011"), ("refuse", "GADL-R001")):
        monkeypatch.setenv("CVI_STANDIN", how)
        result = call("run", CONTAINER, "--device", "cvi-cmodel", "--input", tmp_path / "in.npz", "--timeout", 2)
        assert result.exit_code == 4 and code in result.output and "Traceback" not in result.output
    assert str(CONTAINER) in result.output


def test_inputs_are_checked(standin: Path) -> None:
    session = open_session(CONTAINER, "cvi-cmodel")
    for feeds in ({}, {"x": X[..., :8]}, {"x": X, "z": X}, {"x": X.astype(np.complex64)}):
        with pytest.raises(GadlError, match="GADL-I010"):
            session.run(feeds)


def test_shapes_are_filled_up_with_ones(standin: Path) -> None:
    inputs, outputs, _ = place_ports([Port("x", (1, 256), 0.5)], [Port("y", (1, 256), 0.5)], 0)
    code = build(_chip(), "flat", b"", [_stream()], inputs, outputs).encode()
    path = standin.parent / "flat.cvimodel"
    path.write_bytes(code)
    flat = X.reshape(1, 256)
    assert np.array_equal(open_session(path, "cvi-cmodel").run({"x": flat})["y"].reshape(-1), np.clip(np.rint(flat[0] * 2), -128, 127) / 2)


def test_qscale_is_what_applications_multiply_by(standin: Path) -> None:
    inputs, outputs, _ = place_ports([Port("x", SHAPE, 0.1)], [Port("y", SHAPE, 0.3)], 0)
    model = build(_chip(), "scaled", b"", [_stream()], inputs, outputs)
    factors = [tensor.quant.qscale for tensor in model.model.programs[0].tensors if tensor.quant is not None]
    assert factors == [pytest.approx(10), 0.3]
    path = standin.parent / "scaled.cvimodel"
    path.write_bytes(model.encode())
    session = open_session(path, "cvi-cmodel")
    assert session.inputs[0].scales == (pytest.approx(0.1),) and session.outputs[0].scales == (pytest.approx(0.3),)
    whole = np.clip(np.rint(X * np.float32(10)), -128, 127).astype(np.int8)
    assert np.array_equal(session.run({"x": X}, raw=True)["y"], whole) and np.array_equal(session.run({"x": X})["y"], whole * np.float32(0.3))


def test_files_that_cannot_be_run(tmp_path: Path, standin: Path) -> None:
    with pytest.raises(GadlError, match="GADL-A001"):
        open_session(tmp_path / "nowhere.cvimodel")
    broken = tmp_path / "broken.cvimodel"
    broken.write_bytes(CONTAINER.read_bytes()[:300])
    with pytest.raises(GadlError, match="GADL-A010"):
        open_session(broken, "cvi-cmodel")
    inputs, outputs, _ = place_ports([Port("x", (1, 4), 1.0, DataType.UINT16)], [Port("y", (1, 4), 1.0)], 0)
    broken.write_bytes(build(_chip(), "odd", b"", [_stream()], inputs, outputs).encode())
    with pytest.raises(GadlError, match="GADL-A010.*'x'"):
        open_session(broken, "cvi-cmodel")


def test_setup_says_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, standin: Path) -> None:
    assert str(cv18xx.folder()) in call("targets", "setup", "cv181x").stdout  # the stand-in is there already
    assert f"cvi-cmodel the vendor's functional model of the CV18xx: {cv18xx.folder()}" in call("targets").stdout
    assert call("targets", "setup", "abacus").exit_code == 2
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setenv(cv18xx.WHEEL_VARIABLE, str(tmp_path / "nowhere.whl"))
    assert "not set up" in call("doctor").stdout and call("doctor").exit_code == 0
    assert "尚未就绪" in call("targets", "--lang", "zh").stdout
    result = call("targets", "setup", "cv18xx")
    assert result.exit_code == 4 and "GADL-R01" in result.output and "Traceback" not in result.output


def test_a_self_check_without_its_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a target whose driver is not part of this runtime."""
    from dataclasses import replace

    import gadl.compiler.driver as driver

    monkeypatch.setattr(driver, "find_target", lambda name: replace(target(name), driver="abacus"))
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
    )  # fmt: skip
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made = gadl.compile(model, target="npu", precision="fp16")
    check = made.report["self_check"]
    assert check["equal"] is None and check["not_run"] == "this runtime has no driver 'abacus'"
    made.report["artifact"]["path"] = "net.gadl"
    for language, words in ((Language.EN, "not run: this runtime"), (Language.ZH, "未运行：this runtime")):
        set_language(language)
        assert any(words in line for line in summary(made))
    set_language(None)
    alone = gadl.compile(model, target="cpu", precision="float")
    assert alone.report["self_check"]["equal"] is True  # all on the host: no device is needed


def _chip() -> Chip:
    return CHIPS["cv181x"]


def _stream() -> bytes:
    return decode(CONTAINER.read_bytes()).data[-1]
