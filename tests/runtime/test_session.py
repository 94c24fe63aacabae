# SPDX-License-Identifier: Apache-2.0
"""Artefacts and sessions: the whole way on a small model, bad files, threads."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import gadl
from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.diag import GadlError
from gadl.runtime.session import Session

SHAPE = (1, 3, 16, 16)


@pytest.fixture(scope="module")
def model() -> ModelProto:
    """Convolution, hard swish, pooling, a softmax that stays on the host."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal(s) / 4).astype(np.float32), n)
        for n, s in (("w", (8, 3, 3, 3)), ("b", (8,)), ("d", (8, 1, 3, 3)), ("p", (10, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["c"], ["h"]),
        helper.make_node("Conv", ["h", "d"], ["e"], group=8, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["e"], ["r"]),
        helper.make_node("Conv", ["r", "p"], ["q"]),
        helper.make_node("GlobalAveragePool", ["q"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).standard_normal(SHAPE).astype(np.float32)} for i in range(count)]


@pytest.fixture(scope="module")
def compiled(model: ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "net.gadl"
    gadl.compile(model, target="npu", calibration=feeds()).save(path)
    return path


def reference(model: ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0]


def test_int8_on_the_simulator_is_close_to_onnx_runtime(model: ModelProto, compiled: Path) -> None:
    session = gadl.load(compiled, device="sim")
    got = session.run(feeds()[1])["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference(model, feeds()[1]), atol=0.02)
    assert session.counters["cycles"] > 0
    assert {op for op, _, _ in session.profile} >= {"segment", "softmax", "quantize"}


def test_compilation_goes_on_from_a_graph_of_any_stage(model: ModelProto, tmp_path: Path) -> None:
    """Every dump of `--dump-ir` compiles to the same bytes."""
    whole = gadl.compile(model, target="npu", calibration=feeds(), dump_ir=tmp_path).data
    dumps = sorted(tmp_path.glob("*.gir"))
    assert {d.stem.split("_", 1)[1] for d in dumps} >= {"import", "quantize", "partition", "choose_layouts"}
    for dump in dumps:
        assert gadl.compile(dump, target="npu", calibration=feeds()).data == whole, dump.name


def test_a_map_of_one_channel_reaches_the_output(tmp_path: Path) -> None:
    """A head with one channel: the device writes it channels last, which is the same bytes as row major."""
    weights = numpy_helper.from_array(np.random.default_rng(1).standard_normal((1, 3, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Sigmoid", ["c"], ["y"])]
    graph = helper.make_graph(
        nodes, "head", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 16, 16])], [weights],
    )  # fmt: skip
    head = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    gadl.compile(head, target="npu", calibration=feeds()).save(tmp_path / "head.gadl")
    got = gadl.load(tmp_path / "head.gadl").run(feeds()[1])["y"]
    np.testing.assert_allclose(got, reference(head, feeds()[1]), atol=0.03)


@pytest.mark.parametrize(("target", "precision", "tolerance"), [("cpu", "float", 1e-5), ("cpu", "fp16", 5e-3), ("npu", "fp16", 5e-3), ("npu", "int16", 0.02), ("cpu", "int8", 0.02)])
def test_targets_and_precisions(model: ModelProto, tmp_path: Path, target: str, precision: str, tolerance: float) -> None:
    artifact = gadl.compile(model, target=target, precision=precision, calibration=feeds())
    artifact.save(tmp_path / "net.gadl")
    got = gadl.load(tmp_path / "net.gadl").run(feeds()[2])["y"]
    np.testing.assert_allclose(got, reference(model, feeds()[2]), atol=tolerance)
    if precision != "float" and target == "npu":
        assert artifact.report["placement"]["npu"] > 0


def test_the_report_has_the_documented_keys(model: ModelProto) -> None:
    report = gadl.compile(model, calibration=feeds()).report
    assert set(report) >= {"schema_version", "model", "target", "machine", "placement", "quant", "plan", "latency_us", "compile_s", "stages_s", "artifact"}
    assert set(report["plan"]) >= {"cycles", "lb0_cycles", "lbgeo_cycles", "mac_utilisation", "dram_bytes", "dram_bound_bytes", "sram_peak_bytes", "weights_raw_bytes", "weights_compressed_bytes"}
    assert set(report["artifact"]) == {"path", "bytes", "sha256"}
    assert [r["op"] for r in report["placement"]["reasons"]] == ["softmax"]
    json.dumps(report)


def test_the_same_input_gives_the_same_bytes(model: ModelProto) -> None:
    first, second = (gadl.compile(model, calibration=feeds()).data for _ in range(2))
    assert first == second


def test_strict_placement_lists_every_host_op(model: ModelProto) -> None:
    with pytest.raises(GadlError, match="GADL-P002.*softmax"):
        gadl.compile(model, calibration=feeds(), strict_placement=True)


def test_calibration_is_asked_for(model: ModelProto) -> None:
    with pytest.raises(GadlError, match="GADL-Q001"):
        gadl.compile(model)
    with pytest.raises(GadlError, match="GADL-T001"):
        gadl.compile(model, target="abacus")
    with pytest.raises(GadlError, match="GADL-T002"):
        gadl.compile(model, precision="int3")


def test_two_sessions_in_parallel_give_the_same_bytes(compiled: Path) -> None:
    want = gadl.load(compiled).run(feeds()[0])["y"]
    results: list[Any] = [None, None]

    def work(index: int) -> None:
        session = gadl.load(compiled)
        for _ in range(5):
            results[index] = session.run(feeds()[0])["y"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, want)


def test_wrong_feeds_are_reported_at_once(compiled: Path) -> None:
    with pytest.raises(GadlError) as caught:
        gadl.load(compiled).run({"x": np.zeros((1, 3, 4, 4), np.float32), "z": np.zeros(1)})
    assert len(caught.value.diagnostics) == 2


def with_checksums(data: bytearray) -> bytes:
    """The file with its table's checksums mended."""
    count = struct.unpack_from("<I", data, 16)[0]
    for i in range(count):
        at, size = struct.unpack_from("<QQ", data, 32 + 40 * i + 24)
        struct.pack_into("<I", data, 32 + 40 * i + 20, zlib.crc32(bytes(data[at : at + size])))
    return bytes(data)


def test_damaged_files_are_refused(compiled: Path, tmp_path: Path) -> None:
    good, path = compiled.read_bytes(), tmp_path / "bad.gadl"
    flipped = bytearray(good)
    flipped[ArtifactFile(good).sections["host", 0][0] + 40] ^= 1
    for data in (b"", b"GADL", good[:100], good[:-1], b"X" + good[1:], bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(GadlError, match="GADL-[AR]00"):
            gadl.load(path)
    newer = bytearray(good)
    struct.pack_into("<H", newer, 4, 9)
    path.write_bytes(newer)
    with pytest.raises(GadlError, match="GADL-A002.*9.0"):
        gadl.load(path)


def test_mutated_schedules_never_crash(compiled: Path, tmp_path: Path) -> None:
    """In a process of its own, so that a crash would be seen."""
    code = """
import struct, sys
sys.path.insert(0, sys.argv[3])
from test_session import with_checksums
import numpy as np, gadl
from gadl.compiler.diag import GadlError
good = open(sys.argv[1], 'rb').read()
from gadl.compiler.artifact.reader import ArtifactFile
at, size = ArtifactFile(good).sections[('host', 0)]
rng = np.random.default_rng(5)
for _ in range(300):
    data = bytearray(good)
    for _ in range(int(rng.integers(1, 4))):
        data[at + int(rng.integers(size))] = int(rng.integers(256))
    open(sys.argv[2], 'wb').write(with_checksums(data))
    try:
        s = gadl.load(sys.argv[2])
    except GadlError:
        continue
    try:
        s.run({t.name: np.zeros(t.shape, t.numpy) for t in s.inputs})
    except (GadlError, ValueError, MemoryError):
        pass
print('survived')
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(compiled), str(tmp_path / "m.gadl"), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root / "src", timeout=120)
    assert result.stdout.strip().endswith("survived"), result.stderr[-2000:]


def test_one_wrong_bit_fails_a_compilation(model: ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an integer output; a float one, here behind a softmax, may differ in its last places."""
    right = Session.run

    def wrong(self: Session, given: Any, **options: Any) -> dict[str, np.ndarray]:
        return {n: np.nextafter(a, np.float32(np.inf)) for n, a in right(self, given, **options).items()}

    monkeypatch.setattr(Session, "run", wrong)
    report = gadl.compile(model, calibration=feeds()).report
    assert 0 < report["self_check"]["max_relative_difference"] < 1e-6
    integer = ModelProto()
    integer.CopyFrom(model)
    del integer.graph.node[-1]
    integer.graph.output[0].name = "f"
    with pytest.raises(GadlError, match="GADL-P003"):
        gadl.compile(integer, calibration=feeds())


def test_reader_shows_manifest_and_programs(compiled: Path) -> None:
    file = ArtifactFile.open(compiled)
    assert file.manifest["status"] == "simulated"
    assert len(file.programs) == 1 and file.programs[0][:4] == b"GNPU"
