# SPDX-License-Identifier: Apache-2.0
"""The CV18xx vendor's functional model, as a device.

Three libraries of one pinned wheel of the vendor's compiler: kernels, functional model, runtime. They are fetched with pip into a
cache when the user asks for it, and nothing else of the wheel is unpacked. Compilation needs none of them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

DEVICE, FAMILY = "cvi-cmodel", "cv18xx"
PACKAGE, VERSION = "tpu_mlir", "1.30.2"
SHA256 = "542807361c9eeb0777a7bd35e501d8c71cce767e4bce021a3cb3a7c25c35f909"
LIBRARIES = ("libcvikernel.so", "libcvicmodel.so", "libcviruntime.so")
LICENCE = "LICENSE"
#: Where the libraries are kept; a wheel to take them from instead of the package index.
CACHE_VARIABLE, WHEEL_VARIABLE = "GADL_CV18XX_CACHE", "GADL_CV18XX_WHEEL"
#: Where the driver looks for the vendor's runtime (csrc/drivers/cvi).
LIBRARY_VARIABLE = "GADL_CVI_LIBRARY"
#: Which chip the functional model is; a container names its own at this place.
CHIP_VARIABLE, CHIP_AT, CHIP_BYTES = "SET_CHIP_NAME", 30, 16
DOWNLOAD_LIMIT_S = 1800


def folder() -> Path:
    """Where the libraries of the pinned version are, or would be."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        root = Path(named)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opengadl" / "cv18xx"
    return root / f"{PACKAGE}-{VERSION}"


def missing() -> Diagnostic | None:
    """Why the functional model cannot run here (`GADL-R012`, `GADL-R013`), or None when it can."""
    here = f"{platform.system()} {platform.machine()}"
    if here != "Linux x86_64":
        return diagnostic("GADL-R013", machine=here)
    absent = [name for name in LIBRARIES if not (folder() / name).is_file()]
    return diagnostic("GADL-R012", device=DEVICE, files=absent, folder=folder(), family=FAMILY) if absent else None


def environment(program: bytes) -> dict[str, str]:
    """What a process needs to run a container on the functional model of its chip."""
    chip = program[CHIP_AT : CHIP_AT + CHIP_BYTES].split(b"\0")[0].decode("ascii", "replace")
    return {LIBRARY_VARIABLE: str(folder()), CHIP_VARIABLE: chip}


def fetch() -> Path:
    """Fill the cache, unless it is filled; its folder.

    Raises `GadlError`: `GADL-R013` on another machine, `GADL-R014` without the wheel, `GADL-R015` when it is not the pinned one.
    """
    problem = missing()
    if problem is not None and problem.code != "GADL-R012":
        raise GadlError(problem)
    place = folder()
    if problem is None:
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=place.parent) as scratch:
            named = os.environ.get(WHEEL_VARIABLE)
            wheel = Path(named) if named else _download(Path(scratch))
            _check(wheel)
            _unpack(wheel, Path(scratch) / place.name, place)
    except OSError as error:
        raise GadlError.of("GADL-R014", package=f"{PACKAGE}=={VERSION}", detail=str(error), variable=WHEEL_VARIABLE) from None
    return place


def _download(scratch: Path) -> Path:
    """The wheel, from the package index that pip is set up for."""
    wanted = f"{PACKAGE}=={VERSION}"
    # The wheel holds native libraries only as far as we are concerned, so any Python will do.
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.10", "--disable-pip-version-check", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_LIMIT_S)
        found, said = sorted(scratch.glob("*.whl")), done.stderr.strip()
    except subprocess.TimeoutExpired:
        found, said = [], f"pip did not finish within {DOWNLOAD_LIMIT_S} s"
    if not found:
        detail = said.splitlines()[-1] if said else "pip found no wheel"
        raise GadlError.of("GADL-R014", package=wanted, detail=detail, variable=WHEEL_VARIABLE)
    return found[0]


def _check(wheel: Path) -> None:
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != SHA256:
        raise GadlError.of("GADL-R015", wheel, found=digest.hexdigest(), expected=SHA256)


def _unpack(wheel: Path, scratch: Path, place: Path) -> None:
    """The libraries and the licence, whole or not at all."""
    scratch.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in LIBRARIES:
            (scratch / name).write_bytes(archive.read(f"{PACKAGE}/lib/{name}"))
        licence = next(n for n in archive.namelist() if ".dist-info/" in n and n.endswith(LICENCE))
        (scratch / LICENCE).write_bytes(archive.read(licence))
    shutil.rmtree(place, ignore_errors=True)
    try:
        scratch.rename(place)
    except OSError:
        if missing() is not None:  # else another process was faster
            raise
