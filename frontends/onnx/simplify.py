# SPDX-License-Identifier: Apache-2.0
"""onnxsim on models that do not import as they are.

The importer folds constants itself; what onnxsim adds is ops that it computes away by ONNX Runtime or rewrites. It runs in a
child process with a time limit, so that neither a crash nor an endless loop reaches the compiler.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir

from gadl.compiler.diag import Diagnostic, Severity, diagnostic

from .load import first_line

#: Models above this size are not simplified: onnxsim would hold several copies.
MOST_SIMPLIFIED_BYTES = 512 << 20
#: Seconds that onnxsim may take.
TIME_LIMIT_S = 120
#: Exit code of the child when onnxsim is not installed.
_NOT_INSTALLED = 3
#: The child: the folder of `-c` must not shadow packages; shapes come as name, dimensions.
_CHILD = f"""
import sys
sys.path[:] = [p for p in sys.path if p]
try:
    import onnx, onnxsim
except ImportError:
    sys.exit({_NOT_INSTALLED})
source, target, *given = sys.argv[1:]
shapes = {{n: [int(d) for d in s.split(",")] if s else [] for n, s in zip(given[::2], given[1::2])}}
model, correct = onnxsim.simplify(onnx.load(source), overwrite_input_shapes=shapes or None)
if not correct:
    sys.exit("the simplified model gives other results")
onnx.save(model, target)
"""


def simplified(
    model: Any, shapes: dict[str, tuple[int, ...]], file: str, warn: Callable[[Diagnostic], None], limit_s: float = TIME_LIMIT_S
) -> Any | None:
    """The `onnx_ir.Model` after onnxsim, or None: its failure is a warning (`GADL-F004`), its absence is not."""
    try:
        with tempfile.TemporaryDirectory(prefix="gadl-") as folder:
            source, target = Path(folder, "source.onnx"), Path(folder, "simple.onnx")
            onnx_ir.save(model, source)
            if source.stat().st_size > MOST_SIMPLIFIED_BYTES:
                return None
            pairs = [text for name, shape in shapes.items() for text in (name, ",".join(map(str, shape)))]
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, str(source), str(target), *pairs], timeout=limit_s, capture_output=True, text=True
            )
            if done.returncode == _NOT_INSTALLED:
                return None
            if done.returncode != 0:
                raise RuntimeError((done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1])
            # Read from memory: the folder goes away.
            import onnx

            return onnx_ir.serde.deserialize_model(onnx.load(target))
    except subprocess.TimeoutExpired:
        detail = f"it took longer than {limit_s:g} s"
    except Exception as error:  # saving and reading back raise what protobuf raises
        detail = first_line(error)
    warn(diagnostic("GADL-F004", file, Severity.WARNING, detail=detail))
    return None
