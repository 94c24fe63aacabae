# SPDX-License-Identifier: Apache-2.0
"""Containers as they are: `gadl run`, `bench`, and what a self-check says that cannot run."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

import gadl
import gadl.compiler.cli.gadlc as gadlc
import gadl.compiler.driver as driver
from gadl.compiler.artifact.format import Feature
from gadl.compiler.cli.gadl import main as gadl_command
from gadl.compiler.diag import GadlError, Language
from gadl.compiler.diag.render import set_language
from gadl.compiler.registry import target
from gadl.compiler.session import open_session
from gadl.runtime import cv18xx
from gadl.targets.base import ConstraintTable, DeviceProgram, Segment
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


def test_a_self_check_without_its_driver_says_so(copying: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = replace(driver.find_target("copying"), driver="abacus")
    monkeypatch.setattr(driver, "find_target", lambda name: known)
    check = gadl.compile(copying, target="copying", calibration=FLAT).report["self_check"]
    assert check["equal"] is None and check["not_run"] == "this runtime has no driver 'abacus'"
    alone = replace(known, device_ops=frozenset())
    monkeypatch.setattr(driver, "find_target", lambda name: alone)  # all on the host: no device is needed
    assert gadl.compile(copying, target="copying", calibration=FLAT).report["self_check"]["equal"] is True


class CopyBackend:
    """Every segment is the copying container."""

    def __init__(self, machine: Any) -> None: ...

    def compile(self, segment: Segment, *, groups: bool = True) -> DeviceProgram:
        return DeviceProgram(CONTAINER.read_bytes(), plan="", report={})


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model that a device of the driver `cvi` can run which only copies; `gadl.compile` knows its target as `copying`."""
    known = replace(
        target("npu"), name="copying", driver="cvi", device_ops=frozenset({"reshape"}), channels_last=frozenset(), constraints=ConstraintTable(),
        backend=CopyBackend, streaming=None, space=None, features=Feature.NONE,
    )  # fmt: skip
    monkeypatch.setattr(driver, "find_target", lambda name: known)
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)], [numpy_helper.from_array(np.array(SHAPE, np.int64), "shape")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


FLAT = [{"x": X.reshape(1, 256)}]


def test_a_compilation_checks_itself_on_the_device(standin: Path, copying: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gadl.compile(copying, target="copying", calibration=FLAT, keep_tensors=True)
    assert made.report["self_check"]["equal"] is True and made.report["placement"]["copying"] == 1
    made.save(copying.with_suffix(".gadl"))
    np.savez(copying.with_suffix(".npz"), **FLAT[0])
    result = call("compare", copying, copying.with_suffix(".gadl"), "--device", "cvi-cmodel", "--input", copying.with_suffix(".npz"), "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["differing_elements"] == 0, result.output
    monkeypatch.setenv("CVI_STANDIN", "abort")
    with pytest.raises(GadlError, match="GADL-R010"):
        gadl.compile(copying, target="copying", calibration=FLAT)


def test_a_device_that_computes_something_else_fails_the_check(standin: Path, copying: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVI_STANDIN", "wrong")
    with pytest.raises(GadlError, match="GADL-P003"):
        gadl.compile(copying, target="copying", calibration=FLAT)


def test_a_compilation_without_the_device_says_so(copying: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    made = gadl.compile(copying, target="copying", calibration=FLAT)
    check = made.report["self_check"]
    assert check["equal"] is None and "'cvi-cmodel' is not set up" in check["not_run"]
    monkeypatch.setattr(gadlc, "target", driver.find_target)
    for language, words in ((Language.EN, "check      not run: device"), (Language.ZH, "自检       未运行：")):
        set_language(language)
        assert any(words in line for line in gadlc.summary(made))
    set_language(None)


@pytest.mark.skipif(cv18xx.missing() is not None, reason="the vendor's functional model is not set up (gadl targets setup cv18xx)")
def test_a_compilation_checks_itself_on_the_functional_model(copying: Path) -> None:
    assert gadl.compile(copying, target="copying", calibration=FLAT).report["self_check"]["equal"] is True


def _chip() -> Chip:
    return CHIPS["cv181x"]


def _stream() -> bytes:
    return decode(CONTAINER.read_bytes()).data[-1]
