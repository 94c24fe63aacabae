# SPDX-License-Identifier: Apache-2.0
"""Graphs for tests of the text form and the verifier."""

from __future__ import annotations

import base64

import numpy as np

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.parser import parse

#: A graph with everything that the text form can say.
EVERYTHING = """\
gir 1.0 placed
graph "a \\"model\\"" {
  input %x : f32[1,3,4,4]
  input %"in put" : f32[1,2,4,4]
  const %w : i8[2,3,1,1]<s=[0.01,0.02],z=0,axis=0> = i8[2,3,1,1] [1, -7, 3, 0, 5, 127]
  const %b : i32[2] = i32[2] [-100, 200]
  const %shift : f32[2,1,1] = f32[2,1,1] [0.1, -inf]
  const %mask : bool[2] = bool[2] [true, false]
  const %half : f16[] = f16[] [0.3333]
  const %brain : bf16[1] = bf16[1] [0.100098]
  %q : i8[1,3,4,4]<s=[0.05],z=-3> = quantize(%x) loc("net.onnx", "in/\\u0001", "", 0) on("host", none, "输入在主机上")
  %y : i8[1,2,4,4]<s=[0.1],z=4>@channels_last = conv(%q, %w, %b) {strides = (1, 1), pads = (0, 0, 0, 0), dilations = (1, 1), groups = 1, clamp = (-4, 100), requant = requant(up, i32[2] [1374389534, 1374389535], i8[2] [38, 37])} loc("", "", "net.py:88 in forward", none) on("npu", 0, "")
  %l : i8[1,2,4,4]<s=[0.1],z=4> = lut(%y) {table = #0} on("npu", 0, "")
  %real : f32[1,2,4,4] = dequantize(%l) on("host", none, "")
  %sum : f32[1,2,4,4] = add(%real, %"in put") on("host", none, "")
  %g : f32[1,2,4,4] = gelu(%sum) {approximate = "tanh"} on("host", none, "")
  %c : f16[1,2,4,4] = cast(%g) {dtype = f16} on("host", none, "")
  %m : f32[1,2,1,1] = reduce_mean(%g) {axes = (2, 3), keepdims = true} on("host", none, "")
  output "out" = %c
  output "mean 均值" = %m
  output "shift" = %shift
  output "mask" = %mask
  output "half" = %half
  output "brain" = %brain
}
resources {
  #0 : i8[256] = "TABLE"
}
""".replace("TABLE", base64.b64encode(np.arange(-128, 128).astype(np.int8).tobytes()).decode())


def graph_of(body: str, stage: str = "float") -> Graph:
    """A graph from the lines between its braces."""
    return parse(f'gir 1.0 {stage}\ngraph "main" {{\n{body}\n}}\n')
