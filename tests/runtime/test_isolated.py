# SPDX-License-Identifier: Apache-2.0
"""Devices in a process of their own: results, crashes, hangs, refusals. The CV18xx driver with and without its library."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cvi_standin import CONTAINER, SHAPE, build_standin, copy_artifact

import gadl
from gadl.compiler.artifact.writer import ArtifactBuilder
from gadl.compiler.diag import GadlError, Language, render
from gadl.runtime import cv18xx
from gadl.runtime.isolated import Remote
from gadl.runtime.session import Session, device_for

X = np.random.default_rng(0).integers(-128, 128, SHAPE).astype(np.int8)


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return build_standin(tmp_path / "cache", monkeypatch)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return copy_artifact(tmp_path / "copy.gadl")


def test_a_process_of_its_own_gives_the_same_as_this_one(standin: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cv18xx.LIBRARY_VARIABLE, str(standin))
    here, there = Session(artifact), Session(artifact, "cvi-cmodel")
    for session in (here, there, there):
        assert np.array_equal(session.run({"x": X})["y"], X)
    assert there.inputs == here.inputs and there.tensors == here.tensors and there.memory_bytes == here.memory_bytes
    assert np.array_equal(there.tensor(there.tensors[0]), X) and there.counters == here.counters
    assert [step[:2] for step in there.profile] == [step[:2] for step in here.profile]


@pytest.mark.parametrize(("how", "text"), [("abort", "SIGABRT"), ("exit", "exit status 3")])
def test_a_crash_is_an_error_that_says_what_the_library_said(
    standin: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch, how: str, text: str
) -> None:
    monkeypatch.setenv("CVI_STANDIN", how)
    session = Session(artifact, "cvi-cmodel")
    with pytest.raises(GadlError) as caught:
        session.run({"x": X})
    (found,) = caught.value.diagnostics
    assert found.code == "GADL-R010" and text in str(caught.value) and caught.value.exit_code == 4
    assert how != "abort" or "the stand-in was asked to" in str(caught.value)
    assert "进程已终止" in render(found, Language.ZH)


def test_a_hang_ends_at_the_limit(standin: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVI_STANDIN", "hang")
    session = Session(artifact, "cvi-cmodel", timeout_s=2)
    start = time.monotonic()
    with pytest.raises(GadlError, match="GADL-R011"):
        session.run({"x": X})
    assert 2 <= time.monotonic() - start < 20
    assert isinstance(session._context, Remote) and session._context._process.poll() is not None


@pytest.mark.parametrize(("how", "text"), [("refuse", "refuses the model, status 2"), ("fail", "reports status 7")])
def test_a_refusal_is_the_runtimes(standin: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch, how: str, text: str) -> None:
    monkeypatch.setenv("CVI_STANDIN", how)
    with pytest.raises(GadlError, match="GADL-R001.*" + text):
        Session(artifact, "cvi-cmodel").run({"x": X})


def test_the_process_ends_with_its_session(standin: Path, artifact: Path) -> None:
    session = Session(artifact, "cvi-cmodel")
    assert isinstance(session._context, Remote)
    process = session._context._process
    del session
    gc.collect()
    assert process.poll() is not None


def test_a_hanging_process_does_not_outlive_its_caller(standin: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVI_STANDIN", "hang")
    code = (
        "import os, sys, threading, numpy, gadl; s = gadl.load(sys.argv[1], 'cvi-cmodel');"
        "threading.Thread(target=s.run, args=({'x': numpy.zeros((1, 1, 16, 16), numpy.int8)},), daemon=True).start();"
        "import time; time.sleep(1); print(s._context._process.pid, flush=True); os._exit(0)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], env=environment, capture_output=True, text=True, check=True, timeout=60)
    process = Path("/proc") / done.stdout.strip()
    until = time.monotonic() + 10
    while process.exists() and "State:\tZ" not in (process / "status").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not process.exists() or "State:\tZ" in (process / "status").read_text()


def test_without_the_library_the_driver_says_what_to_do(artifact: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cv18xx.LIBRARY_VARIABLE, str(tmp_path / "nowhere.so"))
    with pytest.raises(GadlError, match=r"GADL-R001.*cannot be loaded.*gadl targets setup cv18xx"):
        gadl.load(artifact)
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(GadlError, match="GADL-R01[23]"):
        gadl.load(artifact, "cvi-cmodel")


def test_another_library_of_that_name_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch, standin: Path) -> None:
    monkeypatch.setenv(cv18xx.LIBRARY_VARIABLE, str(standin.parent / cv18xx.LIBRARIES[0]))
    with pytest.raises(GadlError, match="has no function CVI_NN_"):
        gadl.load(artifact)


def test_one_process_has_one_chip(standin: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cv18xx.LIBRARY_VARIABLE, str(standin))
    monkeypatch.setenv(cv18xx.CHIP_VARIABLE, "cv180x")  # as the first model leaves it
    with pytest.raises(GadlError, match="GADL-R001.*for cv181x, and the functional model of this process is a cv180x"):
        gadl.load(artifact)


def test_a_driver_that_is_not_built_in(artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "abacus.gadl"
    built = ArtifactBuilder({"driver": "abacus"})
    built.programs, built.plans = [b"ABACUS"], [""]
    path.write_bytes(built.to_bytes())
    with pytest.raises(GadlError, match="GADL-R017.*'abacus'"):
        gadl.load(path)


def test_only_artefacts_of_the_driver_run_there(standin: Path) -> None:
    with pytest.raises(GadlError, match="GADL-R002"):
        gadl.load(CONTAINER.with_name("small.gadl"), "cvi-cmodel")


@pytest.mark.parametrize("at", [0, 8, 12, 60, 100, 200, 300, -1, -65])
def test_a_damaged_container_is_refused_when_it_is_opened(tmp_path: Path, at: int) -> None:
    program = bytearray(CONTAINER.read_bytes())
    damaged = bytes(program[:at]) if at < 0 else bytes(program[: at + 1]).ljust(len(program), b"\xff")
    with pytest.raises(GadlError, match="GADL-A001"):
        gadl.load(copy_artifact(tmp_path / "bad.gadl", damaged))


def test_drivers_and_their_devices(standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert device_for("sim") == (None, None) and device_for("cvi") == ("cvi-cmodel", None)
    _, problem = device_for("abacus")
    assert problem is not None and problem.code == "GADL-R017"
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(tmp_path / "empty"))
    device, problem = device_for("cvi")
    assert device == "cvi-cmodel" and problem is not None and problem.code in ("GADL-R012", "GADL-R013")


@pytest.mark.skipif(cv18xx.missing() is not None, reason="the vendor's functional model is not set up (gadl targets setup cv18xx)")
@pytest.mark.parametrize("chip", ["cv180x", "cv181x"])
def test_the_functional_model_copies(tmp_path: Path, chip: str) -> None:
    program = CONTAINER.with_name(f"copy_{chip}.cvimodel").read_bytes()
    session = Session(copy_artifact(tmp_path / "copy.gadl", program), "cvi-cmodel")
    for seed in range(3):
        x = np.random.default_rng(seed).integers(-128, 128, SHAPE).astype(np.int8)
        assert np.array_equal(session.run({"x": x})["y"], x)
