# SPDX-License-Identifier: Apache-2.0
"""Builds the extension modules through the root CMakeLists.txt."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
#: Extension modules by import name, with the CMake variable that says where each one goes.
MODULES = {
    "gadl.runtime._core": "GADL_CORE_OUTPUT",
    "gadl.targets.npu._sim": "GADL_SIM_OUTPUT",
    "gadl.passes.memory._search": "GADL_SEARCH_OUTPUT",
}


class CMakeBuild(build_ext):
    """Configures and builds once; each module lands where setuptools expects it."""

    def run(self) -> None:
        cmake = shutil.which("cmake") or "cmake"
        folder = ROOT / "build" / f"python-{sys.version_info[0]}.{sys.version_info[1]}"
        places = [f"-D{variable}={Path(self.get_ext_fullpath(name)).resolve().parent}" for name, variable in MODULES.items()]
        # The path is given anew each time: pip builds in an environment that is gone the next time.
        ninja = shutil.which("ninja")
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
        configure = [cmake, "-S", str(ROOT), "-B", str(folder), *generator, "-DGADL_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}"]
        subprocess.check_call([*configure, *places, *shlex.split(os.environ.get("CMAKE_ARGS", ""))])
        subprocess.check_call([cmake, "--build", str(folder), "--parallel", "2"])


setup(
    packages=find_packages("src"),
    package_dir={"": "src"},
    package_data={"gadl": ["py.typed"], "gadl.targets.npu": ["machines/*.toml"], "gadl.compiler.report": ["templates/*.html"]},
    ext_modules=[Extension(name, []) for name in MODULES],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
