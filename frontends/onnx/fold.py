# SPDX-License-Identifier: Apache-2.0
"""Constants by ONNX's own reference: nodes that the IR has no op for, when all their inputs are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir

from gadl.compiler.ir.graph import Value

from .node import Node, ir_dtype_of

#: Largest constant that import-time evaluation may produce, in elements.
MOST_FOLDED = 1 << 24
#: Ops whose results are no larger than their inputs; others could ask for any amount of memory.
_BY_REFERENCE = frozenset({
    "Acos", "Acosh", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Cast", "Compress", "Cosh", "CumProd", "Det", "GatherND", "Hardmax", "IsInf", "Mod", "NonMaxSuppression",
    "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shrink", "Sinh", "TopK", "Unique",
})  # fmt: skip
#: The reference evaluator is slow and makes results of any size: it is for shape arithmetic.
MOST_REFERENCE_ELEMENTS = 1 << 20


def evaluate_constants(node: Node) -> list[Value] | None:
    """Results of a node whose inputs are all constants, or None where it is not such a node."""
    given = [v for v in node.inputs if v is not None]
    if node.op_type not in _BY_REFERENCE or node.node.domain not in ("", "ai.onnx"):
        return None
    if not given or any(v.data is None or v.quant is not None for v in given):
        return None
    if sum(math.prod(v.shape) for v in given) > MOST_REFERENCE_ELEMENTS:
        return None
    results = _by_reference(node)
    if results is None:
        return None
    return [node.const(np.asarray(r)) for r in results]


def _by_reference(node: Node) -> list[Any] | None:
    """Arrays from `onnx.reference`, or None where it has no answer."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    proto = onnx_ir.to_proto(node.node)
    feeds = {name: value.data for name, value in zip(proto.input, node.inputs) if value is not None}
    kinds = {n: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items() if a is not None}
    graph = onnx.helper.make_graph(
        [proto],
        "constants",
        [onnx.helper.make_tensor_value_info(n, kind, None) for n, kind in kinds.items()],
        [onnx.helper.make_empty_tensor_value_info(n) for n in proto.output if n],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", node.opset)])
    try:
        with np.errstate(all="ignore"):
            found = dict(zip([n for n in proto.output if n], ReferenceEvaluator(model).run(None, feeds)))
        results = [found.get(n, np.zeros(0, np.float32)) for n in proto.output]
        for result in results:
            if not isinstance(result, (np.ndarray, np.generic)):
                return None
            ir_dtype_of(np.asarray(result))
        return results
    except Exception:  # the reference raises whatever numpy raises; the node is then reported as it was
        return None
