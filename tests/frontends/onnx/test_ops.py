# SPDX-License-Identifier: Apache-2.0
"""Models of one node at the opsets where the node changed, against ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.verify import verify
from gadl.frontends.onnx import import_onnx

from .models import model_of, onnxruntime_run

F32, I64 = np.float32, np.int64


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, shape).astype(F32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, I64)


@dataclass(frozen=True)
class OpCase:
    """A node: op type, opsets, operands in order (None: absent; `c` marks constants), attributes, expected IR ops."""

    op: str
    opsets: tuple[int, ...]
    operands: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    makes: tuple[str, ...] | None = None
    outputs: int = 1
    rtol: float = 1e-5
    atol: float = 1e-6

    def __str__(self) -> str:
        return f"{self.op}-{'-'.join(str(v) for v in self.attrs.values())[:40]}".replace(" ", "")


@dataclass(frozen=True)
class C:
    """A constant operand."""

    data: Any


X = real(2, 3, 8, 9)
W, B = C(real(4, 3, 3, 3, seed=1)), C(real(4, seed=2))
SAME = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
STATS = (C(real(3, seed=3)), C(real(3, seed=4)), C(real(3, seed=5)), C(np.abs(real(3, seed=6)) + 0.1))
PRODUCT = {"rtol": 1e-4, "atol": 1e-4}

CASES = [
    OpCase("Conv", (7, 11, 22), (X, W, B), {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}, ("conv",), **PRODUCT),
    OpCase("Conv", (7, 11), (X, W), SAME, ("conv",), **PRODUCT),
    OpCase("Conv", (11,), (X, W), {"auto_pad": "SAME_LOWER", "strides": [2, 2], "kernel_shape": [3, 3]}, ("conv",), **PRODUCT),
    OpCase("Conv", (11,), (X, W), {"auto_pad": "VALID"}, ("conv",), **PRODUCT),
    OpCase("Conv", (11,), (real(1, 4, 9), C(real(4, 1, 3))), {"group": 4}, ("conv",), **PRODUCT),
    OpCase("Conv", (11,), (X, real(4, 3, 3, 3, seed=1)), {}, ("conv",), **PRODUCT),
    OpCase("ConvTranspose", (7, 11), (X, C(real(3, 2, 3, 3)), C(real(2))),
           {"strides": [2, 2], "pads": [1, 1, 0, 1], "output_padding": [1, 0]}, ("conv_transpose",), **PRODUCT),
    OpCase("ConvTranspose", (11,), (X, C(real(3, 2, 3, 3))), {"strides": [3, 2], "output_shape": [25, 19]}, **PRODUCT),
    OpCase("ConvTranspose", (11,), (X, C(real(3, 2, 3, 3))), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, **PRODUCT),
    OpCase("ConvTranspose", (11,), (real(1, 4, 5, 5), C(real(4, 2, 2, 2))), {"strides": [2, 2], "group": 2}, **PRODUCT),
    OpCase("Gemm", (7, 9, 11, 13), (real(2, 5), C(real(5, 4)), C(real(4))), {"alpha": 0.5, "beta": 2.0}, ("linear",), **PRODUCT),
    OpCase("Gemm", (13,), (real(5, 2), C(real(4, 5)), C(real(1, 4))), {"transA": 1, "transB": 1},
           ("transpose", "linear"), **PRODUCT),
    OpCase("Gemm", (13,), (real(2, 5), real(4, 5), real(2, 1)), {"transB": 1, "alpha": 2.0}, **PRODUCT),
    OpCase("Gemm", (13,), (real(2, 5), C(real(5, 4)), C(real(2, 1))), {}, ("linear", "add"), **PRODUCT),
    OpCase("MatMul", (9, 13), (real(2, 3, 4), C(real(4, 5))), {}, ("linear",), **PRODUCT),
    OpCase("MatMul", (13,), (real(4), real(2, 4, 5)), {}, **PRODUCT),
    OpCase("MatMul", (13,), (real(2, 3, 4), real(4)), {}, **PRODUCT),
    OpCase("MatMul", (13,), (real(3, 1, 2, 4), real(2, 4, 5)), {}, ("matmul",), **PRODUCT),
    OpCase("Einsum", (12,), (real(2, 3, 4), real(2, 5, 4)), {"equation": "bij,bkj->bik"}, **PRODUCT),
    OpCase("Einsum", (12,), (real(2, 3, 4, 5), real(2, 4, 6, 5)), {"equation": "bhnd,bnmd->bmhn"}, **PRODUCT),
    OpCase("Einsum", (12,), (real(2, 3, 4), real(4, 6)), {"equation": "bij,jk"}, **PRODUCT),
    OpCase("Einsum", (12,), (real(2, 3, 4),), {"equation": "bij->jbi"}, ("transpose",), **PRODUCT),
    OpCase("Einsum", (12,), (real(2, 3, 4), real(4, 6)), {"equation": "bij,jk->bk"}, **PRODUCT),
    OpCase("MaxPool", (7, 8, 10, 12), (X,), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, ("max_pool",)),
    OpCase("MaxPool", (10, 12), (X,), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "dilations": [2, 1]}),
    OpCase("MaxPool", (12,), (X,), {"kernel_shape": [3, 3], **SAME}, ("max_pool",)),
    OpCase("AveragePool", (7, 10, 11, 19), (X,), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, ("avg_pool",)),
    OpCase("AveragePool", (11, 19), (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    OpCase("AveragePool", (11,), (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    OpCase("GlobalAveragePool", (7,), (X,), {}, ("reduce_mean",)),
    OpCase("GlobalMaxPool", (7,), (X,), {}, ("reduce_max",)),
    OpCase("LRN", (7, 13), (real(1, 6, 4, 4),), {"size": 3, "alpha": 0.01, "beta": 0.7, "bias": 2.0}),
    OpCase("Upsample", (7,), (X,), {"scales": [1.0, 1.0, 2.0, 1.5], "mode": "nearest"}, ("resize",)),
    OpCase("Upsample", (9,), (X, C(np.array([1, 1, 2, 3], F32))), {"mode": "linear"}, ("resize",), atol=1e-5),
    OpCase("Resize", (10,), (X, C(np.array([1, 1, 2, 0.5], F32))), {"mode": "nearest"}, ("resize",)),
    OpCase("Resize", (10,), (X, C(np.array([1, 1, 2, 1.5], F32))), {"mode": "linear"}, ("resize",)),
    *(
        OpCase("Resize", (11, 13, 18, 19), (X, C(np.zeros(0, F32)), C(np.array([1, 1, 1.7, 0.6], F32))),
               {"mode": mode, "coordinate_transformation_mode": where}, ("resize",), rtol=1e-4, atol=1e-5)
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    *(
        OpCase("Resize", (13,), (X, None, None, C(ints(2, 3, 13, 5))), {"mode": "nearest", "nearest_mode": how}, ("resize",))
        for how in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    OpCase("Resize", (18,), (X, None, None, C(ints(16, 16))), {"axes": [2, 3], "mode": "linear"}, rtol=1e-4, atol=1e-5),
    OpCase("Clip", (7,), (X,), {"min": -0.5, "max": 1.0}, ("clamp",)),
    OpCase("Clip", (7,), (X,), {"min": 0.0}, ("relu",)),
    OpCase("Clip", (11, 12, 13), (X, C(F32(-0.5)), C(F32(6.0))), {}, ("clamp",)),
    OpCase("Clip", (12, 13), (X, None, C(F32(0.25))), {}, ("clamp",)),
    OpCase("Clip", (13,), (X, np.array(-0.5, F32), C(F32(1.0))), {}, ("max", "min")),
    OpCase("Squeeze", (7, 11), (real(2, 1, 3, 1),), {"axes": [1, 3]}, ("reshape",)),
    OpCase("Squeeze", (13,), (real(2, 1, 3, 1), C(ints(-1))), {}, ("reshape",)),
    OpCase("Squeeze", (7, 13), (real(2, 1, 3, 1),), {}, ("reshape",)),
    OpCase("Unsqueeze", (7,), (real(2, 3),), {"axes": [0, 3]}, ("reshape",)),
    OpCase("Unsqueeze", (13,), (real(2, 3), C(ints(-1, 0))), {}, ("reshape",)),
    OpCase("Softmax", (7, 11), (real(2, 3, 4),), {}, ("reshape", "softmax", "reshape")),
    OpCase("Softmax", (11, 13), (real(2, 3, 4),), {"axis": 2}, ("softmax",)),
    OpCase("Softmax", (13,), (real(2, 3, 4),), {"axis": 1}, ("softmax",)),
    OpCase("LogSoftmax", (11, 13), (real(2, 3, 4),), {"axis": 1}, rtol=1e-5, atol=1e-5),
    OpCase("Pad", (7,), (X,), {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 2.5}, ("pad",)),
    OpCase("Pad", (11, 13), (X, C(ints(0, 0, 1, 2, 0, 0, 3, 0)), C(F32(2.5))), {}, ("pad",)),
    OpCase("Pad", (13,), (X, C(ints(0, 0, 1, -2, 0, 0, -3, 0))), {}, ("slice", "pad")),
    OpCase("Pad", (18,), (X, C(ints(1, 2, 0, 1)), None, C(ints(2, -1))), {"mode": "reflect"}, ("pad",)),
    OpCase("Pad", (11,), (X, C(ints(0, 0, 1, 2, 0, 0, 3, 0))), {"mode": "edge"}, ("pad",)),
    OpCase("Slice", (7, 9), (X,), {"starts": [1, -4], "ends": [9999, -1], "axes": [1, 3]}, ("slice",)),
    OpCase("Slice", (10, 11, 13), (X, C(ints(7, -1)), C(ints(-9999, 0)), C(ints(2, 3)), C(ints(-2, -3))), {}, ("slice",)),
    OpCase("Split", (7, 11), (X,), {"axis": 3, "split": [2, 3, 4]}, ("slice",) * 3, outputs=3),
    OpCase("Split", (13,), (X, C(ints(2, 3, 4))), {"axis": -1}, ("slice",) * 3, outputs=3),
    OpCase("Split", (7, 13), (X,), {"axis": 2}, ("slice",) * 2, outputs=2),
    OpCase("Split", (18,), (X,), {"axis": 3, "num_outputs": 2}, ("slice",) * 2, outputs=2),
    OpCase("ReduceSum", (7, 11), (X,), {"axes": [1, -1], "keepdims": 0}, ("reduce_sum",), rtol=1e-5, atol=1e-5),
    OpCase("ReduceSum", (13,), (X, C(ints(1, -1))), {"keepdims": 0}, ("reduce_sum",), rtol=1e-5, atol=1e-5),
    OpCase("ReduceMean", (7, 13), (X,), {"axes": [2, 3]}, ("reduce_mean",)),
    OpCase("ReduceMean", (18,), (X, C(ints(2, 3))), {}, ("reduce_mean",)),
    OpCase("ReduceMax", (11, 13), (X,), {}, ("reduce_max",)),
    OpCase("ReduceMin", (18,), (X, C(ints(1))), {}, ("reduce_min",)),
    OpCase("ReduceL1", (13,), (X,), {"axes": [3]}, atol=1e-5),
    OpCase("ReduceL2", (13,), (X,), {"axes": [3]}, ("reduce_l2",), atol=1e-5),
    OpCase("ReduceLogSumExp", (13,), (X,), {"axes": [1], "keepdims": 0}, atol=1e-5),
    OpCase("ArgMax", (7, 11, 13), (X,), {"axis": 2, "keepdims": 0}, ("argmax",)),
    OpCase("ArgMin", (13,), (X,), {"axis": 1, "select_last_index": 1}),
    OpCase("BatchNormalization", (7, 9, 14, 15), (X, *STATS), {"epsilon": 1e-3}, ("batch_norm",)),
    OpCase("InstanceNormalization", (7,), (X, *STATS[:2]), {}, ("instance_norm",), rtol=1e-4, atol=1e-5),
    OpCase("LayerNormalization", (17,), (X, C(real(9)), C(real(9, seed=1))), {}, ("layer_norm",), rtol=1e-4, atol=1e-5),
    OpCase("LayerNormalization", (17,), (X, C(real(8, 9))), {"axis": 2}, ("layer_norm",), rtol=1e-4, atol=1e-5),
    OpCase("LpNormalization", (7,), (X,), {"axis": 1, "p": 2}),
    OpCase("Dropout", (7, 10, 12, 13), (X,), {}, ()),
    OpCase("Cast", (7, 9, 13), (X,), {"to": 7}, ("cast",)),
    OpCase("HardSwish", (14,), (X,), {}, ("hard_swish",)),
    OpCase("HardSigmoid", (7,), (X,), {"alpha": 0.3, "beta": 0.4}, ("hard_sigmoid",)),
    OpCase("Gelu", (20,), (X,), {}, ("gelu",)),
    OpCase("Gelu", (20,), (X,), {"approximate": "tanh"}, ("gelu",)),
    OpCase("Elu", (7,), (X,), {"alpha": 0.7}, ("elu",)),
    OpCase("Selu", (7,), (X,)),
    OpCase("Celu", (12,), (X,), {"alpha": 0.7}),
    OpCase("Softsign", (7,), (X,)),
    OpCase("Softplus", (7,), (X,)),
    OpCase("Mish", (18,), (X,)),
    OpCase("ThresholdedRelu", (10,), (X,), {"alpha": 0.3}),
    OpCase("LeakyRelu", (7, 16), (X,), {"alpha": 0.2}, ("leaky_relu",)),
    OpCase("PRelu", (7, 9, 16), (X, C(real(3, 1, 1))), {}, ("prelu",)),
    OpCase("Erf", (9, 13), (X,), {}, ("erf",)),
    OpCase("Pow", (7, 12, 13), (np.abs(X), C(F32(1.5))), {}, ("pow",)),
    OpCase("Pow", (13,), (X, C(ints(2))), {}, ("pow",)),
    OpCase("Pow", (13,), (np.arange(5, dtype=np.int32), C(F32(0.5)))),
    OpCase("Mod", (10, 13), (ints(-7, 7, 5), ints(3, -3, 2))),
    OpCase("Div", (7, 14), (ints(-7, 7, 5), ints(3, -3, 2)), {}, ("div",)),
    OpCase("Max", (8, 13), (X, C(F32(0.1)), real(9)), {}, ("max", "max")),
    OpCase("Sum", (8, 13), (X, real(9), real(1)), {}, ("add", "add")),
    OpCase("Mean", (8, 13), (X, real(9), real(1))),
    OpCase("Where", (9, 16), (X > 0, X, C(F32(7)))),
    OpCase("Xor", (7,), (X > 0, real(9) > 0)),
    OpCase("Transpose", (7, 13), (X,), {"perm": [0, 3, 1, 2]}, ("transpose",)),
    OpCase("Flatten", (7, 9, 11, 13), (X,), {"axis": 2}, ("reshape",)),
    OpCase("Reshape", (7, 13, 14), (X, C(ints(0, -1, 3))), {}, ("reshape",)),
    OpCase("Expand", (8, 13), (real(3, 1), C(ints(2, 1, 6))), {}, ("expand",)),
    OpCase("Tile", (7, 13), (real(2, 3), C(ints(2, 1))), {}, ("tile",)),
    OpCase("Concat", (7, 11, 13), (real(2, 3), real(2, 1)), {"axis": 1}, ("concat",)),
    OpCase("Gather", (7, 11, 13), (X, C(ints(-1, 0))), {"axis": 1}, ("gather",)),
    OpCase("Gather", (13,), (C(real(6, 4)), ints(5, 0, 3)), {}, ("gather",)),
    OpCase("GatherElements", (11, 13), (real(3, 4), np.array([[0, 1, -1, 2]], I64)), {"axis": 0}, ("gather_elements",)),
    OpCase("ScatterND", (11, 13, 18), (X, C(np.array([[[0, 1], [1, -1]]], I64)), real(1, 2, 8, 9)), {}),
    OpCase("ScatterElements", (11, 13, 18), (real(3, 5), C(np.array([[1, -1], [0, 2]], I64)), real(2, 2)), {"axis": 1}),
    OpCase("DepthToSpace", (7, 11, 13), (real(1, 8, 2, 3),), {"blocksize": 2}),
    OpCase("DepthToSpace", (11, 13), (real(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}),
    OpCase("SpaceToDepth", (7, 13), (real(1, 2, 4, 6),), {"blocksize": 2}),
    OpCase("CumSum", (11, 14), (real(3, 4), C(ints(1))), {"exclusive": 1, "reverse": 1}),
    OpCase("OneHot", (9, 11), (ints(0, -1, 2, 9), C(ints(4)), C(np.array([-1, 5], F32))), {"axis": 0}),
    OpCase("Trilu", (14,), (X, C(ints(1))), {"upper": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("case", "opset"), [(c, o) for c in CASES for o in c.opsets], ids=str)
def test_one_node(case: OpCase, opset: int) -> None:
    operands = {f"x{i}": v for i, v in enumerate(case.operands)}
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, ["" if v is None else n for n, v in operands.items()], outputs, "the_node", **case.attrs)
    inputs = {n: v for n, v in operands.items() if isinstance(v, np.ndarray)}
    constants = {n: np.asarray(v.data) for n, v in operands.items() if isinstance(v, C)}
    model = model_of([node], inputs, constants, outputs, opset)
    graph = import_onnx(model, simplify=False)
    verify(graph)
    assert graph.output_names == outputs
    if case.makes is not None:
        assert tuple(op.name for op in graph.ops) == case.makes
    assert all(op.loc.node == "the_node" and op.loc.index == 0 for op in graph.ops)
    expected = onnxruntime_run(model, inputs)
    for name, found in interpret(graph, inputs).items():
        assert found.dtype == expected[name].dtype
        np.testing.assert_allclose(found, expected[name], rtol=case.rtol, atol=case.atol)
