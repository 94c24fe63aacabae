# SPDX-License-Identifier: Apache-2.0
"""Hostile `.gir` text: every failure is `GADL-I002` with a place, in bounded time and memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from graphs import EVERYTHING, graph_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.parser import load_gir, parse

GOOD = 'gir 1.0 float\ngraph "g" {\n  input %x : f32[2,3]\n  %y : f32[2,3] = neg(%x)\n  output "y" = %y\n}\n'


def refused(text: str) -> tuple[str, str]:
    """Place and detail of the failure that `text` must give."""
    with pytest.raises(GadlError) as caught:
        parse(text, "f.gir")
    (found,) = caught.value.diagnostics
    assert found.code == "GADL-I002"
    return found.where, found.values["detail"]


@pytest.mark.parametrize(
    ("before", "after", "where", "detail"),
    [
        ("gir 1.0", "gir 2.0", "1:5", "version 2.0"),
        ("gir 1.0", "ir 1.0", "1:1", "expected 'gir'"),
        ("float", "flat", "1:9", "'flat' is not a valid Stage"),
        ("neg(%x)", "neg(%z)", "4:23", "'z' is not defined"),
        ("neg(%x)", "neg(%x", "5:3", "expected ','"),
        ("neg(%x)", "warp(%x)", "4:19", "no op 'warp'"),
        ("neg(%x)", "neg(%x, %x)", "4:19", "at most 1 operands"),
        ("neg(%x)", "neg()", "4:19", "needs operand 'x'"),
        ("neg(%x)", "neg(%x) {axis = 1}", "4:28", "attribute 'axis'"),
        ("neg(%x)", "softmax(%x) {axis = 1.5}", "4:39", "expected an integer"),
        ("%y : f32", "%x : f32", "4:3", "'x' is defined twice"),
        ("f32[2,3] = neg", "f33[2,3] = neg", "4:8", "f33"),
        ("f32[2,3] = neg", "f32[2,-3] = neg", "4:16", "unreasonable"),
        ("f32[2,3] = neg", "f32[" + "2," * 17 + "] = neg", "4:46", "unreasonable"),
        ("f32[2,3] = neg", "f32[99999999999] = neg", "4:23", "unreasonably large"),
        ("f32[2,3] = neg", "i8[2,3]<s=[-1.0],z=0> = neg", "4:28", "positive"),
        ("f32[2,3] = neg", "i8[2,3]<s=[1.0,2.0],z=0> = neg", "4:31", "axis"),
        ("f32[2,3] = neg", "i8[2,3]<s=[1.0],z=0,axis=1> = neg", "4:33", "do not fit"),
        ("f32[2,3] = neg", "f32[2,3]@sideways = neg", "4:17", "sideways"),
        ("}", "", "7:1", "expected a name"),
        ("}", "} }", "6:3", "after the graph"),
        ('"y"', '"y', "5:10", "unexpected character"),
        ('"y"', r'"\q"', "5:10", "escape"),
        ('"y"', r'"\ud800"', "5:10", "surrogate"),
        ("2,3", "²,3", "3:18", "unexpected character"),
        ("2,3", "2," + "3" * 100, "3:20", "long number"),
    ],
)
def test_where_and_why(before: str, after: str, where: str, detail: str) -> None:
    found = refused(GOOD.replace(before, after, 1) if before != "}" else GOOD.replace("}", after))
    assert detail in found[1]
    assert found[0] == f"f.gir:{where}"


@pytest.mark.parametrize(
    ("tensor", "detail"),
    [
        ("i8[2] [1]", "1 elements do not fill"),
        ("i8[2] [1, 128]", "128 is not in the range of i8"),
        ("i8[2] [1, 1.5]", "expected an integer"),
        ("i8[2] [1, true]", "expected an integer"),
        ("u8[2] [1, 2]", "does not have its type"),
        ("i8[1,2] [1, 2]", "does not have its type"),
        ("i8[n] [1]", "static shape"),
        ("#0", "resource #0 is missing"),
        ("i8[2] elided 0123456789ab", "expected '['"),
    ],
)
def test_constants(tensor: str, detail: str) -> None:
    assert detail in refused(f'gir 1.0 float\ngraph "g" {{\n  const %c : i8[2] = {tensor}\n}}\n')[1]


@pytest.mark.parametrize(
    ("resource", "detail"),
    [
        ('#0 : f32[17] = "AAAA"', "3 bytes do not fill"),
        ('#0 : f32[17] = "AA*="', "base64"),
        ('#0 : f32[4294967296,4294967296] = ""', "unreasonably large"),
        ("#0 : f32[1] = AAAA", "expected a string"),
        ("%0 : f32[1]", "expected a resource"),
        ('#0 : i8[3] = "AAAA"', "does not have its type"),
    ],
)
def test_resources(resource: str, detail: str) -> None:
    text = f'gir 1.0 float\ngraph "g" {{\n  const %c : f32[17] = #0\n}}\nresources {{\n  {resource}\n}}\n'
    assert detail in refused(text)[1]


def test_requantisations() -> None:
    line = '  input %x : i8[2]\n  %y : i8[2] = requantize(%x) {requant = requant(REQUANT)}'
    for text, detail in (
        ("up, i32[1] [1], i8[2] [1, 2]", "one length"), ("sideways, i32[1] [1], i8[1] [1]", "sideways"),
        ("up, i64[1] [1], i8[1] [1]", "i32 multiplier"),
    ):  # fmt: skip
        assert detail in refused(f'gir 1.0 quantized\ngraph "g" {{\n{line.replace("REQUANT", text)}\n}}\n')[1]


def test_layout_of_the_text_does_not_matter() -> None:
    dense = parse(GOOD.replace("\n", " ").replace("  ", " "))
    assert str(dense) == str(parse(GOOD)) == str(graph_of(GOOD.split("{\n")[1].rsplit("\n}")[0])).replace('"main"', '"g"')


def test_files(tmp_path: Path) -> None:
    for content in (None, b"\xff\xfe", b"", b"\x00" * 100):
        path = tmp_path / "g.gir"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(GadlError, match="GADL-I002"):
            load_gir(path)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10**6,
        '"' * 10**6,
        '"' + "\\" * 10**6,
        " " * 10**6 + "!",
        GOOD.replace("(%x)", "(" + "%x, " * 10**5),
        GOOD.replace("2,3", "2," * 10**5),
        GOOD.replace("(%x)", "(%x) {axes = (" + "1, " * 10**5),
        GOOD + "\nresources {" * 10**5,
        "9" * 10**6,
        "gir 1.0 " + "f" * 10**6,
    ],
    ids=["open", "quotes", "escapes", "blanks", "operands", "dims", "tuple", "resources", "digits", "word"],
)
def test_long_input_is_refused_in_linear_time(text: str) -> None:
    start = time.process_time()
    refused(text)
    assert time.process_time() - start < 2


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 12), st.text(max_size=4) | st.sampled_from(["-1", "#0", "%x", "(", "}", "none", '"'])), min_size=1, max_size=4))
@example([(0, 10**6, "")])
def test_damaged_text_is_read_or_refused(edits: list[tuple[int, int, str]]) -> None:
    text = EVERYTHING
    for at, drop, insert in edits:
        at %= len(text) + 1
        text = text[:at] + insert + text[at + drop :]
    try:
        str(parse(text))
    except GadlError as error:
        assert [d.code for d in error.diagnostics] == ["GADL-I002"]
