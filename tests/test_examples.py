# SPDX-License-Identifier: Apache-2.0
"""The runtime installs, and small applications build against it through CMake and pkg-config and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests" / "data" / "small.gadl"


def sh(*command: object, env: dict[str, str] | None = None) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, env=env).stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed runtime, with the example of a driver."""
    folder = tmp_path_factory.mktemp("native")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = ("-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_INSTALL_PREFIX={folder / 'prefix'}", f"-DGADL_EXTRA_DRIVERS={ROOT / 'examples' / 'driver' / 'loop'}")
    sh("cmake", "-S", ROOT, "-B", folder / "build", *generator, *options)
    sh("cmake", "--build", folder / "build", "--parallel", "2")
    sh("cmake", "--install", folder / "build")
    return folder / "prefix"


@pytest.mark.parametrize("link", ["shared", "static"])
def test_the_c_example_builds_with_cmake_and_runs(link: str, prefix: Path, tmp_path: Path) -> None:
    sh("cmake", "-S", ROOT / "examples" / "c", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", f"-DGADL_LINK={link}")
    sh("cmake", "--build", tmp_path)
    feed = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
    (tmp_path / "in.bin").write_bytes(feed.tobytes())
    import gadl

    (want,) = gadl.load(MODEL).run({"x": feed}).values()
    said = sh(tmp_path / "classify", MODEL, tmp_path / "in.bin")
    assert said.startswith(f"y[{int(want.argmax())}] = ")
    (tmp_path / "short.bin").write_bytes(b"123")
    assert subprocess.run([tmp_path / "classify", MODEL, tmp_path / "short.bin"], capture_output=True).returncode == 1


def test_the_cpp_example_builds_with_pkg_config_and_runs(prefix: Path, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    library = next(p.parent for p in prefix.rglob("libgadl.so"))
    env = {**os.environ, "PKG_CONFIG_PATH": str(library / "pkgconfig"), "LD_LIBRARY_PATH": str(library)}
    flags = sh("pkg-config", "--cflags", "--libs", "gadl", env=env).split()
    sh("g++", "-std=c++17", ROOT / "examples" / "cpp" / "run.cpp", "-o", tmp_path / "run", *flags)
    said = sh(tmp_path / "run", MODEL, env=env)
    assert "input x: 432 bytes" in said and "device cycles" in said


def test_the_application_for_the_board_runs_a_container(tmp_path: Path) -> None:
    """With a stand-in for the vendor's runtime, and against our declarations of it."""
    application, declarations = ROOT / "examples" / "board" / "cv18xx" / "run_cvimodel.c", ROOT / "csrc" / "drivers" / "cvi"
    sh("cc", "-shared", "-fPIC", ROOT / "csrc" / "tests" / "cvi_standin.c", "-o", tmp_path / "libcviruntime.so")
    flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{declarations}")
    sh("cc", *flags, application, f"-L{tmp_path}", "-lcviruntime", f"-Wl,-rpath,{tmp_path}", "-o", tmp_path / "run_cvimodel")
    data = np.random.default_rng(0).integers(-128, 128, 256).astype(np.int8)
    data.tofile(tmp_path / "x.bin")
    container = ROOT / "tests" / "data" / "copy_cv181x.cvimodel"
    said = sh(tmp_path / "run_cvimodel", "-n", 5, "-o", tmp_path, container, tmp_path / "x.bin")
    assert (tmp_path / "0.bin").read_bytes() == data.tobytes()
    assert "input 0 x: int8[1,1,16,16] 256 bytes, qscale 0.5" in said and f"y: min {data.min() / 2:g} max {data.max() / 2:g}" in said
    assert f"[{int(data.argmax())}]={data.max() / 2:g}" in said and "5 runs: min" in said
    (tmp_path / "short.bin").write_bytes(b"123")
    for arguments in ((container, tmp_path / "short.bin"), (MODEL,), (tmp_path / "nowhere",)):
        assert subprocess.run([tmp_path / "run_cvimodel", *arguments], capture_output=True).returncode == 1


def test_the_example_of_a_driver_conforms(prefix: Path, tmp_path: Path) -> None:
    library = next(p.parent for p in prefix.rglob("libgadl.so"))
    (tmp_path / "copy.loop").write_bytes(b"LOOP" + (256).to_bytes(4, "little"))
    source = ROOT / "csrc" / "tests" / "conformance.cpp"
    sh("g++", "-std=c++17", source, "-o", tmp_path / "conformance", f"-I{prefix / 'include'}", f"-L{library}", "-lgadl", f"-Wl,-rpath,{library}")
    assert "0 failures" in sh(tmp_path / "conformance", "loop", tmp_path / "copy.loop", "host", ROOT / "tests" / "data" / "copy.gadl")
