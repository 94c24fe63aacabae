# SPDX-License-Identifier: Apache-2.0
"""Gate V5: the simulator moves the bytes that the descriptors name, no more and no less, and never beats the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gadl
from gadl.compiler.diag import GadlError
from gadl.frontends.onnx import import_onnx
from gadl.passes.quant.quantize import Precision
from gadl.targets.base import DeviceProgram, segments_of
from gadl.targets.npu import _sim, backend
from gadl.targets.npu.container import Container, core_code
from gadl.targets.npu.instruction import Instruction, decode, encode
from gadl.targets.npu.isa import Queue, Type
from gadl.targets.npu.machine import Machine, load_machine, parse_machine
from gadl.targets.npu.target import TARGET

from ...networks import resnet50
from .programs import EDGE, placed

QUEUES = list(Queue)


def executed(code: Iterable[Instruction]) -> list[tuple[Instruction, int]]:
    """Every instruction and how often loops make it run."""
    found, times = [], [1]
    for item in code:
        if item.name == "REP":
            times.append(times[-1] * item.fields["count"])
        elif item.name == "ENDR":
            times.pop()
        else:
            found.append((item, times[-1]))
    return found


def descriptors(cores: list[list[Instruction]]) -> dict[str, Any]:
    """What the descriptors ask for: bytes per core and queue, bytes read and written per region."""
    queues, reads, writes = [0] * len(QUEUES) * len(cores), Counter[int](), Counter[int]()
    for core, code in enumerate(cores):
        for item, times in executed(code):
            f = item.fields
            rows = [max(1, f.get(f"n{i}", 0)) for i in (1, 2, 3)]
            size = times * f.get("row_bytes", 0) * rows[0] * rows[1] * rows[2]
            read = written = 0
            if item.name == "LD":
                read = size
                reads[f.get("src_region", 0)] += size
            elif item.name == "ST":
                written, read = size, size * f.get("accumulate", 0)
                writes[f.get("dst_region", 0)] += written
                reads[f.get("dst_region", 0)] += read
            elif item.name == "CALLC":
                read, written = times * f.get("bytes_in", 0), times * f.get("bytes_out", 0)
            queues[core * len(QUEUES) + int(item.queue)] += read + written
    return {
        "queue_bytes": queues,
        "region_read_bytes": [reads[i] for i in range(8)],
        "region_write_bytes": [writes[i] for i in range(8)],
    }


def check(program: bytes, cores: int = 1, **options: Any) -> dict[str, Any]:
    """Simulate the timing and compare all counters with the descriptors."""
    report = _sim.simulate(program, {}, functional=False, **options)
    wanted = descriptors([decode(core_code(program, i)) for i in range(cores)])
    assert {key: report[key] for key in wanted} == wanted
    assert report["dram_read_bytes"] + report["dram_write_bytes"] == sum(wanted["queue_bytes"])
    assert report["dram_burst_bytes"] >= sum(wanted["queue_bytes"])
    assert report["cycles"] >= report["bound_cycles"] * (1 - 1e-9)
    return report


# -- compiled models ------------------------------------------------------------


@pytest.fixture(scope="module", params=[Precision.INT8, Precision.INT16, Precision.FP16], ids=lambda p: p.value)
def graph(request: pytest.FixtureRequest) -> Any:
    """A narrow ResNet-50 at 64 x 64: convolutions, pooling, residuals, a mean, a product."""
    model = import_onnx(resnet50(size=64, width=8), {}, simplify=True, warn=lambda item: None)
    return placed(model, [{"x": np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)}], request.param)


def programs(graph: Any, machine: Machine) -> list[DeviceProgram]:
    return [TARGET.backend(machine).compile(segment) for segment in segments_of(graph.ops, graph.outputs)]


@pytest.mark.parametrize("name", ["edge", "mid", "nvdla-64", "scalesim-os-32", "onnxim-ws-128"])
def test_compiled_models_move_what_their_descriptors_say(graph: Any, name: str) -> None:
    machine = load_machine(name)
    for program in programs(graph, machine):
        report = check(program.code)
        assert report["macs"] == program.report["macs"]
        assert report["cycles"] >= program.report["lb0_cycles"]
        # Every constant is read, every result written, at least once.
        assert report["region_read_bytes"][0] >= program.report["constant_bytes"] * 0.9
        assert report["region_write_bytes"][2] > 0


# -- random programs ------------------------------------------------------------


def counts() -> st.SearchStrategy[int]:
    return st.sampled_from([0, 1, 2, 3, 5])


@st.composite
def transfers(draw: st.DrawFn, cores: int) -> Instruction:
    """A load, store, fill or host call; strides of both signs never leave the memories."""
    kind = draw(st.sampled_from(["LD", "LD", "ST", "ST", "FILL", "CALLC"]))
    if kind == "FILL":
        return Instruction("FILL", Queue.LD0, {"size": draw(st.integers(1, 4096)), "elem_bytes": 1})
    if kind == "CALLC":
        return Instruction("CALLC", Queue.CTL, {"bytes_in": draw(st.integers(0, 999)), "bytes_out": draw(st.integers(0, 999))})
    element = 4
    fields = {"src": 65536, "dst": 65536, "row_bytes": element * draw(st.integers(1, 100))}
    for number in (1, 2, 3):
        stride = st.sampled_from([-1024, -400, 0, 400, 512, 2048])
        fields |= {f"n{number}": draw(counts()), f"src_s{number}": draw(stride), f"dst_s{number}": draw(stride)}
    if kind == "ST":
        fields |= {"dst_region": draw(st.sampled_from([2, 3, 7])), "accumulate": draw(st.integers(0, 1))}
        return Instruction("ST", Queue.ST, fields)
    fields["src_region"] = draw(st.sampled_from([0, 1, 3, 7]))
    fields |= {"pad1_before": draw(st.integers(0, 2)), "pad2_after": draw(st.integers(0, 2)), "elem_bytes": element}
    if cores > 1:
        fields["multicast"] = draw(st.integers(0, (1 << cores) - 1))
    return Instruction("LD", draw(st.sampled_from([Queue.LD0, Queue.LD1])), fields)


@st.composite
def codes(draw: st.DrawFn, cores: int) -> list[Instruction]:
    """Transfers, some of them in nested loops."""
    body = []
    for _ in range(draw(st.integers(1, 6))):
        items = draw(st.lists(transfers(cores), min_size=1, max_size=4))
        for _ in range(draw(st.integers(0, 3))):
            items = [Instruction("REP", Queue.CTL, {"count": draw(st.integers(1, 3))}), *items, Instruction("ENDR", Queue.CTL)]
        body += items
    return [*body, Instruction("END", Queue.CTL)]


REGIONS = {1: 1 << 17, 2: 1 << 17, 3: 1 << 17, 7: 1 << 17}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(["edge", "large"]))
def test_random_programs_move_what_their_descriptors_say(data: st.DataObject, name: str) -> None:
    machine = load_machine(name)
    cores = machine.integer("machine.cores")
    texts = [data.draw(codes(cores)) for _ in range(cores)]
    container = Container(machine, [encode(code) for code in texts], bytes(1 << 17), REGIONS, [], []).to_bytes()
    check(container, cores, races=False)


# -- the limit ------------------------------------------------------------------

COPY = [
    Instruction("LD", Queue.LD0, {"src_region": 1, "row_bytes": 4096}, (), ((0, 1),)),
    Instruction("ST", Queue.ST, {"dst_region": 2, "row_bytes": 4096}, ((0, 1),), ()),
    Instruction("END", Queue.CTL),
]


def test_a_run_below_a_known_limit_fails() -> None:
    program = Container(EDGE, [encode(COPY)], b"", {1: 4096, 2: 4096}, [], []).to_bytes()
    cycles = check(program)["cycles"]
    assert check(program, least_cycles=cycles)["bound_cycles"] == cycles
    with pytest.raises(_sim.SimError, match="simulator defect: .* cycles are below the limit"):
        check(program, least_cycles=cycles + 1)


def test_the_compiler_refuses_a_time_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit that was made too high, a compilation ends in GADL-P004."""
    true_bounds = backend.segment_bounds

    def doctored(*args: Any) -> dict[str, Any]:
        return {**true_bounds(*args), "lb0_cycles": 1e12}

    model = resnet50(size=32, width=8)
    feeds = [{"x": np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)}]
    gadl.compile(model, target="npu", calibration=feeds)
    monkeypatch.setattr(backend, "segment_bounds", doctored)
    with pytest.raises(GadlError, match="GADL-P004") as caught:
        gadl.compile(model, target="npu", calibration=feeds)
    assert caught.value.diagnostics[0].values["bound"] == 10**12


@pytest.mark.parametrize("flow", ["stream", "ws", "os"])
@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("x_type", [Type.I8, Type.I16, Type.F16])
def test_slow_types_are_slow_in_every_dataflow(flow: str, shadow: bool, x_type: Type) -> None:
    """A large product at half rate stays above the limit of half the array."""
    machine = parse_machine({
        "machine": {"clock_mhz": 1000}, "mma": {"shape": [1, 16, 16], "flow": flow, "shadow": shadow, "acc_kib": 4096},
        "sram": {"kib": 4096, "banks": 256, "bank_bytes": 256},
    })  # fmt: skip
    fields = {"b_addr": 1 << 20, "m": 4000, "n": 32, "k": 32, "a_stride": 64, "b_stride": 64, "x_type": x_type, "w_type": x_type}
    if x_type is Type.I16:
        fields["w_type"] = Type.I8
    code = [Instruction("MMA_MATMUL", Queue.MMA, {k: int(v) for k, v in fields.items()}), Instruction("END", Queue.CTL)]
    report = check(Container(machine, [encode(code)], b"", {}, [], []).to_bytes())
    assert report["cycles"] >= 4000 * 32 * 32 / 256 * (1 if x_type is Type.I8 else 2)
