# SPDX-License-Identifier: Apache-2.0
"""Random small networks for tests of code generators."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.opdef import Builder

from .npu.programs import float_graph, random

KINDS = ("conv3", "conv3", "pointwise", "depthwise", "stride", "dilated", "pool", "average", "swish", "skip", "excite", "up", "bilinear",
         "transposed", "concat", "multiply", "part", "subsample")  # fmt: skip


def grow(graph: Graph, b: Builder, rng: np.random.Generator, values: list[Value], kind: str) -> Value:
    """One more layer on the newest value (and, for sums and concats, an older one of its size)."""
    x = values[-1]
    channels, height = x.shape[1], x.shape[2]
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    alike = [v for v in values[:-1] if v.shape == x.shape]
    match kind:
        case "conv3":
            return b("conv", x, random(graph, rng, 20, channels, 3, 3), random(graph, rng, 20), **window)
        case "stride" if height > 4:
            return b("conv", x, random(graph, rng, 12, channels, 3, 3), None, **{**window, "strides": (2, 2)})
        case "dilated":
            return b("conv", x, random(graph, rng, 12, channels, 3, 3), None, **{**window, "dilations": (2, 2), "pads": (2, 2, 2, 2)})
        case "depthwise":
            return b("conv", x, random(graph, rng, channels, 1, 3, 3), None, groups=channels, **window)
        case "pool" if height > 4:
            return b("max_pool", x, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1))
        case "average":
            return b("avg_pool", x, kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))
        case "swish":
            return b("hard_swish", x)
        case "excite":
            pooled = b("reduce_mean", x, axes=(2, 3), keepdims=True)
            gate = b("conv", pooled, random(graph, rng, channels, channels, 1, 1), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
            return b("mul", x, b("sigmoid", gate))
        case "up" | "bilinear" if height < 20:
            size = (*x.shape[:2], 2 * height, 2 * x.shape[3])
            mode = {"mode": "linear"} if kind == "bilinear" else {"mode": "nearest", "coordinate": "asymmetric", "nearest": "floor"}
            return b("resize", x, sizes=size, scales=(1.0, 1.0, 2.0, 2.0), **mode)
        case "transposed" if height < 20:
            return b("conv_transpose", x, random(graph, rng, channels, 8, 2, 2), None, strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1), output_padding=(0, 0))
        case "concat":
            return b("concat", *dict.fromkeys([x, *alike[-1:]]), axis=1)
        case "part" if height > 1:
            sizes = (1, max(1, channels - 3), height - 1, x.shape[3])
            return b("slice", x, starts=(0, min(2, channels - sizes[1]), 1, 0), sizes=sizes, steps=(1, 1, 1, 1))
        case "subsample" if height > 4:
            pointwise = {"strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
            values.append(b("conv", x, random(graph, rng, 12, channels, 1, 1), None, **pointwise))
            return b("conv", x, random(graph, rng, 8, channels, 1, 1), None, **pointwise)
        case "multiply" if alike:
            return b("mul", x, alike[-1])
        case "skip" if alike:
            y = b("conv", x, random(graph, rng, channels, channels, 1, 1), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
            return b("add", y, alike[-1])
        case _:
            return b("conv", x, random(graph, rng, 16, channels, 1, 1), random(graph, rng, 16), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))


def network(kinds: list[str], height: int) -> Graph:
    graph, b, x = float_graph(1, 6, height, 9)
    rng, values = np.random.default_rng(0), [x]
    for kind in kinds:
        values.append(grow(graph, b, rng, values, kind))
    graph.set_outputs([values[-1]])
    return graph
