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

    def same(self, x: str, name: str, shape: tuple[int, int, int], oc: int, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> tuple[str, tuple[int, int, int]]:
        """A convolution of a (channels, rows, columns) image padded as TFLite's SAME, and the shape of its result."""
        ic, sizes = shape[0] // groups, shape[1:]
        out = tuple(-(-size // stride) for size in sizes)
        pads = [max((o - 1) * stride + k - size, 0) for o, k, size in zip(out, kernel, sizes, strict=True)]
        spread = np.float32(np.sqrt(2 / (ic * kernel[0] * kernel[1])))
        w = self.constant(f"{name}_w", self.rng.standard_normal((oc, ic, *kernel), np.float32) * spread)
        b = self.constant(f"{name}_b", self.rng.standard_normal(oc, np.float32) * np.float32(0.1))
        around = [pad // 2 for pad in pads] + [pad - pad // 2 for pad in pads]
        y = self.node("Conv", x, w, b, name=name, kernel_shape=list(kernel), strides=[stride] * 2, pads=around, group=groups)
        return y, (oc, *out)

    def relu(self, x: str) -> str:
        return self.node("Relu", x, name=f"{x}_relu")

    def dense(self, x: str, name: str, ic: int, oc: int) -> str:
        w = self.constant(f"{name}_w", self.rng.standard_normal((oc, ic), np.float32) * np.float32(np.sqrt(2 / ic)))
        return self.node("Gemm", x, w, self.constant(f"{name}_b", np.zeros(oc)), name=name, transB=1)

    def pooled(self, x: str, ic: int, oc: int) -> str:
        """The mean of each channel, then class scores."""
        x = self.node("Flatten", self.node("GlobalAveragePool", x, name="pool"), name="flat")
        return self.dense(x, "scores", ic, oc)

    def model(self, name: str, shape: tuple[int, ...], out: str, classes: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, classes])], self.weights,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

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
    return made.model("resnet50", (3, size, size), "scores", 1000)


def vww(seed: int = 0) -> onnx.ModelProto:
    """MLPerf Tiny's person detection: MobileNetV1 0.25 on 96x96x3 (7.49 M MACs), without its softmax."""
    made, shape = _Builder(seed), (3, 96, 96)
    x, shape = made.same("x", "conv1", shape, 8, (3, 3), 2)
    x = made.relu(x)
    for i, (oc, stride) in enumerate([(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]):
        x, shape = made.same(x, f"dw{i}", shape, shape[0], (3, 3), stride, shape[0])
        x, shape = made.same(made.relu(x), f"pw{i}", shape, oc, (1, 1))
        x = made.relu(x)
    return made.model("vww", (3, 96, 96), made.pooled(x, 256, 2), 2)


def kws(seed: int = 0) -> onnx.ModelProto:
    """MLPerf Tiny's keyword spotting: DS-CNN on 49x10 features (2.66 M MACs), without its softmax."""
    made, shape = _Builder(seed), (1, 49, 10)
    x, shape = made.same("x", "conv1", shape, 64, (10, 4), 2)
    x = made.relu(x)
    for i in range(4):
        x, shape = made.same(x, f"dw{i}", shape, 64, (3, 3), 1, 64)
        x, shape = made.same(made.relu(x), f"pw{i}", shape, 64, (1, 1))
        x = made.relu(x)
    return made.model("kws", (1, 49, 10), made.pooled(x, 64, 12), 12)


def resnet8(seed: int = 0) -> onnx.ModelProto:
    """MLPerf Tiny's image classification: ResNet-8 on 32x32x3 (12.50 M MACs), without its softmax."""
    made, shape = _Builder(seed), (3, 32, 32)
    x, shape = made.same("x", "conv1", shape, 16, (3, 3))
    x = made.relu(x)
    for stage, oc in enumerate((16, 32, 64)):
        stride, before = 1 if stage == 0 else 2, shape
        y, shape = made.same(x, f"a{stage}", before, oc, (3, 3), stride)
        y, shape = made.same(made.relu(y), f"b{stage}", shape, oc, (3, 3))
        if stage > 0:
            x, _ = made.same(x, f"s{stage}", before, oc, (1, 1), stride)
        x = made.relu(made.node("Add", x, y, name=f"sum{stage}"))
    return made.model("resnet8", (3, 32, 32), made.pooled(x, 64, 10), 10)


def ad01(seed: int = 0) -> onnx.ModelProto:
    """MLPerf Tiny's anomaly detection: an autoencoder of ten dense layers (0.26 M MACs)."""
    made, x, widths = _Builder(seed), "x", [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    for i, (ic, oc) in enumerate(zip(widths, widths[1:])):
        x = made.dense(x, f"fc{i}", ic, oc)
        x = made.relu(x) if i < 9 else x
    return made.model("ad01", (640,), x, 640)


def resnet18(size: int = 224, width: int = 64, seed: int = 0) -> onnx.ModelProto:
    """ResNet-18 (1.81 G MACs, 11.7 M parameters at 224)."""
    made = _Builder(seed)
    x = made.relu(made.conv("x", "conv1", 3, width, 7, 2))
    x = made.node("MaxPool", x, name="pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage in range(4):
        for block in range(2):
            oc, stride = width << stage, 2 if stage and not block else 1
            name = f"res{stage + 2}{chr(97 + block)}"
            y = made.relu(made.conv(x, f"{name}_1", channels, oc, 3, stride))
            y = made.conv(y, f"{name}_2", oc, oc, 3)
            shortcut = x if channels == oc else made.conv(x, f"{name}_s", channels, oc, 1, stride)
            x, channels = made.relu(made.node("Add", y, shortcut, name=name)), oc
    return made.model("resnet18", (3, size, size), made.pooled(x, channels, 1000), 1000)


class _Detector(_Builder):
    """Blocks of YOLOv8: a convolution is followed by SiLU, its normalisation folded in."""

    def silu(self, x: str, name: str, ic: int, oc: int, kernel: int, stride: int = 1) -> str:
        y = self.conv(x, name, ic, oc, kernel, stride)
        return self.node("Mul", y, self.node("Sigmoid", y, name=f"{name}_sigmoid"), name=f"{name}_silu")

    def split(self, x: str, name: str, ic: int, oc: int, depth: int, shortcut: bool) -> str:
        """C2f: one half passes, the other goes through bottlenecks, and everything on the way is joined."""
        half = oc // 2
        parts = [f"{name}_a", f"{name}_b"]
        self.nodes.append(helper.make_node("Split", [self.silu(x, f"{name}_in", ic, oc, 1)], parts, name=f"{name}_split", axis=1))
        for number in range(depth):
            y = self.silu(parts[-1], f"{name}_{number}_1", half, half, 3)
            y = self.silu(y, f"{name}_{number}_2", half, half, 3)
            parts.append(self.node("Add", parts[-1], y, name=f"{name}_{number}") if shortcut else y)
        joined = self.node("Concat", *parts, name=f"{name}_joined", axis=1)
        return self.silu(joined, f"{name}_out", (2 + depth) * half, oc, 1)

    def pyramid(self, x: str, name: str, channels: int) -> str:
        """SPPF: three maxima over windows of 5, one after another, joined."""
        parts = [self.silu(x, f"{name}_in", channels, channels // 2, 1)]
        for number in range(3):
            parts.append(self.node("MaxPool", parts[-1], name=f"{name}_{number}", kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
        return self.silu(self.node("Concat", *parts, name=f"{name}_joined", axis=1), f"{name}_out", 2 * channels, channels, 1)

    def up(self, x: str, name: str) -> str:
        scales = self.constant(f"{name}_scales", np.array([1, 1, 2, 2]))
        return self.node("Resize", x, "", scales, name=name, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def yolov8(width: float, size: int = 640, classes: int = 80, seed: int = 0) -> onnx.ModelProto:
    """YOLOv8 n (`width` 0.25: 3.15 M parameters, 8.7 GFLOPs) or s (0.5: 11.2 M, 28.6) up to the convolutions of its three heads."""
    made = _Detector(seed)
    c = [int(width * n) for n in (64, 128, 256, 512, 1024)]
    x, levels = made.silu("x", "stem", 3, c[0], 3, 2), []
    for number, depth in enumerate((1, 2, 2, 1), 1):
        x = made.silu(x, f"down{number}", c[number - 1], c[number], 3, 2)
        x = made.split(x, f"stage{number}", c[number], c[number], depth, True)
        levels.append(x)
    p3, p4, p5 = levels[1], levels[2], made.pyramid(x, "pyramid", c[4])
    y = made.node("Concat", made.up(p5, "up4"), p4, name="join4", axis=1)
    n4 = made.split(y, "neck4", c[4] + c[3], c[3], 1, False)
    y = made.node("Concat", made.up(n4, "up3"), p3, name="join3", axis=1)
    n3 = made.split(y, "neck3", c[3] + c[2], c[2], 1, False)
    y = made.node("Concat", made.silu(n3, "back4", c[2], c[2], 3, 2), n4, name="join4b", axis=1)
    n4 = made.split(y, "neck4b", c[2] + c[3], c[3], 1, False)
    y = made.node("Concat", made.silu(n4, "back5", c[3], c[3], 3, 2), p5, name="join5", axis=1)
    n5 = made.split(y, "neck5", c[3] + c[4], c[4], 1, False)
    outputs = []
    for level, (x, ic) in enumerate(((n3, c[2]), (n4, c[3]), (n5, c[4])), 3):
        for kind, inner, oc in (("box", max(16, c[2] // 4, 64), 64), ("class", max(c[2], min(classes, 100)), classes)):
            y = made.silu(made.silu(x, f"{kind}{level}_1", ic, inner, 3), f"{kind}{level}_2", inner, inner, 3)
            outputs.append((made.conv(y, f"{kind}{level}", inner, oc, 1), [1, oc, size >> level, size >> level]))
    graph = helper.make_graph(
        made.nodes, "yolov8", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs], made.weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
