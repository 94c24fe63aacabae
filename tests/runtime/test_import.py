# SPDX-License-Identifier: Apache-2.0
"""What importing the runtime loads; one version everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import gadl
from gadl.runtime import _core

ROOT = Path(__file__).parents[2]


def test_running_a_model_loads_no_compiler() -> None:
    """In a process of its own: other tests have imported everything."""
    code = f"""
import sys, numpy as np, gadl.runtime
session = gadl.runtime.load({str(ROOT / "tests/data/small.gadl")!r})
session.run({{"x": np.zeros((1, 3, 6, 6), np.float32)}})
print(*sorted({{name.split(".")[0] for name in sys.modules}} | {{n for n in sys.modules if n.startswith("gadl.")}}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=True)
    loaded = set(result.stdout.split())
    assert "gadl.runtime.session" in loaded
    assert not loaded & {"onnx", "onnx_ir", "onnxsim", "torch", "jinja2", "gadl.compiler.driver", "gadl.compiler.ir", "gadl.passes", "gadl.targets"}


def test_package_library_and_build_agree_on_the_version() -> None:
    built = re.search(r"project\(opengadl VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())
    packed = re.search(r'^version = "([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert built is not None and packed is not None
    assert {built[1], packed[1], _core.version()} == {gadl.__version__}
