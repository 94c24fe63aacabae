# SPDX-License-Identifier: Apache-2.0
"""The `.cvimodel` container: ours, and what others may hand over."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import flatbuffers
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gadl.compiler.cli.gadl import main
from gadl.compiler.diag import GadlError
from gadl.targets.cv18xx.arguments import Argument, decode_arguments, encode_arguments
from gadl.targets.cv18xx.chip import CHIPS
from gadl.targets.cv18xx.cvimodel import (
    BUILD_TIME,
    CpuRoutine,
    CviModel,
    DataType,
    Model,
    Port,
    Quant,
    Region,
    Routine,
    RoutineKind,
    SectionKind,
    Shape,
    Weight,
    build,
    decode,
    place_ports,
)
from gadl.targets.cv18xx.descriptor import encode
from gadl.targets.cv18xx.flatbuffer import FlatbufferError, read
from gadl.targets.cv18xx.isa import Direction, Elementwise, Engine, Task
from gadl.targets.cv18xx.listing import describe, disassemble_model

CHIP = CHIPS["cv181x"]
VENDOR = sorted(Path(os.environ["GADL_CVIMODELS"]).glob("*.cvimodel")) if "GADL_CVIMODELS" in os.environ else []


def stream(*commands: tuple[Engine, dict[str, int]]) -> bytes:
    return b"".join(encode(CHIP, engine, fields) for engine, fields in commands)


LOAD = (Engine.TDMA, {"vld": 1, "cmd_id": 1, "src_w": 256, "dst_w": 256})
LOOK_UP = (Engine.TIU, {"cmd_en": 1, "cmd_id_tpu": 1, "cmd_id_gdma": 1, "tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": Elementwise.LOOKUP})
STORE = (Engine.TDMA, {"vld": 1, "cmd_id": 2, "wait_id_tpu": 1, "trans_dir": Direction.STORE})


def small(**more: int) -> CviModel:
    """A model of two streams."""
    given, made, private = place_ports([Port("x", (1, 3, 4), 0.5)], [Port("y", (1, 10), 0.25)], 64)
    streams = [stream(LOAD, LOOK_UP, STORE), stream(LOAD)]
    return build(CHIP, "small", b"weights", streams, given, made, private_bytes=private, shared_bytes=32)


def with_everything() -> CviModel:
    """A model with a value in every slot that is read."""
    model = small()
    program = model.model.programs[0]
    tensor = replace(
        program.tensors[0], stride=Shape((4, 4, 1, 1)), overwrote=True, scale=(1.5, 2.0), mean=(0.25,), pixel_format="RGB_PLANAR", aligned=True,
        quant=Quant(2, 3.0, -3.0, 1.0, 0.5),
    )  # fmt: skip
    arguments = encode_arguments({"from": "FP32", "scale": 2.0})
    routine = Routine(RoutineKind.CPU, ("x",), ("x",), cpu=CpuRoutine("quant", arguments))
    program = replace(program, neuron_bytes=5, tensors=(tensor, program.tensors[1]), routines=(routine, *program.routines))
    weight = Weight("w", 1 << 40 | 48, 16, Shape((1, 2, 4, 2)), int(DataType.INT8))
    root = replace(model.model, weights=(weight,), programs=(program, program), mlir_version="v1")
    sections = tuple(replace(s, decompressed_size=7) for s in root.sections)
    return replace(model, model=replace(root, sections=sections))


def offsets(model: CviModel) -> list[int]:
    return [section.offset for section in model.model.sections]


@pytest.mark.parametrize("model", [small(), with_everything()], ids=["small", "with everything"])
def test_containers_come_back(model: CviModel) -> None:
    data = model.encode()
    found = decode(data)
    assert found.md5_equal and found.data == model.data and found.encode() == data
    placed = tuple(replace(s, offset=f.offset, size=f.size) for s, f in zip(model.model.sections, found.model.sections, strict=True))
    assert found.model == replace(model.model, sections=placed)
    assert all(offset % 16 == 0 for offset in offsets(found))
    for index, section in enumerate(found.model.sections):
        start = len(data) - offsets(found)[-1] - found.model.sections[-1].size + section.offset
        assert data[start : start + section.size] == model.data[index]


def test_the_same_model_gives_the_same_bytes() -> None:
    first = small().encode()
    assert first == small().encode()
    assert first[:8] == b"CviModel" and first[12:14] == bytes([1, 4]) and first[30:48] == b"cv181x".ljust(18, b"\0")
    assert decode(first).model.build_time == BUILD_TIME


def test_tables_of_a_built_model() -> None:
    program = decode(small().encode()).model.programs[0]
    assert (program.inputs, program.outputs, program.shared_bytes, program.private_bytes) == (("x",), ("y",), 32, 64)
    x, y = program.tensors
    assert x.shape == Shape((1, 3, 4, 1)) and x.dtype == DataType.INT8 and x.size == 12 and (x.region, x.address) == (3, 0)
    assert y.quant == Quant(kind=2, qscale=0.25) and (y.region, y.address) == (4, 0)
    assert [routine.tpu.commands for routine in program.routines if routine.tpu] == ["commands_0", "commands_1"]


def test_ports_beyond_the_base_registers_lie_in_private_memory() -> None:
    given, made, private = place_ports([Port("x", (1, 5), 1.0)], [Port(f"y{i}", (1, 5), 1.0, DataType.FP32) for i in range(6)], 100)
    assert [(port.region, port.address) for port in (*given, *made)] == [(3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (2, 112), (2, 144)]
    assert private == 144 + 20 and Region.LAST_PORT == 7


def test_a_wrong_md5_is_told() -> None:
    data = bytearray(small().encode())
    data[-1] ^= 1
    found = decode(bytes(data))
    assert not found.md5_equal and describe(found)[0]["md5"] == "different"


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(width=32, allow_nan=False), st.text(max_size=9),
            st.lists(st.floats(width=32, allow_nan=False), min_size=1).map(tuple), st.lists(st.integers(-9, 9), min_size=1).map(tuple),
        ),
    )
)  # fmt: skip
def test_arguments_come_back(arguments: dict[str, Argument]) -> None:
    assert decode_arguments(encode_arguments(arguments)) == arguments


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_inspect_lists_a_model(tmp_path: Path) -> None:
    path = tmp_path / "m.cvimodel"
    path.write_bytes(with_everything().encode())
    listed = call(path, "--json")
    found = json.loads(listed.stdout)
    assert listed.exit_code == 0 and found["chip"] == "cv181x" and found["md5"] == "equal"
    assert [section["kind"] for section in found["sections"]] == ["weights", "commands", "commands"]
    assert found["programs"][0]["routines"][0] == {
        "kind": "cpu", "inputs": ["x"], "outputs": ["x"], "function": "quant", "arguments": {"from": "FP32", "scale": 2.0},
    }  # fmt: skip
    assert found["programs"][0]["tensors"][1] == {
        "name": "y", "dtype": "int8", "shape": [1, 10, 1, 1], "region": 4, "address": 0, "bytes": 10, "qscale": 0.25,
    }  # fmt: skip
    assert found["weights"][0]["region"] == 1 and found["weights"][0]["address"] == 48
    totals = found["estimated"]
    assert totals["tiu_commands"] == 1 and totals["tdma_commands"] == 3 and totals["mb_per_s"] == 3772
    assert totals["load_bytes"] == 512 and totals["store_bytes"] == 1 and totals["ddr_bytes"] == 512 + 64
    one, two = (section["estimated"] for section in found["sections"][1:])
    assert totals["overlap_us"] == one["overlap_us"] + two["overlap_us"] and totals["serial_us"] > 0
    text = call(path).stdout
    assert "estimated at 3772 MB/s: serial" in text and "cpu quant(from=FP32, scale=2.0): x -> x" in text and "qscale 0.25" in text
    assert text.count("serial") == 3 and "all sections" in text
    assert "按 3772 MB/s 估计: serial" in call(path, "--lang", "zh").stdout and "MD5 与内容一致" in call(path, "--lang", "zh").stdout
    asm = call(path, "--asm").stdout
    assert asm == disassemble_model(path.read_bytes()) and asm.startswith("; commands_0\nTDMA 1 after 0 LOAD")
    assert json.loads(call(path, "--asm", "--json").stdout)["sections"][1]["asm"] == asm.splitlines()[1:4]
    assert call(path, "--plan").exit_code == 2


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda m: m.encode()[:40], "GADL-A010", "not a .cvimodel"),
        (lambda m: m.encode()[:200], "GADL-A010", "truncated"),
        (lambda m: m.encode()[:-1], "GADL-A010", "'commands_1' reaches beyond its end"),
        (lambda m: m.encode()[:12] + bytes([1, 5]) + m.encode()[14:], "GADL-A010", "version 1.5"),
        (lambda m: m.encode()[:48] + b"\xff" * 4 + m.encode()[52:], "GADL-A010", "leads to byte"),
        (lambda m: replace(m, chip="cv182x").encode(), "GADL-A011", "chip 'cv182x'"),
        (lambda m: replace(m, chip="cv180x").encode(), "GADL-A011", "no command starts at byte 0"),
        (lambda m: replace(m, data=(b"", m.data[1], m.data[2][:-1])).encode(), "GADL-A011", "'commands_1' cannot be read: the stream ends"),
        (lambda m: replace(m, data=(b"", m.data[1], stream(LOOK_UP))).encode(), "GADL-A011", "dead-lock"),
        (
            lambda m: replace(m, model=replace(m.model, sections=tuple(replace(s, compressed=True) for s in m.model.sections))).encode(),
            "GADL-A011",
            "compressed",
        ),
    ],
)
def test_what_cannot_be_read_has_a_code(tmp_path: Path, change: object, code: str, text: str) -> None:
    path = tmp_path / "m.cvimodel"
    path.write_bytes(change(small()))  # type: ignore[operator]
    result = call(path)
    assert result.exit_code == 3 and code in result.output and text in result.output.replace("\n", " "), result.output
    assert ("section commands_0" in result.stdout) == (code == "GADL-A011")


def test_a_missing_file_and_a_gadl_file_go_the_other_way(tmp_path: Path) -> None:
    assert "GADL-A001" in call(tmp_path / "none.cvimodel").output


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    model = small()
    path = tmp_path / "m.cvimodel"
    path.write_bytes(replace(model, model=replace(model.model, name="a\x1b[2Jb\nc")).encode())
    assert "a\ufffd[2Jb\ufffdc" in call(path).stdout and "\x1b" not in call(path).stdout


def outcome(data: bytes) -> None:
    """Listed, or refused with a code."""
    try:
        found, problems = describe(decode(data), asm=True)
    except GadlError as error:
        assert error.diagnostics[0].code == "GADL-A010"
        return
    json.dumps(found, allow_nan=False)
    assert all(problem.code == "GADL-A011" for problem in problems)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_listed_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(with_everything().encode())
    for at, value in changes:
        data[at % len(data)] = value
    outcome(bytes(data[: len(data) - cut]))


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from([0, 1, 4, 0xFF, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])), max_size=6))
@settings(max_examples=300, deadline=None)
def test_damaged_offsets_are_listed_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(with_everything().encode())
    size = struct.unpack_from("<I", data, 8)[0]
    for at, value in changes:
        struct.pack_into("<I", data, 48 + at * 4 % (size - 4), value)
    outcome(bytes(data))


@given(st.binary(max_size=300))
def test_any_bytes_behind_the_magic(tail: bytes) -> None:
    outcome(b"CviModel" + tail)
    outcome(b"CviModel" + struct.pack("<I", len(tail)) + bytes([1, 4]) + b"cv181x".rjust(22, b"\0").ljust(34, b"\0") + tail)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_command_survives_damaged_files(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(with_everything().encode())
    for at, value in changes:
        data[8 + at % (len(data) - 8)] = value
    path = tmp_path / "m.cvimodel"
    path.write_bytes(data)
    for options in ((), ("--asm",), ("--json",)):
        result = call(path, *options)
        assert result.exit_code in (0, 3) and "GADL-U070" not in result.output, result.output


def test_files_whose_tables_share_everything_are_refused() -> None:
    """A thousand references to one program with a thousand references to one name would be a gigabyte."""
    builder = flatbuffers.Builder(1024)

    def references(offset: int) -> int:
        builder.StartVector(4, 1000, 4)
        for _ in range(1000):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    names = references(builder.CreateString("n" * 1000))
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(2, names, 0)
    programs = references(builder.EndObject())
    builder.StartObject(10)
    builder.PrependUOffsetTRelativeSlot(6, programs, 0)
    builder.Finish(builder.EndObject())
    with pytest.raises(FlatbufferError, match="too often"):
        read(Model, bytes(builder.Output()))


def test_a_table_of_slots_needs_room_for_its_own_sizes() -> None:
    with pytest.raises(FlatbufferError, match="table at byte 8 is damaged"):
        read(Model, struct.pack("<IHHi", 8, 2, 0, 4))


@pytest.mark.skipif(not VENDOR, reason="GADL_CVIMODELS names no folder of .cvimodel files of the vendor's compiler")
@pytest.mark.parametrize("path", VENDOR, ids=lambda p: p.name)
def test_files_of_the_vendors_compiler(path: Path) -> None:
    """Every command comes back byte for byte, every table through our writer, and the file is listed whole."""
    model = decode(path.read_bytes(), str(path))
    assert model.md5_equal
    for index, section in enumerate(model.model.sections):
        if section.kind == SectionKind.COMMANDS:
            made = b"".join(encode(CHIPS[model.chip], c.engine, c.fields) for c in model.commands(index))
            assert made == model.data[index] and made
    again = decode(model.encode())
    moved = tuple(replace(s, offset=a.offset) for s, a in zip(model.model.sections, again.model.sections, strict=True))
    assert again.data == model.data and again.model == replace(model.model, sections=moved)
    assert call(path).exit_code == 0
    assert json.loads(call(path, "--json").stdout)["estimated"]["overlap_us"] > 0


def test_sections_of_ours_are_of_no_kind_that_the_runtime_loads() -> None:
    model = decode(build(CHIPS["cv181x"], "m", b"", [b""], [Port("x", (1, 4), 1.0)], [Port("y", (1, 4), 1.0)], extra={"note": b"text"}).encode())
    kinds = {section.name: section.kind for section in model.model.sections}
    assert kinds["note"] not in {kind for kind in SectionKind if kind is not SectionKind.PRIVATE} and model.data[-1] == b"text"
