# SPDX-License-Identifier: Apache-2.0
"""Normalisation and softmax."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType

from .importer import Node, Unsupported, importer
from .tensors import ir_dtype


def _vector(node: Node, name: str, count: int, fill: float, dtype: DType) -> Value:
    value = node.optional(name)
    return node.const(np.full(count, fill), dtype) if value is None else value


@importer("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
          "_native_batch_norm_legit_functional", "_batch_norm_with_update", "_batch_norm_no_update")  # fmt: skip
def batch_norm(node: Node) -> Value | list[Value]:
    """Batch normalisation with running statistics."""
    x = node.tensor("input")
    if node.arg("training") or node.optional("running_mean") is None:
        raise Unsupported("batch normalisation in training mode: call model.eval() before the export")
    count = x.shape[1]
    parameters = [
        _vector(node, name, count, fill, x.dtype)
        for name, fill in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0))
    ]
    y = node.emit("batch_norm", x, *parameters, epsilon=float(node.arg("eps")))
    return y if node.op == "aten::batch_norm" else [y]


@importer("instance_norm")
def instance_norm(node: Node) -> Value:
    """Statistics of each image and channel."""
    x = node.tensor("input")
    if not node.arg("use_input_stats"):
        raise Unsupported("instance normalisation with running statistics")
    scale, bias = (_vector(node, n, x.shape[1], f, x.dtype) for n, f in (("weight", 1.0), ("bias", 0.0)))
    return node.emit("instance_norm", x, scale, bias, epsilon=float(node.arg("eps")))


@importer("layer_norm", "native_layer_norm")
def layer_norm(node: Node) -> Value | list[Value]:
    """Normalisation over the last axes."""
    x = node.tensor("input")
    axis = x.type.rank - len(node.arg("normalized_shape"))
    y = node.emit(
        "layer_norm",
        x,
        node.optional("weight"),
        node.optional("bias"),
        axis=axis - x.type.rank,
        epsilon=float(node.arg("eps")),
    )
    return y if node.op == "aten::layer_norm" else [y]


@importer("group_norm", "native_group_norm")
def group_norm(node: Node) -> Value | list[Value]:
    """Normalisation over groups of channels."""
    native = node.op != "aten::group_norm"
    y = node.emit(
        "group_norm",
        node.tensor("input"),
        node.optional("weight"),
        node.optional("bias"),
        groups=node.arg("group" if native else "num_groups"),
        epsilon=float(node.arg("eps")),
    )
    return [y] if native else y


@importer("rms_norm")
def rms_norm(node: Node) -> Value:
    """Division by the root mean square of the last axes; without `eps` the type's smallest step."""
    x = node.tensor("input")
    epsilon = node.arg("eps")
    if epsilon is None:
        epsilon = float(np.finfo(np.float32 if x.dtype is not DType.F16 else np.float16).eps)
    return node.emit(
        "rms_norm", x, node.optional("weight"), axis=-len(node.arg("normalized_shape")), epsilon=float(epsilon)
    )


@importer("softmax.int", "_softmax", "_safe_softmax", "log_softmax.int", "_log_softmax")
def softmax(node: Node) -> Value:
    """Softmax and its logarithm along one axis."""
    x = node.tensor("self")
    wanted = node.arg("dtype")
    x = node.cast(x, ir_dtype(wanted)) if wanted is not None else x
    return node.emit("log_softmax" if "log" in node.op else "softmax", x, axis=int(node.arg("dim")))
