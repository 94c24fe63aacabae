# SPDX-License-Identifier: Apache-2.0
"""Weights as zb1 streams: the same bytes come out, less is loaded, and no run beats the bound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.tune.identity import segment_digest
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.targets.base import segments_of
from gadl.targets.npu import _sim
from gadl.targets.npu.backend import NpuBackend
from gadl.targets.npu.bounds import segment_bounds
from gadl.targets.npu.compression import PAYS, stream_of
from gadl.targets.npu.layers import layers_of
from gadl.targets.npu.machine import PARAMETERS, Machine
from gadl.targets.npu.profile import profile
from gadl.targets.npu.space import NpuSpace

from .programs import EDGE, float_graph, placed, run_segments

WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def plain(machine: Machine) -> Machine:
    """The machine without a decoder."""
    values = list(machine.values)
    values[[(p.section, p.key) for p in PARAMETERS].index(("codec", "weights"))] = 0.0
    return replace(machine, values=tuple(values))


def weights(graph: Graph, rng: np.random.Generator, zeros: float, bits: int, *shape: int) -> Value:
    """Random weights that quantise to `bits` bits, but for one of each channel, with a part of zeros."""
    made = rng.standard_normal(shape) * (rng.random(shape) >= zeros) / 2.0 ** (8 - bits)
    made.reshape(shape[0], -1)[:, 0] = 3.0
    return graph.constant((made / np.sqrt(np.prod(shape[1:]))).astype(np.float32), "w")


def network(zeros: float, bits: int = 8, width: int = 64, depth: int = 4) -> tuple[Graph, dict[str, np.ndarray]]:
    """Convolutions of three kinds and a linear layer, quantised and placed, with inputs for the interpreter."""
    rng = np.random.default_rng(5)
    graph, b, x = float_graph(1, 16, 6, 6)
    feeds = {"x": rng.standard_normal((1, 16, 6, 6)).astype(np.float32)}
    for number in range(depth):
        channels = x.shape[1]
        if number == 1:
            x = b("conv", x, weights(graph, rng, zeros, bits, channels, 1, 3, 3), None, groups=channels, **WINDOW)
        else:
            bias = graph.constant(rng.standard_normal(width).astype(np.float32), "b")
            x = b("conv", x, weights(graph, rng, zeros, bits, width, channels, 3, 3), bias, **WINDOW)
        x = b("relu", x)
    x = b("reduce_mean", x, axes=(2, 3), keepdims=False)
    x = b("linear", x, weights(graph, rng, zeros, bits, 24, x.shape[1]), None)
    graph.outputs = [x]
    graph.output_names = ["y"]
    return placed(graph, [feeds]), feeds


def run(graph: Graph, feeds: dict[str, np.ndarray], machine: Machine, plan: Any = None) -> dict[str, Any]:
    """The report of a network of one segment."""
    ((_, report),) = run_segments(graph, feeds, machine, plan)
    return report


def test_sparse_weights_load_and_run_faster() -> None:
    graph, feeds = network(0.7, width=128)
    after, before = run(graph, feeds, EDGE), run(graph, feeds, plain(EDGE))
    assert after["weights_raw_bytes"] == before["weights_raw_bytes"] == before["weights_compressed_bytes"]
    assert after["weights_compressed_bytes"] < 0.55 * after["weights_raw_bytes"]
    assert after["dram_burst_bytes"] < 0.6 * before["dram_burst_bytes"]
    assert after["cycles"] < 0.8 * before["cycles"]


def test_weights_of_few_bits_load_faster() -> None:
    graph, feeds = network(0.0, bits=4)
    after, before = run(graph, feeds, EDGE), run(graph, feeds, plain(EDGE))
    assert after["weights_compressed_bytes"] < 0.85 * after["weights_raw_bytes"]
    assert after["cycles"] < before["cycles"]


def test_dense_weights_stay_as_they_are() -> None:
    graph, feeds = network(0.0)
    after, before = run(graph, feeds, EDGE), run(graph, feeds, plain(EDGE))
    assert after["weights_compressed_bytes"] > 0.98 * after["weights_raw_bytes"]
    assert after["cycles"] <= 1.001 * before["cycles"]


@given(st.binary(min_size=1, max_size=1000), st.floats(0, 1))
def test_a_stream_is_taken_where_it_saves_bursts(data: bytes, zeros: float) -> None:
    kept = np.frombuffer(data, np.uint8) * (np.random.default_rng(0).random(len(data)) >= zeros)
    raw = kept.astype(np.uint8).tobytes()
    stream = stream_of(EDGE, raw)
    if stream is not None:
        assert -(-len(stream) // 64) <= PAYS * -(-len(raw) // 64) and stream == _sim.encode_zb1(raw)
    assert stream_of(plain(EDGE), raw) is None


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 1), st.integers(2, 8), st.integers(0, 99), st.sampled_from([4, 12, 64, 80]))
def test_compressed_weights_give_the_interpreters_bytes(zeros: float, bits: int, seed: int, width: int) -> None:
    """In any chunks, layer by layer or in groups; the bound holds for each."""
    graph, feeds = network(zeros, bits, width, 3)
    (segment,) = segments_of(graph.ops, graph.outputs)
    rng = np.random.default_rng(seed)
    run(graph, feeds, EDGE)
    layers = layers_of(segment)
    chunks = [LayerPlan(m.ops, channels=int(rng.choice([4, 20, 32])) if m.op.name == "conv" else 0) for m in layers]
    report = run(graph, feeds, EDGE, Plan((GroupPlan(tuple(chunks), int(rng.integers(1, 5))),)))
    streamed = report["dram_read_bytes"] + report["dram_write_bytes"]
    assert streamed >= segment_bounds(EDGE, layers, segment)["dram_bound_bytes"]


def test_the_bound_counts_what_is_loaded() -> None:
    """Without a decoder all bytes; with one never more, and not much less than what the program loads."""
    graph, feeds = network(0.7, width=128)
    (segment,) = segments_of(graph.ops, graph.outputs)
    layers = layers_of(segment)
    with_codec, without = (segment_bounds(m, layers, segment)["dram_bound_bytes"] for m in (EDGE, plain(EDGE)))
    constants = sum(v.type.size_bytes for layer in layers for v in layer.op.inputs if v.is_constant)
    parameters = sum(5 * r.multiplier.size for layer in layers if (r := layer.op.attrs.get("requant")) is not None and r.per_channel)
    tensors = sum(v.type.size_bytes for v in (*segment.inputs, *segment.outputs))
    assert with_codec < without == constants + parameters + tensors
    assert run(graph, feeds, EDGE)["dram_burst_bytes"] < 1.2 * with_codec


def test_the_predicted_transfers_follow_the_streams() -> None:
    graph, _ = network(0.7, width=128)
    (segment,) = segments_of(graph.ops, graph.outputs)
    runs = [profile(NpuBackend(m).compile(segment).code) for m in (EDGE, plain(EDGE))]
    moving = [float(run.predicted.alone[run.predicted.burst_bytes > 0].sum()) for run in runs if run.predicted is not None]
    assert moving[0] < 0.6 * moving[1]


def test_tuning_records_know_streams_and_nothing_else_of_weights() -> None:
    def digest(zeros: float, machine: Machine) -> str:
        graph, _ = network(zeros)
        (segment,) = segments_of(graph.ops, graph.outputs)
        return segment_digest(segment, NpuSpace(machine, segment).compressed)

    assert digest(0.7, EDGE) != digest(0.6, EDGE) != digest(0.0, EDGE)
    assert digest(0.0, EDGE) == digest(0.1, plain(EDGE)) == digest(0.7, plain(EDGE))
