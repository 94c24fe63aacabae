# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile files end in a GadlError, never in another exception, a hang or a file read elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.interpret import interpret
from gadl.frontends.onnx import import_onnx, importer

from .models import model_of

F32 = np.float32


def small_cnn() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(4, 3, 3, 3)).astype(F32), "b": np.zeros(4, F32), "t": np.array([1, -1]),
                 "m": rng.normal(size=(16, 5)).astype(F32), "s": F32(0.1), "z": np.uint8(3)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Clip", ["c"], ["r"], "clip"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("Reshape", ["d", "t"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "fc"),
    ]
    return model_of(nodes, {"x": np.zeros((1, 3, 8, 8), F32)}, constants)


def survives(source: Any) -> bool:
    """True where the model imports; anything but a GadlError fails the test."""
    try:
        import_onnx(source, simplify=False)
    except GadlError as error:
        assert str(error)
        return False
    return True


def test_truncated() -> None:
    data = small_cnn().SerializeToString()
    assert survives(data)
    assert not any([survives(data[:length]) for length in range(0, len(data) // 2, 37)])


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits(seed: int) -> None:
    rng, data = np.random.default_rng(seed), small_cnn().SerializeToString()
    results = []
    for _ in range(60):
        damaged = bytearray(data)
        # Weights are half of the file: the structure lies at its ends.
        for position in rng.integers(0, len(data), 1 + seed % 4):
            damaged[position] ^= 1 << rng.integers(8)
        results.append(survives(bytes(damaged)))
    assert False in results


@pytest.mark.parametrize("seed", range(8))
def test_changed_attributes_and_shapes(seed: int) -> None:
    """Numbers replaced by odd ones where the protobuf stays valid."""
    rng = np.random.default_rng(seed)
    odd = [0, -1, 1, 3, 7, 2**31, 2**40, 2**62, -(2**63)]
    for _ in range(40):
        model = small_cnn()
        lists = [a.ints for n in model.graph.node for a in n.attribute if a.ints]
        lists += [t.dims for t in model.graph.initializer if t.dims]
        chosen = lists[rng.integers(len(lists))]
        chosen[int(rng.integers(len(chosen)))] = odd[rng.integers(len(odd))]
        if rng.integers(2):
            node = model.graph.node[rng.integers(len(model.graph.node))]
            del node.input[int(rng.integers(len(node.input)))]
        survives(model)


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"GADL", b"\xff" * 1000, bytes(range(256))])
def test_other_bytes(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(GadlError, match="GADL-F001"):
            import_onnx(source)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(GadlError, match="GADL-F001"):
            import_onnx(path)


HUGE = [
    ([helper.make_node("ConstantOfShape", ["s"], ["k"]), helper.make_node("Add", ["x", "k"], ["y"])], np.array([1 << 40, 1 << 20])),
    ([helper.make_node("Range", ["z", "s", "o"], ["k"]), helper.make_node("Add", ["x", "k"], ["y"])], np.int64(1 << 60)),
    ([helper.make_node("Expand", ["x", "s"], ["y"])], np.array([1 << 40, 1 << 30, 1])),
    ([helper.make_node("Tile", ["x", "s"], ["y"])], np.array([1 << 62])),
    ([helper.make_node("Pad", ["x", "s"], ["y"])], np.array([1 << 62, 0])),
    ([helper.make_node("OneHot", ["i", "s", "ends"], ["y"])], np.int64(1 << 50)),
    ([helper.make_node("Resize", ["x", "", "", "s"], ["y"])], np.array([1 << 50])),
    ([helper.make_node("EyeLike", ["e"], ["k"]), helper.make_node("Add", ["x", "k"], ["y"])], np.int64(1)),
]


@pytest.mark.parametrize(("nodes", "extent"), HUGE, ids=[h[0][0].op_type for h in HUGE])
def test_huge_results(nodes: list[Any], extent: np.ndarray) -> None:
    """Nothing of the size that a node asks for is allocated."""
    constants = {"s": extent, "z": np.int64(0), "o": np.int64(1), "i": np.array([1, 2]), "ends": np.array([0, 1], F32)}
    inputs = {"x": np.zeros(4, F32), "e": np.zeros((1, 4), F32)}
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], inputs, constants)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if nodes[0].op_type == "EyeLike":
        for dim in model.graph.input[1].type.tensor_type.shape.dim:
            dim.dim_value = 1 << 30
    assert not survives(model)


def test_nested_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 iterations of 256 iterations of 256 iterations are refused, not written out."""
    info = helper.make_tensor_value_info

    def nested(depth: int) -> list[Any]:
        if depth == 0:
            return [helper.make_node("Add", ["v1", "v1"], ["w1"])]
        body = helper.make_graph(
            [*nested(depth - 1), helper.make_node("Identity", [f"c{depth}"], [f"d{depth}"])], "body",
            [info(f"i{depth}", TensorProto.INT64, ()), info(f"c{depth}", TensorProto.BOOL, ()), info(f"v{depth}", TensorProto.FLOAT, (1,))],
            [info(f"d{depth}", TensorProto.BOOL, ()), info(f"w{depth}", TensorProto.FLOAT, (1,))],
        )  # fmt: skip
        return [helper.make_node("Loop", ["n", "t", f"v{depth + 1}"], [f"w{depth + 1}"], body=body)]

    monkeypatch.setattr(importer, "MOST_NODES", 1 << 10)
    model = model_of(nested(3), {"v4": np.zeros(1, F32)}, {"n": np.int64(256), "t": np.bool_(True)}, ("w4",))
    with pytest.raises(GadlError, match="more than 1024 nodes"):
        import_onnx(model, simplify=False)


def test_huge_input_and_initializer() -> None:
    model = small_cnn()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 50
    with pytest.raises(GadlError, match="GADL-F007"):
        import_onnx(model)
    model = small_cnn()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 40, 3, 3, 3])
    assert not survives(model)


def test_inputs_that_are_no_tensors() -> None:
    model = small_cnn()
    sequence = helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None)
    model.graph.input.append(sequence)
    with pytest.raises(GadlError, match="GADL-F007"):
        import_onnx(model)


# -- external data ---------------------------------------------------------


def external(tmp_path: Path, location: str, **where: Any) -> Path:
    """A model in its own folder whose weights say that they lie at `location`."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (tmp_path / "secret").write_bytes(b"\1" * 4096)
    (folder / "weights").write_bytes(np.arange(16, dtype=F32).tobytes())
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": np.zeros(16, F32)}, {"w": np.zeros(16, F32)})
    external_data_helper.set_external_data(model.graph.initializer[0], location, **where)
    model.graph.initializer[0].ClearField("raw_data")
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    """Weights in a file beside the model are a view on that file, not a copy."""
    graph = import_onnx(external(tmp_path, "weights"))
    held = graph.ops[0].inputs[1].data
    assert held is not None and not held.flags.owndata and not held.flags.writeable
    np.testing.assert_array_equal(interpret(graph, {"x": np.zeros(16, F32)})["y"], np.arange(16, dtype=F32))


@pytest.mark.parametrize(
    ("location", "where"),
    [("../secret", {}), ("sub/../../secret", {}), ("link", {}), ("missing", {}), (".", {}), ("weights", {"offset": 4}),
     ("weights", {"offset": 1 << 62}), ("weights", {"offset": 0, "length": 8}), ("weights", {"length": 1 << 62})],
)  # fmt: skip
def test_external_data_elsewhere(tmp_path: Path, location: str, where: dict[str, int]) -> None:
    path = external(tmp_path, location, **where)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(GadlError, match="GADL-F001"):
        import_onnx(path)


def test_absolute_external_data(tmp_path: Path) -> None:
    path = external(tmp_path, str(tmp_path / "secret"))
    with pytest.raises(GadlError, match="GADL-F001"):
        import_onnx(path)


def test_external_data_of_a_constant_node(tmp_path: Path) -> None:
    path = external(tmp_path, "weights")
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    tensor.external_data[0].value = "../secret"
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(helper.make_attribute("value", tensor))
    model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GadlError, match="GADL-F001"):
        import_onnx(path)


def test_external_data_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes have no folder: nothing is read from wherever the process runs."""
    path = external(tmp_path, "weights")
    monkeypatch.chdir(path.parent)
    with pytest.raises(GadlError, match="give the path"):
        import_onnx(path.read_bytes())
