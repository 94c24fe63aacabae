# SPDX-License-Identifier: Apache-2.0
"""Reading ONNX files: weights stay mapped, onnxsim is tried first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir

from gadl.compiler.diag import Diagnostic, GadlError, Severity, diagnostic

#: Models above this size are imported as they are: onnxsim would hold several copies.
MOST_SIMPLIFIED_BYTES = 512 << 20


def load_model(
    source: Path | str | Any, shapes: dict[str, tuple[int, ...]], simplify: bool, warn: Callable[[Diagnostic], None]
) -> tuple[Any, Any, str, str]:
    """An `onnx_ir.Model`, its simplified form (or None), its name and the file name for messages.

    `GADL-F001` when it cannot be read.
    """
    if not isinstance(source, (str, Path)):
        proto, path = source, None
    else:
        proto, path = None, Path(source)
    file = path.name if path is not None else "<model>"
    try:
        small = path is None or path.stat().st_size <= MOST_SIMPLIFIED_BYTES
        if path is not None:
            model = onnx_ir.load(path)
            _check_external(model, path)
        else:
            model = onnx_ir.serde.deserialize_model(proto)
        if not list(model.graph) and not list(model.graph.outputs):
            raise ValueError("it holds no graph")
    except GadlError:
        raise
    except Exception as error:  # protobuf and onnx-ir raise many types on damaged files
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise GadlError.of("GADL-F001", file, path=file, detail=detail) from None
    simplified = None
    if simplify and small and not _is_quantised(model):
        simplified = _simplified(model, proto, path, shapes, warn)
    name = (path.stem if path is not None else model.graph.name) or "model"
    return model, simplified, name, file


def _is_quantised(model: Any) -> bool:
    """True for QDQ and QLinear models: constant folding would turn their integer weights into real ones."""
    return any("Quantize" in n.op_type or "Linear" in n.op_type or "Integer" in n.op_type for n in model.graph)


def _check_external(model: Any, path: Path) -> None:
    """External data must lie in the model's own folder and inside its file."""
    root = path.resolve().parent
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, onnx_ir.ExternalTensor):
            target = (root / tensor.location).resolve()
            if os.path.commonpath([root, target]) != str(root) or not target.is_file():
                raise ValueError(f"external data '{tensor.location}' is not a file beside the model")
            end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
            if end > target.stat().st_size or (tensor.length is not None and tensor.length < tensor.nbytes):
                raise ValueError(f"external data of '{value.name}' leaves the file '{tensor.location}'")


def _simplified(
    model: Any, proto: Any, path: Path | None, shapes: dict[str, tuple[int, ...]], warn: Callable[[Diagnostic], None]
) -> Any:
    """The model after onnxsim, or None: its failure is a warning."""
    try:
        import onnx
        import onnxsim

        before = onnx.load(path) if path is not None else proto
        known = {v.name for v in model.graph.inputs}
        wanted = {n: list(s) for n, s in shapes.items() if n in known}
        after, correct = onnxsim.simplify(before, overwrite_input_shapes=wanted or None)
        if not correct:
            raise ValueError("the simplified model gives other results")
        return onnx_ir.serde.deserialize_model(after)
    except ImportError:
        return None
    except Exception as error:  # onnxsim raises whatever its passes raise
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        warn(diagnostic("GADL-F004", path.name if path else "", Severity.WARNING, detail=detail))
        return None
