# SPDX-License-Identifier: Apache-2.0
"""Makes the seeds of the native tests: `PYTHONPATH=src python tests/data/make.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import gadl
from gadl.compiler.artifact.format import Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, HostStep, TensorRecord, save
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Binding, Container
from gadl.targets.npu.isa import encode
from gadl.targets.npu.machine import load_machine

FOLDER = Path(__file__).parent
COPY = """
LD@LD0 src_region=1 dst=64 row_bytes=256 post(0,1)
ST@ST src=64 dst_region=2 row_bytes=256 wait(0,1)
END@CTL
"""


def small_model() -> object:
    """A convolution with a table, a pooling that goes to the host, and a softmax, on a tiny image."""
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"], axis=1),
    ]
    shape = [1, 3, 6, 6]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])], [w],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def host_copy() -> bytes:
    """What `COPY` does, as an artefact for the host."""
    shapes = {"x": (16, 16), "y": (256,)}
    tensors = [TensorRecord(n, "i8", s, Storage.ARENA, 256 * i) for i, (n, s) in enumerate(shapes.items())]
    step = HostStep("reshape", (0,), (1,), {"shape": (256,)})
    return ArtifactBuilder({}, tensors, [("x", 0)], [("y", 1)], [step], arena_bytes=512).to_bytes()


def main() -> None:
    code = encode(assemble(COPY))
    container = Container(load_machine("edge"), [code], b"", {1: 256, 2: 256}, [Binding(1, 0, 256)], [Binding(2, 0, 256)])
    save(container.to_bytes(), FOLDER / "copy.gnpu")
    save(host_copy(), FOLDER / "copy.gadl")
    feeds = [{"x": np.random.default_rng(i).standard_normal((1, 3, 6, 6)).astype(np.float32)} for i in range(2)]
    gadl.compile(small_model(), calibration=feeds, simplify=False).save(FOLDER / "small.gadl")
    gadl.compile(small_model(), target="cpu", precision="float", simplify=False).save(FOLDER / "float.gadl")


if __name__ == "__main__":
    main()
