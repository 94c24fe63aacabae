# SPDX-License-Identifier: Apache-2.0
"""What a session takes and gives: types, raw integers, every tensor, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import gadl
from gadl.compiler.artifact.format import Storage
from gadl.compiler.artifact.writer import ArtifactBuilder, HostStep, TensorRecord
from gadl.compiler.diag import GadlError
from gadl.compiler.diag.files import write_atomically
from gadl.compiler.ir.interpret import check_feeds, interpret_values

SHAPE = (1, 4, 8, 8)


def chain(length: int) -> ModelProto:
    """Convolutions in a row, each an output."""
    w = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32), "w")
    nodes = []
    for i in range(length):
        nodes += [helper.make_node("Conv", [f"y{i - 1}" if i else "x", "w"], [f"c{i}"]), helper.make_node("Relu", [f"c{i}"], [f"y{i}"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in ("x", *(f"y{i}" for i in range(length)))]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).standard_normal(SHAPE).astype(np.float32)} for i in range(3)]


@pytest.mark.parametrize("target", ["cpu", "npu"])
def test_raw_integers_of_every_output_survive_the_run(target: str, tmp_path: Path) -> None:
    gadl.compile(chain(5), target=target, precision="int8", calibration=feeds()).save(tmp_path / "m.gadl")
    session = gadl.load(tmp_path / "m.gadl")
    real = session.run(feeds()[0])
    raw = session.run(feeds()[0], raw=True)
    for name, spec in session.raw_outputs.items():
        assert raw[name].dtype == np.int8
        np.testing.assert_array_equal((raw[name].astype(np.float32) - spec.zero_point) * np.float32(spec.scales[0]), real[name])


def test_every_tensor_can_be_read_and_equals_the_interpreter(tmp_path: Path) -> None:
    artifact = gadl.compile(chain(3), target="cpu", precision="int8", calibration=feeds(), keep_tensors=True)
    artifact.save(tmp_path / "m.gadl")
    session = gadl.load(tmp_path / "m.gadl")
    session.run(feeds()[1])
    want = interpret_values(artifact.graph, check_feeds(artifact.graph, feeds()[1]))
    compared = [spec for spec in session.tensors if spec.name in want]
    assert len(compared) >= 7
    for spec in compared:
        np.testing.assert_array_equal(session.tensor(spec), want[spec.name], err_msg=spec.name)


def test_the_report_is_ready_for_json(tmp_path: Path) -> None:
    gadl.compile(chain(2), calibration=feeds()).save(tmp_path / "m.gadl")
    session = gadl.load(tmp_path / "m.gadl", device="sim")
    session.run(feeds()[0])
    report = json.loads(json.dumps(session.report))
    assert report["device"] == {"driver": "sim", "machine": "npu-edge", "status": "simulated"}
    assert report["counters"]["cycles"] > 0 and report["memory_bytes"] >= 2 * 4 * 256
    assert all(step["time_ns"] > 0 for step in report["steps"])


def echo(path: Path, dtype: str, shape: tuple[int, ...], layout: str = "row_major") -> Path:
    """An artefact that gives its input back."""
    tensors = [TensorRecord(n, dtype, shape, Storage.ARENA, 4096 * i, layout) for i, n in enumerate("xy")]
    step = HostStep("reshape", (0,), (1,), {"shape": shape}) if layout == "row_major" else HostStep("relayout", (0,), (1,), {"to": layout})
    write_atomically(path, ArtifactBuilder({}, tensors, [("x", 0)], [("y", 1)], [step], arena_bytes=8192).to_bytes())
    return path


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "f64", "i8", "u8", "i16", "i32", "i64", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (1, 2, 3, 4, 5)])
def test_every_type_and_rank_passes_through(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    session = gadl.load(echo(tmp_path / "echo.gadl", dtype, shape))
    given = (np.random.default_rng(0).standard_normal(shape) * 50).astype(session.inputs[0].numpy)
    got = session.run({"x": given})["y"]
    assert got.dtype == given.dtype and got.shape == shape
    np.testing.assert_array_equal(got, given)


def test_channels_last_tensors_are_given_in_logical_order(tmp_path: Path) -> None:
    session = gadl.load(echo(tmp_path / "echo.gadl", "i8", (2, 3, 4, 5), "channels_last"))
    given = np.arange(120, dtype=np.int8).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(session.run({"x": given})["y"], given)
    (stored,) = [s for s in session.tensors if s.name == "x"]
    assert stored.channels_last
    np.testing.assert_array_equal(session.tensor(stored), given)


@pytest.mark.parametrize(
    ("given", "text"),
    [(None, "missing"), (np.zeros(4), "shape"), ([[1], [1, 2]], "not an array|shape"), (np.zeros(3, complex), "type complex128"), (np.array(["a"] * 3), "type")],
)
def test_what_does_not_fit_an_input_is_said(given: Any, text: str, tmp_path: Path) -> None:
    session = gadl.load(echo(tmp_path / "echo.gadl", "f32", (3,)))
    with pytest.raises(GadlError, match=rf"GADL-I010[\s\S]*({text})"):
        session.run({} if given is None else {"x": given})


def test_numbers_of_another_width_are_converted_and_floats_are_no_integers(tmp_path: Path) -> None:
    session = gadl.load(echo(tmp_path / "echo.gadl", "i32", (3,)))
    np.testing.assert_array_equal(session.run({"x": np.array([1, 2, -3], np.int64)})["y"], [1, 2, -3])
    with pytest.raises(GadlError, match="GADL-I010.*type float64, expected int32"):
        session.run({"x": np.array([1.5, 2, 3])})


def test_another_device_is_refused(tmp_path: Path) -> None:
    gadl.compile(chain(1), calibration=feeds()).save(tmp_path / "m.gadl")
    with pytest.raises(GadlError, match="GADL-R002.*'host'.*'sim'"):
        gadl.load(tmp_path / "m.gadl", device="host")
