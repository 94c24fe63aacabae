# SPDX-License-Identifier: Apache-2.0
"""Reading ONNX models from files, bytes and objects; weights stay mapped. Nothing in a file is trusted."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir

from gadl.compiler.diag import GadlError

#: Before opset 7 broadcasting was an attribute and most ops meant something else.
OLDEST_OPSET = 7


def load_model(source: Path | str | bytes | Any) -> tuple[Any, str, str]:
    """An `onnx_ir.Model`, its name and the file name for messages.

    Raises `GADL-F001` when it cannot be read, or when external data is not inside files beside the model, and `GADL-F008`
    for opsets older than 7.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    file = path.name if path is not None else "<model>"
    # What onnx-ir logs about a damaged file is reported by a code here.
    logging.getLogger("onnx_ir.serde").addFilter(_silent)
    try:
        model = onnx_ir.load(path) if path is not None else onnx_ir.serde.deserialize_model(_proto(source))
        if not list(model.graph) and not list(model.graph.outputs):
            raise ValueError("it holds no graph")
        for name, tensor in _external_tensors(model):
            _check_external(name, tensor, path)
        if model.functions:
            model = _inlined(model)
    except Exception as error:  # protobuf and onnx-ir raise many types on damaged files
        raise GadlError.of("GADL-F001", file, path=file, detail=first_line(error)) from error
    finally:
        logging.getLogger("onnx_ir.serde").removeFilter(_silent)
    opset = int(model.opset_imports.get("", model.opset_imports.get("ai.onnx", OLDEST_OPSET)))
    if opset < OLDEST_OPSET:
        raise GadlError.of("GADL-F008", file, opset=opset, oldest=OLDEST_OPSET)
    return model, (path.stem if path is not None else model.graph.name) or "model", file


def _silent(record: logging.LogRecord) -> bool:
    return False


def first_line(error: Exception) -> str:
    """What an exception says, short enough for a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _proto(source: Any) -> Any:
    if not isinstance(source, bytes):
        return source
    import onnx

    return onnx.ModelProto.FromString(source)


def _inlined(model: Any) -> Any:
    """The model with the bodies of its own functions in place of their calls."""
    from onnx_ir.passes.common import InlinePass

    return InlinePass()(model).model


def _external_tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor whose data lies in another file, in all graphs, with a name for messages."""
    for graph in (model.graph, *model.graph.subgraphs(), *model.functions.values()):
        for value in getattr(graph, "initializers", {}).values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                yield value.name, value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                listed = {onnx_ir.AttributeType.TENSOR: [attribute.value], onnx_ir.AttributeType.TENSORS: attribute.value}
                for tensor in listed.get(attribute.type) or ():
                    if isinstance(tensor, onnx_ir.ExternalTensor):
                        yield attribute.name, tensor


def _check_external(name: str, tensor: Any, path: Path | None) -> None:
    """External data must lie in a file in the model's own folder, and inside that file."""
    if path is None:
        raise ValueError(f"'{name}' is in the file '{tensor.location}': give the path of the model instead of its bytes")
    root = path.resolve().parent
    target = (root / tensor.location).resolve()
    if os.path.commonpath([root, target]) != str(root) or not target.is_file():
        raise ValueError(f"external data '{tensor.location}' is not a file beside the model")
    offset, length = int(tensor.offset or 0), int(tensor.nbytes if tensor.length is None else tensor.length)
    if offset < 0 or length < tensor.nbytes or offset + length > target.stat().st_size:
        raise ValueError(f"external data of '{name}' leaves the file '{tensor.location}'")
