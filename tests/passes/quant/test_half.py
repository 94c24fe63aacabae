# SPDX-License-Identifier: Apache-2.0
"""Half precision."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.compiler.ir.verify import verify
from gadl.passes.quant.quantize import to_half


def test_half_precision_rounds_tensors_and_keeps_the_interface() -> None:
    rng = np.random.default_rng(0)
    graph = Graph()
    build = Builder(graph)
    x = graph.add_input("x", TensorType(DType.F32, (1, 3, 5, 5)))
    w, b = (graph.constant(rng.normal(0, 1, s).astype(np.float32)) for s in ((4, 3, 3, 3), (4,)))
    y = build("conv", x, w, b, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), clamp=(0.0, 6.0))
    huge = graph.constant(np.float32([1e9]))
    graph.set_outputs([build("sigmoid", y), build("mul", y, huge)], ["s", "m"])
    half = to_half(graph)
    verify(half)
    assert half.output_names == ["s", "m"]
    assert [v.dtype for v in (*half.inputs, *half.outputs)] == [DType.F32] * 3
    (conv,) = [op for op in half.ops if op.name == "conv"]
    assert [v.dtype for v in (*conv.inputs, conv.result)] == [DType.F16, DType.F16, DType.F32, DType.F16]
    feeds = {"x": rng.normal(0, 1, (1, 3, 5, 5)).astype(np.float32)}
    found = interpret(half, feeds)

    xs, ws = (a.astype(np.float16).astype(np.float32) for a in (feeds["x"], w.data))
    total = np.zeros((4, 3, 3), np.float32)
    for u in range(3):
        for v in range(3):
            for c in range(3):
                total = total + ws[:, c, u, v, None, None] * xs[0, c, u : u + 3, v : v + 3]
    rounded = np.clip(total + b.data[:, None, None], 0, 6).astype(np.float16)
    wanted = (1 / (1 + np.exp(-rounded.astype(np.float32)))).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found["s"][0], wanted, atol=2.0**-11)
    with np.errstate(over="ignore"):
        products = (rounded.astype(np.float32) * np.float32(65504)).astype(np.float16)
    np.testing.assert_array_equal(found["m"][0], products.astype(np.float32))
