# SPDX-License-Identifier: Apache-2.0
"""The text form: what it looks like, and that it reads back as the same graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import EVERYTHING
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.graph import Graph, Location, Placement, Stage
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.parser import load_gir, parse
from gadl.compiler.ir.printer import print_graph, save_gir
from gadl.compiler.ir.requant import make_requant
from gadl.compiler.ir.types import DType, Layout, QuantParams, Rounding, TensorType
from gadl.compiler.ir.verify import verify

DOCS = Path(__file__).parents[3] / "docs"


def test_golden() -> None:
    """A graph that is built prints as written here; the text says everything that the graph says."""
    graph = Graph("net", Stage.QUANTIZED)
    x = graph.add_input("x", TensorType(DType.F32, (1, 2, 2, 2)))
    w = graph.constant(np.array([[[[3]], [[-1]]]], np.int8), "w", QuantParams((0.125,), 0, 0))
    builder = Builder(graph, loc=Location("m.onnx", "conv 1", 7))
    q = builder("quantize", x, result="q", type=TensorType(DType.I8, x.shape, QuantParams((0.1,), -3)))
    y = builder(
        "conv", q, w, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), requant=make_requant(0.5), result="y",
        type=TensorType(DType.I8, (1, 1, 2, 2), QuantParams((0.2,), 1), Layout.CHANNELS_LAST),
    )  # fmt: skip
    builder.loc = Location()
    graph.set_outputs([builder("dequantize", y, result="y")], ["out"])
    assert print_graph(graph) == (
        "gir 1.0 quantized\n"
        'graph "net" {\n'
        "  input %x : f32[1,2,2,2]\n"
        "  const %w : i8[1,2,1,1]<s=[0.125],z=0,axis=0> = i8[1,2,1,1] [3, -1]\n"
        '  %q : i8[1,2,2,2]<s=[0.1],z=-3> = quantize(%x) loc("m.onnx", "conv 1", "", 7)\n'
        "  %y : i8[1,1,2,2]<s=[0.2],z=1>@channels_last = conv(%q, %w) {strides = (1, 1), pads = (0, 0, 0, 0), dilations = (1, 1), "
        'groups = 1, requant = requant(up, i32[1] [1073741824], i8[1] [31])} loc("m.onnx", "conv 1", "", 7)\n'
        "  %y_1 : f32[1,1,2,2] = dequantize(%y)\n"
        '  output "out" = %y_1\n'
        "}\n"
    )


def test_everything_reads_back() -> None:
    graph = parse(EVERYTHING)
    verify(graph)
    assert print_graph(graph) == EVERYTHING
    assert graph.stage is Stage.PLACED and graph.name == 'a "model"'
    q, conv, lut = graph.ops[:3]
    assert q.loc == Location("net.onnx", "in/\x01", 0) and q.placement == Placement("host", None, "输入在主机上")
    assert conv.loc == Location(python="net.py:88 in forward") and conv.placement == Placement("npu", 0)
    assert conv.result.layout is Layout.CHANNELS_LAST and conv.attrs["requant"].shift.tolist() == [38, 37]
    assert conv.inputs[1].quant == QuantParams((0.01, 0.02), 0, 0)
    assert lut.attrs["table"].tolist() == list(range(-128, 128))
    assert graph.output_names == ["out", "mean 均值", "shift", "mask", "half", "brain"]


def test_the_example_of_the_page_reads_back() -> None:
    (example,) = re.findall(r"```\n(gir .*?)```", (DOCS / "ir.md").read_text(encoding="utf-8"), re.DOTALL)
    graph = parse(example)
    verify(graph)
    assert print_graph(graph) == example


def test_shared_buffers_are_written_once() -> None:
    graph = Graph()
    data = np.zeros(100, np.float32)
    a, b = graph.constant(data, "a"), graph.constant(data, "b")
    graph.set_outputs([Builder(graph)("add", a, b)])
    text = print_graph(graph)
    assert text.count("#0") == 3 and "#1" not in text
    again = parse(text)
    assert again.ops[0].inputs[0].data is again.ops[0].inputs[1].data


def test_elided_text_is_short_and_tells_data_apart() -> None:
    texts = []
    for number in (0, 1):
        graph = Graph()
        graph.set_outputs([Builder(graph)("neg", graph.constant(np.full(10**5, number, np.float32), "w"))])
        texts.append(print_graph(graph, elide=True))
        assert str(graph) == texts[-1] and len(texts[-1]) < 300
        with pytest.raises(Exception, match="GADL-I002"):
            parse(texts[-1])
    assert texts[0] != texts[1]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    graph, path = parse(EVERYTHING), tmp_path / "new" / "g.gir"
    save_gir(graph, path)
    assert print_graph(load_gir(path)) == EVERYTHING
    graph.ops[0].loc = Location("\ud800")
    with pytest.raises(UnicodeEncodeError):
        save_gir(graph, path)
    assert print_graph(load_gir(path)) == EVERYTHING and [p.name for p in path.parent.iterdir()] == ["g.gir"]


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_DTYPES = st.sampled_from([d for d in DType if d is not DType.BOOL])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Chains of ops on random types, with random names, constants, attributes, locations and placements."""
    graph = Graph(draw(_TEXT), draw(st.sampled_from(Stage)))
    scales = st.floats(1e-30, 1e30)
    quant = st.none() | st.builds(lambda s, z: QuantParams((s,), z), scales, st.integers(-128, 127))
    shape = draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
    dtype = draw(_DTYPES)
    values = [graph.add_input(draw(_TEXT), TensorType(dtype, shape, draw(quant), draw(st.sampled_from(Layout))))]
    for _ in range(draw(st.integers(0, 5))):
        builder = Builder(graph, loc=Location(draw(_TEXT), draw(_TEXT), draw(st.none() | st.integers(0, 99)), draw(_TEXT)))
        x = draw(st.sampled_from(values))
        type = TensorType(dtype, shape, draw(quant))
        match draw(st.sampled_from(["unary", "constant", "requant", "table", "floats"])):
            case "unary":
                value = builder("neg", x, result=draw(_TEXT), type=type)
            case "constant":
                raw = draw(st.binary(min_size=8, max_size=8)) * (int(np.prod(shape)) + 1)
                data = np.frombuffer(raw, dtype.numpy)[: int(np.prod(shape))].reshape(shape)
                data = np.where(np.isnan(data.astype(np.float64)), np.zeros((), data.dtype), data).astype(data.dtype)
                value = builder("add", x, graph.constant(data, draw(_TEXT)), result=draw(_TEXT), type=type)
            case "requant":
                rounding = draw(st.sampled_from(Rounding))
                pair = make_requant(draw(st.floats(1e-9, 0.99)), rounding)
                value = builder("mul", x, x, requant=pair, result=draw(_TEXT), type=type)
            case "table":
                y = builder("neg", x, type=TensorType(DType.I8, shape) if not dtype.is_float else None)
                table = np.frombuffer(draw(st.binary(min_size=256, max_size=256)), np.int8)
                value = builder("lut", y, table=table, type=type) if y.dtype is DType.I8 else y
            case _:
                value = builder("clamp", x, lo=draw(st.floats(allow_nan=False)), hi=draw(st.floats(allow_nan=False)), type=type)
        if draw(st.booleans()):
            graph.ops[-1].placement = Placement(draw(_TEXT), draw(st.none() | st.integers(0, 9)), draw(_TEXT))
        values.append(value)
    outputs = draw(st.lists(st.sampled_from(values), max_size=3))
    graph.set_outputs(outputs, [draw(_TEXT) for _ in outputs])
    return graph


def described(graph: Graph) -> Any:
    """Everything a graph says, as plain data."""
    def one(value: Any) -> Any:
        return None if value is None else (value.name, value.type, None if value.data is None else value.data.tobytes())

    ops = [(o.name, [one(v) for v in o.operands], [one(v) for v in o.results], _plain(o.attrs), o.loc, o.placement) for o in graph.ops]
    return graph.name, graph.stage, [one(v) for v in graph.inputs], ops, [one(v) for v in graph.outputs], graph.output_names


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    return {k: (v.dtype, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}


@pytest.mark.parametrize("dim", ["N", "batch size", "3", "a]b", "批"])
def test_names_of_dimensions_read_back(dim: str) -> None:
    graph = Graph("g")
    graph.set_outputs([graph.add_input("x", TensorType(DType.F32, (dim, 3)))], ["y"])
    assert parse(print_graph(graph)).inputs[0].type.shape == (dim, 3)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(graphs())
def test_any_graph_reads_back(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse(text)
    assert described(again) == described(graph)
    assert print_graph(again) == text
