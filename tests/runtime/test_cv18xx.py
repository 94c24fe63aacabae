# SPDX-License-Identifier: Apache-2.0
"""Fetching the vendor's functional model: what is kept, and every way in which it can fail."""

from __future__ import annotations

import hashlib
import platform
import zipfile
from pathlib import Path

import pytest

from gadl.compiler.diag import GadlError, Language, render
from gadl.runtime import cv18xx
from gadl.runtime.devices import DEVICES, device_of_target


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on the right machine."""
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(cv18xx.WHEEL_VARIABLE, raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A file of the wheel's form, whose checksum is another."""
    path = tmp_path / "tpu_mlir.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*cv18xx.LIBRARIES, "libstdc++.so.6"):
            archive.writestr(f"tpu_mlir/lib/{name}", name)
        archive.writestr("tpu_mlir-1.30.2.dist-info/licenses/LICENSE", "terms")
    return path


def test_the_libraries_and_the_licence_alone_are_kept(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cv18xx.missing()
    assert problem is not None and problem.code == "GADL-R012" and "gadl targets setup cv18xx" in render(problem)
    monkeypatch.setenv(cv18xx.WHEEL_VARIABLE, str(wheel))
    monkeypatch.setattr(cv18xx, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    folder = cv18xx.fetch()
    assert cv18xx.missing() is None and folder == cv18xx.folder()
    assert {p.name for p in folder.iterdir()} == {*cv18xx.LIBRARIES, cv18xx.LICENCE}
    assert (folder / "libcviruntime.so").read_text() == "libcviruntime.so" and [p.name for p in cache.iterdir()] == [folder.name]
    wheel.unlink()
    assert cv18xx.fetch() == folder  # what is there is not fetched again


def test_a_part_that_is_lost_is_fetched_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cv18xx.WHEEL_VARIABLE, str(wheel))
    monkeypatch.setattr(cv18xx, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    (cv18xx.fetch() / "libcvicmodel.so").unlink()
    problem = cv18xx.missing()
    assert problem is not None and problem.values["files"] == ["libcvicmodel.so"]
    cv18xx.fetch()
    assert cv18xx.missing() is None


def test_another_wheel_is_refused_and_leaves_nothing(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cv18xx.WHEEL_VARIABLE, str(wheel))
    with pytest.raises(GadlError, match=f"GADL-R015.*{cv18xx.SHA256}"):
        cv18xx.fetch()
    assert list(cache.iterdir()) == []


def test_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    with pytest.raises(GadlError, match="GADL-R014.*No matching distribution") as caught:
        cv18xx.fetch()
    assert caught.value.exit_code == 4 and cv18xx.WHEEL_VARIABLE in str(caught.value)
    assert "无法获取" in render(caught.value.diagnostics[0], Language.ZH)
    assert list(cache.iterdir()) == []


def test_a_wheel_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cv18xx.WHEEL_VARIABLE, str(tmp_path / "nowhere.whl"))
    with pytest.raises(GadlError, match="GADL-R014.*nowhere.whl"):
        cv18xx.fetch()


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    monkeypatch.setenv(cv18xx.CACHE_VARIABLE, str(wheel))  # a file
    with pytest.raises(GadlError, match="GADL-R014"):
        cv18xx.fetch()


def test_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(GadlError, match="GADL-R013.*Linux riscv64"):
        cv18xx.fetch()
    problem = cv18xx.missing()
    assert problem is not None and problem.code == "GADL-R013"


def test_devices_by_the_names_that_people_give() -> None:
    assert {device_of_target(name) for name in ("cv18xx", "cv180x", "cv181x")} == {DEVICES["cvi-cmodel"]}
    assert device_of_target("npu") is None


def test_the_chip_stands_in_the_container() -> None:
    program = (Path(__file__).parents[1] / "data" / "copy_cv181x.cvimodel").read_bytes()
    assert cv18xx.environment(program)[cv18xx.CHIP_VARIABLE] == "cv181x"
