# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights, for benchmarks and timing: what they compute does not matter, their geometry does."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Builder:
    """Nodes and weights of an ONNX graph under construction."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def constant(self, name: str, data: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(data.astype(np.float32), name))
        return name

    def node(self, op: str, *inputs: str, name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, x: str, name: str, ic: int, oc: int, kernel: int, stride: int = 1) -> str:
        """A convolution with bias (its normalisation folded in), padded to keep the size."""
        spread = np.float32(np.sqrt(2 / (ic * kernel * kernel)))
        w = self.constant(f"{name}_w", self.rng.standard_normal((oc, ic, kernel, kernel), np.float32) * spread)
        b = self.constant(f"{name}_b", self.rng.standard_normal(oc, np.float32) * np.float32(0.1))
        return self.node("Conv", x, w, b, name=name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)


def resnet50(stride_in_3x3: bool = False, size: int = 224, width: int = 64, seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 v1 (stride in a stage's first 1x1: 3.86 G MACs at 224), or with the stride in the 3x3 (4.09 G).

    `size` and `width` scale it down for quick tests.
    """
    made = _Builder(seed)
    x = made.node("Relu", made.conv("x", "conv1", 3, width, 7, 2), name="conv1_relu")
    x = made.node("MaxPool", x, name="pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage, depth in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"res{stage + 2}{chr(97 + block)}"
            first, second = (1, stride) if stride_in_3x3 else (stride, 1)
            y = made.node("Relu", made.conv(x, f"{name}_1", channels, inner, 1, first), name=f"{name}_1_relu")
            y = made.node("Relu", made.conv(y, f"{name}_2", inner, inner, 3, second), name=f"{name}_2_relu")
            y = made.conv(y, f"{name}_3", inner, 4 * inner, 1)
            shortcut = x if channels == 4 * inner else made.conv(x, f"{name}_s", channels, 4 * inner, 1, stride)
            x = made.node("Relu", made.node("Add", y, shortcut, name=f"{name}_sum"), name=name)
            channels = 4 * inner
    x = made.node("Flatten", made.node("GlobalAveragePool", x, name="pool5"), name="flat")
    scores = made.rng.standard_normal((1000, channels), np.float32) * np.float32(1 / np.sqrt(channels))
    made.node("Gemm", x, made.constant("fc_w", scores), made.constant("fc_b", np.zeros(1000)), name="scores", transB=1)
    graph = helper.make_graph(
        made.nodes, "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1000])], made.weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
