# SPDX-License-Identifier: Apache-2.0
"""Makes the seeds of the native tests: `PYTHONPATH=src python tests/data/make.py`."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import gadl
from gadl.compiler.artifact.format import ALIGNMENT, ENTRY_BYTES, HEADER_BYTES, Storage
from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.artifact.writer import ArtifactBuilder, HostStep, TensorRecord
from gadl.compiler.diag.files import write_atomically
from gadl.targets.cv18xx.chip import CHIPS
from gadl.targets.cv18xx.cvimodel import Port, build, place_ports
from gadl.targets.cv18xx.descriptor import encode as encode_descriptor
from gadl.targets.cv18xx.isa import Direction, Engine
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Binding, Container
from gadl.targets.npu.instruction import encode
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


def many_ops() -> object:
    """One node of nearly every kind, each with its own output: the fuzzer's way to most host kernels."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((4, 2, 3, 3)), "wt": rng.standard_normal((4, 2, 2, 2)), "wd": rng.standard_normal((4, 1, 3, 3)),
        "v": rng.standard_normal((8, 8)), "c": rng.standard_normal(4), "cv": rng.random(4) + 0.5, "slope": rng.random((4, 1, 1)),
    }  # fmt: skip
    integers = {
        "i1": [2, 0, 1], "ie": rng.integers(0, 4, (1, 4, 8, 8)), "flat": [1, 256], "big": [2, 4, 8, 8], "reps": [1, 2, 1, 1],
        "pads": [0, 0, 1, 2, 0, 0, 2, 1], "at": [7, 6], "to": [-9, 0], "axes": [2, 3], "by": [-1, -2], "size": [1, 4, 12, 5], "axis": 3,
    }  # fmt: skip
    constants = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()]
    constants += [numpy_helper.from_array(np.asarray(v, np.int64), n) for n, v in integers.items()]
    calls: list[tuple[str, list[str], dict[str, object]]] = [
        ("Conv", ["x", "w"], {"group": 2, "dilations": [2, 2], "pads": [1, 2, 2, 1], "strides": [2, 1]}),
        ("Conv", ["x", "wd"], {"group": 4, "pads": [1, 1, 1, 1]}),
        ("ConvTranspose", ["x", "wt"], {"group": 2, "strides": [2, 3], "output_padding": [1, 0]}),
        ("MaxPool", ["x"], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 1, 1]}),
        ("AveragePool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("GlobalAveragePool", ["x"], {}),
        ("Resize", ["x", "", "", "size"], {"mode": "linear"}),
        ("Resize", ["x", "", "", "size"], {"mode": "nearest"}),
        ("Concat", ["x", "z"], {"axis": 2}),
        ("Pad", ["x", "pads"], {"mode": "reflect"}),
        ("Slice", ["x", "at", "to", "axes", "by"], {}),
        ("Transpose", ["x"], {"perm": [0, 3, 1, 2]}),
        ("Reshape", ["x", "flat"], {}),
        ("Gather", ["x", "i1"], {"axis": 1}),
        ("GatherElements", ["x", "ie"], {"axis": 1}),
        ("Expand", ["x", "big"], {}),
        ("Tile", ["x", "reps"], {}),
        ("ReduceMean", ["x"], {"axes": [1, 3]}),
        ("ReduceMax", ["x"], {"axes": [2]}),
        ("ReduceL2", ["x"], {"axes": [3]}),
        ("ReduceProd", ["x"], {"axes": [2]}),
        ("ArgMax", ["x"], {"axis": 1}),
        ("CumSum", ["x", "axis"], {"reverse": 1}),
        ("MatMul", ["x", "v"], {}),
        ("MatMul", ["x", "z"], {}),
        ("LayerNormalization", ["x", "lw"], {"axis": -1}),
        ("InstanceNormalization", ["x", "c", "c"], {}),
        ("BatchNormalization", ["x", "c", "c", "c", "cv"], {}),
        ("PRelu", ["x", "slope"], {}),
        ("Softmax", ["x"], {"axis": 2}),
        ("LogSoftmax", ["x"], {"axis": 3}),
        *[(name, ["x", "z"], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")],
        *[(name, ["x"], {}) for name in ("Sigmoid", "Tanh", "Exp", "Abs", "Sqrt", "Softplus", "HardSwish", "Elu", "Round", "Erf")],
    ]  # fmt: skip
    constants.append(numpy_helper.from_array(np.ones(8, np.float32), "lw"))
    nodes = [helper.make_node(op, inputs, [f"y{i}"], **attrs) for i, (op, inputs, attrs) in enumerate(calls)]
    nodes += [helper.make_node("Greater", ["x", "z"], ["m"]), helper.make_node("Where", ["m", "x", "z"], ["last"])]
    shape = [1, 4, 8, 8]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "z")]
    kind = {"ArgMax": TensorProto.INT64}
    results = [helper.make_tensor_value_info(f"y{i}", kind.get(op, TensorProto.FLOAT), None) for i, (op, _, _) in enumerate(calls)]
    results.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "many", values, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def host_copy() -> bytes:
    """What `COPY` does, as an artefact for the host."""
    shapes = {"x": (16, 16), "y": (256,)}
    tensors = [TensorRecord(n, "i8", s, Storage.ARENA, 256 * i) for i, (n, s) in enumerate(shapes.items())]
    step = HostStep("reshape", (0,), (1,), {"shape": (256,)})
    return ArtifactBuilder({}, tensors, [("x", 0)], [("y", 1)], [step], arena_bytes=512).to_bytes()


def cvi_copy(chip: str) -> bytes:
    """What `COPY` does, as a container for a CV18xx: one transfer from DDR to DDR."""
    inputs, outputs, _ = place_ports([Port("x", (1, 1, 16, 16), 0.5)], [Port("y", (1, 1, 16, 16), 0.5)], 0)
    shape = {"src_n": 1, "src_c": 1, "src_h": 16, "src_w": 16, "dst_c": 1, "dst_h": 16, "dst_w": 16}
    strides = {f"{side}_{axis}": size for side in ("src", "dst") for axis, size in (("n_stride", 256), ("c_stride_low", 256), ("h_stride", 16))}
    places = {"src_base_reg_sel": inputs[0].region, "dst_base_reg_sel": outputs[0].region}
    kind = {"vld": 1, "bar_en": 1, "cmd_id": 1, "trans_dir": Direction.DDR, "src_fmt": 1, "dst_fmt": 1}
    stream = encode_descriptor(CHIPS[chip], Engine.TDMA, {**kind, **shape, **strides, **places})
    return build(CHIPS[chip], "copy", b"", [stream], inputs, outputs).encode()


def runnable_part(data: bytes) -> bytes:
    """The artefact with the sections that the runtime does not read emptied, so that mutations rarely hit them."""
    file = ArtifactFile(data)
    out, table = bytearray(data[: HEADER_BYTES + ENTRY_BYTES * len(file.sections)]), HEADER_BYTES
    for (name, index), _ in file.sections.items():
        content = b"" if name in ("manifest", "golden", "debug", "plan") else file.section(name, index)
        out += bytes(-len(out) % ALIGNMENT)
        struct.pack_into("<16sIIQQ", out, table, name.encode(), index, zlib.crc32(content), len(out), len(content))
        out += content
        table += ENTRY_BYTES
    struct.pack_into("<Q", out, 24, len(out))
    return bytes(out)


def main() -> None:
    code = encode(assemble(COPY))
    container = Container(load_machine("edge"), [code], b"", {1: 256, 2: 256}, [Binding(1, 0, 256)], [Binding(2, 0, 256)])
    write_atomically(FOLDER / "copy.gnpu", container.to_bytes())
    write_atomically(FOLDER / "copy.gadl", host_copy())
    for chip in CHIPS:
        write_atomically(FOLDER / f"copy_{chip}.cvimodel", cvi_copy(chip))
    feeds = [{"x": np.random.default_rng(i).standard_normal((1, 3, 6, 6)).astype(np.float32)} for i in range(2)]
    gadl.compile(small_model(), calibration=feeds, simplify=False).save(FOLDER / "small.gadl")
    gadl.compile(small_model(), target="cpu", precision="float", simplify=False).save(FOLDER / "float.gadl")
    pairs = [{n: rng.uniform(0.1, 1, (1, 4, 8, 8)).astype(np.float32) for n in "xz"} for rng in map(np.random.default_rng, range(2))]
    for precision in ("float", "int8", "int16", "fp16"):
        artifact = gadl.compile(many_ops(), target="cpu", precision=precision, calibration=pairs, simplify=False, self_check=False)
        write_atomically(FOLDER / f"many_{precision}.gadl", runnable_part(artifact.data))


if __name__ == "__main__":
    main()
