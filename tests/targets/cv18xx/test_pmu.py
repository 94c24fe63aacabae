# SPDX-License-Identifier: Apache-2.0
"""Dumps of the performance monitor, in the form that the vendor's runtime writes, from times that are known."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.cli.gadl import main as gadl_command
from gadl.compiler.diag import GadlError
from gadl.targets.cv18xx.chip import CHIPS
from gadl.targets.cv18xx.cost import schedule, tdma_bytes, time_ns
from gadl.targets.cv18xx.cvimodel import Port, build, place_ports
from gadl.targets.cv18xx.descriptor import Command, commands, encode
from gadl.targets.cv18xx.isa import Direction, Elementwise, Engine, Task
from gadl.targets.cv18xx.pmu import Comparison, Kind, compare, id_of, read_dump, read_sums

CHIP = CHIPS["cv181x"]
HEAD = "pmutype, desID, event0, event1, , start, duration, end, layerID, desType,     srcAddr, dstAddr, trans_fmt\n"


def transfer(number: int, wait: int, direction: Direction, rows: int) -> bytes:
    shape = {"src_n": 1, "src_c": 8, "src_h": rows, "src_w": 64, "dst_c": 8, "dst_h": rows, "dst_w": 64}
    strides = {f"{s}_{axis}": size for s in ("src", "dst") for axis, size in (("n_stride", 512 * rows), ("c_stride_low", 64 * rows), ("h_stride", 64))}
    kind = {"vld": 1, "bar_en": 1, "cmd_id": number, "wait_id_tpu": wait, "trans_dir": direction, "src_fmt": 1, "dst_fmt": 1}
    return encode(CHIP, Engine.TDMA, {**kind, **shape, **strides, "src_base_reg_sel": 3, "dst_base_reg_sel": 4})


def elementwise(number: int, wait: int, unit: Elementwise, rows: int) -> bytes:
    shape = {f"{name}_{axis}": size for name in ("res0", "opd0", "opd1") for axis, size in zip("nchw", (1, 8, rows, 64), strict=True)}
    kind = {"cmd_en": 1, "cmd_id_en": 1, "cmd_id_tpu": number, "cmd_id_gdma": wait, "tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": unit}
    return encode(CHIP, Engine.TIU, {**kind, **shape, "opt_res0_seg": 1, "opt_opd0_seg": 1, "opt_opd1_seg": 1})


def make_stream() -> bytes:
    """Four rounds of load, compute, store, and a copy in DDR."""
    out = b""
    for n in range(4):
        out += transfer(2 * n + 1, n, Direction.LOAD, 8 + n)
        out += elementwise(n + 1, 2 * n + 1, (Elementwise.MUL, Elementwise.MAX, Elementwise.COPY, Elementwise.MAC)[n], 8 + n)
        out += transfer(2 * n + 2, n + 1, Direction.STORE, 8 + n)
    return out + transfer(9, 4, Direction.DDR, 16)


STREAM = make_stream()
COMMANDS = commands(CHIP.magic, STREAM)


def dump(slower: Callable[[Command], float] = lambda c: 1.0, first: int = 123456, skip: tuple[int, ...] = ()) -> str:
    """What the runtime would write: every command takes `slower` times its estimate; ticks of the chip's clock, 32 bits."""
    spans = schedule(COMMANDS, [time_ns(c, CHIP) * slower(c) for c in COMMANDS])
    rows = []
    for index, (command, (start, end)) in enumerate(zip(COMMANDS, spans, strict=True)):
        if index in skip:
            continue
        begin, done = (first + round(t * CHIP.mhz / 1000) for t in (start, end))
        if command.engine == Engine.TIU:
            rows.append((done, f"4, {id_of(command)}, 0, 0, 3, {begin % 2**32}, {done - begin}, {done % 2**32}, 0, TIU Element-wise Mul\n"))
            continue
        bursts = tdma_bytes(command.fields).ddr // 16
        kinds = {Direction.LOAD: [1], Direction.STORE: [2], Direction.DDR: [1, 2]}[Direction(command.fields["trans_dir"])]
        for kind in kinds:
            counted = bursts // len(kinds)
            row = f"{kind}, {id_of(command)}, 7, {counted}, {min(kind, 2)}, {begin % 2**32}, {done - begin}, {done % 2**32}, 0, TDMA Tensor Load, 0x1, 0x2,         1\n"
            rows.append((done, row))
    return HEAD + "".join(row for _, row in sorted(rows, key=lambda r: r[0]))


def compared(text: str, mhz: float = CHIP.clock_mhz) -> Comparison:
    return compare(read_dump(text.encode(), "a_des.csv").records, COMMANDS, CHIP, mhz, "a_des.csv")


@pytest.mark.parametrize("first", [0, 123456, 2**32 - 5000, 2**32 - 1])
def test_times_that_are_the_estimates(first: int) -> None:
    """Also when the counter wraps around in the middle."""
    found = compared(dump(first=first))
    assert len(found.commands) == len(COMMANDS) == 13 and found.missing == 0
    tick = 1 / CHIP.mhz
    assert found.measured_us == pytest.approx(found.estimated_us, abs=2 * tick)
    for item in found.commands:
        assert item.start_us == pytest.approx(item.estimated_start_us, abs=2 * tick) and item.end_us == pytest.approx(item.estimated_end_us, abs=2 * tick)
    assert {g.name: g.commands for g in found.by_engine()} == {"TIU": 4, "TDMA LOAD": 4, "TDMA STORE": 4, "TDMA DDR": 1}
    assert all(g.bytes_moved == pytest.approx(g.estimated_bytes, abs=32) for g in found.by_engine())


def test_one_engine_that_is_slower() -> None:
    found = compared(dump(lambda c: 3.0 if c.engine == Engine.TIU else 1.0))
    ratios = {g.name: g.measured_us / g.estimated_us for g in found.by_engine()}
    assert ratios["TIU"] == pytest.approx(3, rel=0.01) and ratios["TDMA LOAD"] == pytest.approx(1, rel=0.01)
    assert {item.command.engine for item in found.worst(4)} == {Engine.TIU}
    operations = found.by_operation()
    assert [g.measured_us for g in operations] == sorted((g.measured_us for g in operations), reverse=True)
    assert next(g for g in operations if g.name == "ELEMENTWISE.MAC").median_ratio == pytest.approx(3, rel=0.01)
    assert found.measured_us > found.estimated_us


def test_another_clock() -> None:
    assert compared(dump(), mhz=1000).measured_us == pytest.approx(compared(dump()).measured_us / 2)


def test_records_that_the_monitor_lost() -> None:
    found = compared(dump(skip=(0, 4, 5)))
    assert found.missing == 3 and len(found.commands) == 10
    assert all(math.isclose(m.time_us, m.estimated_us, abs_tol=0.005) for m in found.commands)


@pytest.mark.parametrize(
    ("old", "new"), [("4, 3, 0", "4, 9, 0"), ("1, 5, 7", "1, 77, 7"), ("2, 4, 7", "3, 4, 7"), ("4, 1, 0", "4, 2, 0")]
)  # fmt: skip
def test_a_dump_of_another_model(old: str, new: str) -> None:
    text = dump()
    assert text.count(f"\n{old}") == 1
    with pytest.raises(GadlError, match="GADL-A013"):
        compared(text.replace(f"\n{old}", f"\n{new}"))


@pytest.mark.parametrize(
    "text", ["", HEAD, "4, 1, 0\n", "x, 1, 0, 0, 3, 1, 2, 3, 0, TIU\n", "5, 1, 0, 0, 3, 1, 2, 3, 0\n", "4, 1, 0, 0, 3, 1, 2, 4, 0\n",
             "4, 70000, 0, 0, 3, 1, 2, 3\n", "4, 1, 0, 0, 3, -1, 2, 1\n", "4, 1, 0, 0, 3, 1, 99999999999999999999, 3\n"],
)  # fmt: skip
def test_no_dump(text: str) -> None:
    with pytest.raises(GadlError, match="GADL-A012"):
        read_dump(text.encode(), "a_des.csv")


def test_a_copy_in_ddr_is_one_record() -> None:
    last = read_dump(dump().encode(), "a").records[-1]
    assert last.kind is Kind.LOAD and last.bytes_moved == pytest.approx(tdma_bytes(COMMANDS[-1].fields).ddr, abs=32)


def as_buffer(text: str, hertz: int = 500_000_000) -> bytes:
    """The same records as the DMA buffer that other builds of the runtime write."""
    records = b""
    for line in text.splitlines()[1:]:
        kind, number, first, second, _, start, _, end = (int(cell) for cell in line.split(",")[:8])
        records += struct.pack("<QII", kind | number << 4 | first << 20 | second << 42, end, start)
    commands = bytes(256)
    header = struct.pack("<HHIIIIIII", 0xB5B5, 0x1822, 384 + len(records), 1, 4, 9, hertz, len(records) + 64, 384)
    return header.ljust(128, b"\0") + commands + records + bytes(64)


def test_the_dma_buffer_says_the_same_and_knows_the_clock() -> None:
    text, buffer = read_dump(dump().encode(), "a"), read_dump(as_buffer(dump(), 700_000_000), "a")
    assert buffer.records == text.records and (text.mhz, buffer.mhz) == (None, 700)


@pytest.mark.parametrize("damage", [lambda b: b[:20], lambda b: b[:500], lambda b: b[:384] + bytes(len(b) - 384), lambda b: b[:384] + b"\x07" + b[385:]])
def test_a_damaged_buffer(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(GadlError, match="GADL-A012"):
        read_dump(damage(as_buffer(dump())), "a")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_dump_or_an_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([dump().encode(), as_buffer(dump())]))
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 255)), max_size=4)):
        if at < len(changed):
            changed[at] = value
    try:
        found = read_dump(bytes(changed), "a")
        compare(found.records, COMMANDS, CHIP, 500, "a")
    except GadlError as error:
        assert error.diagnostics[0].code in ("GADL-A012", "GADL-A013")
    read_sums(changed.decode("utf-8", "replace"))


SUMS = """
cv181x_tpu_clock:         500Mhz, inferece_data:            1.31MB, inference_bw:         234.5MB/s
tdma_exe_tick:           12000t, tiu_exe_tick              4000t, inference_tick           13000t
tdma_exe_ms:              0.02ms, tiu_exe_ms:              0.01ms, inference_ms:            0.03ms
"""


def test_printed_sums() -> None:
    found = read_sums("noise\n" + SUMS.replace("12000", "99") + SUMS)
    assert found is not None and (found.tdma_us, found.tiu_us, found.total_us) == (24, 8, 26)
    assert read_sums(dump()) is None and read_sums(SUMS.replace("500", "0")) is None


def call(*arguments: object) -> Result:
    return CliRunner().invoke(gadl_command, [str(a) for a in arguments])


def test_the_command(tmp_path: Path) -> None:
    inputs, outputs, _ = place_ports([Port("x", (1, 8, 16, 64), 0.5)], [Port("y", (1, 8, 16, 64), 0.5)], 0)
    model, file = tmp_path / "net.cvimodel", tmp_path / "run_des.csv"
    model.write_bytes(build(CHIP, "net", b"", [STREAM], inputs, outputs).encode())
    file.write_text(dump(lambda c: 2.0))
    result = call("profile", "import", file, model, "--csv", tmp_path / "all.csv")
    assert result.exit_code == 0, result.output
    rows = {line.split("  ")[0].strip(): line.split() for line in result.stdout.splitlines()}
    assert rows["TIU"][1] == "4" and float(rows["TIU"][-1]) == pytest.approx(2, rel=0.01)
    assert "estimated us" in result.stdout and len((tmp_path / "all.csv").read_text().splitlines()) == 14
    chinese = call("profile", "import", file, model, "--lang", "zh")
    assert "实测 us" in chinese.stdout and "估计 us" in chinese.stdout
    numbers = json.loads(call("profile", "import", file, model, "--json", "--bandwidth", 1000).stdout)
    assert numbers["measured_us"] > 0 and {g["name"] for g in numbers["engines"]} == {"TIU", "TDMA LOAD", "TDMA STORE", "TDMA DDR"}
    (tmp_path / "raw").write_bytes(as_buffer(dump(lambda c: 2.0), 1_000_000_000))
    faster = json.loads(call("profile", "import", tmp_path / "raw", model, "--json").stdout)
    assert faster["measured_us"] == pytest.approx(numbers["measured_us"] / 2)
    (tmp_path / "printed.txt").write_text(SUMS)
    printed = call("profile", "import", tmp_path / "printed.txt", model)
    assert printed.exit_code == 0 and "26.0" in printed.stdout
    assert json.loads(call("profile", "import", tmp_path / "printed.txt", model, "--json").stdout)["TDMA"]["measured_us"] == 24
    hanging = tmp_path / "hanging.cvimodel"
    stuck = transfer(1, 5, Direction.LOAD, 8)  # waits for a command that never comes
    hanging.write_bytes(build(CHIP, "net", b"", [stuck], inputs, outputs).encode())
    for given_dump in (file, tmp_path / "printed.txt"):
        refused = call("profile", "import", given_dump, hanging)
        assert refused.exit_code == 3 and "GADL-A013" in refused.output and "dead-lock" in refused.output
    for wrong, code in ((tmp_path / "nowhere", "GADL-A012"), (model, "GADL-A012")):
        refused = call("profile", "import", wrong, model)
        assert refused.exit_code == 3 and code in refused.output and "Traceback" not in refused.output
