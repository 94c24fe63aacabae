# SPDX-License-Identifier: Apache-2.0
"""The analytic level (L0): equal to the event simulation where nothing contends, and what it says where something does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.targets.base import segments_of
from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Container
from gadl.targets.npu.instruction import encode
from gadl.targets.npu.machine import PARAMETERS, Machine, load_machine
from gadl.targets.npu.target import TARGET

from ..graphs import grow
from .programs import EDGE, container, float_graph, placed
from .test_engine import DRAIN, PRODUCT, pipeline

LARGE = load_machine("large")


def changed(machine: Machine, **parameters: float) -> Machine:
    """A machine with other numbers."""
    given = {name.replace("_", ".", 1): value for name, value in parameters.items()}
    return replace(machine, values=tuple(given.get(p.path, value) for p, value in zip(PARAMETERS, machine.values, strict=True)))


def uncontended(machine: Machine) -> Machine:
    """Banks that deliver to all, and memory whose full rate all channels together do not reach."""
    return changed(machine, sram_banks=256, sram_bank_bytes=256, dram_bytes_per_cycle=4096)


def both(code: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """L0 and L1 of a program, instructions in the order of the code."""
    found = _sim.predict(code), _sim.simulate(code, {}, functional=False, trace=True)
    for run in found:
        run["trace"] = np.sort(run["trace"], order=("core", "instr"))
    return found


def check_equal(code: bytes) -> None:
    predicted, measured = both(code)
    assert len(predicted["trace"]) == len(measured["trace"]) > 0
    for name in ("core", "unit", "op", "debug", "bytes", "macs", "burst_bytes"):
        np.testing.assert_array_equal(predicted["trace"][name], measured["trace"][name])
    for name in ("start", "end", "fixed", "alone"):
        np.testing.assert_allclose(predicted["trace"][name], measured["trace"][name], atol=1e-3, err_msg=name)
    assert predicted["cycles"] == pytest.approx(measured["cycles"], abs=1e-3)


def network_code(machine: Machine) -> bytes:
    """A compiled network of convolutions, a gate, a sum and a pooling."""
    rng = np.random.default_rng(0)
    graph, b, x = float_graph(1, 16, 24, 24)
    values = [x]
    for kind in ("conv3", "pointwise", "depthwise", "excite", "skip", "pool", "conv3"):
        values.append(grow(graph, b, rng, values, kind))
    graph.outputs = (values[-1],)
    made = placed(graph, [{"x": rng.standard_normal((1, 16, 24, 24)).astype(np.float32)}], machine=machine)
    (segment,) = segments_of(made.ops, made.outputs)
    return TARGET.backend(machine).compile(segment).code


@pytest.mark.parametrize("machine", [EDGE, load_machine("mid"), LARGE], ids=lambda m: m.name)
def test_a_compiled_program_without_contention_takes_what_is_predicted(machine: Machine) -> None:
    """Every instruction starts and ends when the event simulation says; several cores among them."""
    code = network_code(uncontended(machine))
    assert len(_sim.predict(code)["trace"]) > 20
    check_equal(code)


# Instructions of one queue each, on memory of their own; {at} is free to choose.
LINES = {
    "MMA": "MMA_CONV@MMA x_row_stride=1024 x_pix_stride=64 ih=8 iw=16 ic={n} kh=1 kw=1 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=8 ow=16 oc=32 w_addr=262144 acc_addr={acc}",
    "EPI": "EPI@MMA oh=8 ow=16 oc={n} acc_addr={acc} out_addr=131072 out_row_stride=512 out_pix_stride=32",
    "VEC": "VUN@VEC function=NEG a_addr=200000 out_addr=220000 count={m} lo=-128 hi=127",
    "LD": "LD@LD0 src_region=1 dst=300000 row_bytes={m}",
    "POST": "POST@ST",
}  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Instructions in a sequential order; some wait for earlier ones of another queue. One channel, so memory is never shared."""
    lines: list[str] = []
    queues: list[str] = []
    posts: dict[int, list[int]] = {}
    waits: dict[int, list[int]] = {}
    semaphores: dict[tuple[str, str], int] = {}
    newest: dict[tuple[str, str], int] = {}
    for index in range(draw(st.integers(1, 24))):
        kind = draw(st.sampled_from(sorted(LINES)))
        text = LINES[kind].format(n=draw(st.integers(1, 32)), m=draw(st.integers(1, 4000)), acc=16384 * draw(st.integers(0, 1)))
        queue = text.split()[0].partition("@")[2]
        for other in draw(st.lists(st.integers(0, index - 1), max_size=2, unique=True)) if index else []:
            pair = queues[other], queue
            # Waits of a pair of queues are monotone, one for an instruction; that holds three waits and two posts.
            if pair[0] != queue and newest.get(pair, -1) < other and semaphores.get(pair) not in waits.get(index, ()) and len(posts.setdefault(other, [])) < 2:
                newest[pair] = other
                number = semaphores.setdefault(pair, len(semaphores))
                posts[other].append(number)
                waits.setdefault(index, []).append(number)
        lines.append(text)
        queues.append(queue)
    said = (
        line + "".join(f" wait({s},1)" for s in waits.get(i, ())) + "".join(f" post({s},1)" for s in posts.get(i, ()))
        for i, line in enumerate(lines)
    )
    return "\n".join([*said, "END@CTL"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs())
def test_random_programs_without_contention_take_what_is_predicted(text: str) -> None:
    code = container(text, {1: 8192}, changed(EDGE, sram_banks=256, sram_bank_bytes=256))
    predicted, measured = _sim.predict(code), _sim.simulate(code, {}, functional=False, races=False, trace=True)
    assert predicted["cycles"] == pytest.approx(measured["cycles"], abs=1e-3)
    a, b = (np.sort(run["trace"], order=("unit", "instr")) for run in (predicted, measured))
    np.testing.assert_allclose(a["start"], b["start"], atol=1e-3)
    np.testing.assert_allclose(a["end"], b["end"], atol=1e-3)


def test_one_engine_takes_the_sum_of_its_instructions() -> None:
    """By hand: 2 x 4 blocks of 32 pixel rows, fetched and launched first; then drains of 128 x 32 outputs on 64 lanes."""
    predicted = _sim.predict(container("\n".join([line.format(acc=0) for line in (PRODUCT, DRAIN) * 3] + ["END@CTL"]), {}))
    trace = predicted["trace"]
    product, drain, fill = 32 * 2 * 4, 128 * 32 // 64, 12
    np.testing.assert_allclose(np.diff(trace["end"]), [fill + drain, product] * 2 + [fill + drain])
    assert trace["end"][0] - trace["start"][0] - trace["fixed"][0] == product


def test_memory_serves_in_the_order_of_starts() -> None:
    """By hand: 6.4 bytes per cycle behind 136 cycles of issue and latency. Sharing gives the first one less, and the last one the same."""
    load = "LD@LD{q} src_region=1 src={at} dst={at} row_bytes={size}"
    text = "\n".join([load.format(q=0, at=0, size=2048), load.format(q=1, at=16384, size=16384), "END@CTL"])
    predicted, measured = both(container(text, {1: 32768}, changed(EDGE, dram_page_miss=0)))
    begun = len(encode(assemble(text.splitlines()[0]))) / 8 + 136
    assert predicted["trace"]["end"].tolist() == pytest.approx([begun + 320, begun + 320 + 2560])
    assert measured["trace"]["end"][1] == pytest.approx(predicted["trace"]["end"][1]) and measured["trace"]["end"][0] > begun + 600


def test_a_small_transfer_behind_a_large_one_takes_at_least_its_share() -> None:
    """Served in order it would wait for 65536 bytes; of two channels that are active each moves half of the rate."""
    load = "LD@LD{q} src_region=1 src={at} dst={at} row_bytes={size} dst_s1={size} src_s1={size} n1=1"
    wide = changed(EDGE, dram_page_miss=0)
    text = "\n".join([load.format(q=0, at=0, size=65536), load.format(q=1, at=65536, size=640), "END@CTL"])
    predicted, measured = both(container(text, {1: 131072}, wide))
    moving = [float(run["trace"]["end"][1] - run["trace"]["start"][1] - run["trace"]["fixed"][1]) for run in (predicted, measured)]
    assert moving == pytest.approx([2 * 640 / 6.4] * 2)


def test_operands_beyond_their_bank_group_slow_their_own_instruction() -> None:
    """Known before anything runs: a table look-up reads and writes 64 bytes a cycle each, of 64 that one group delivers."""
    text = "VLUT@VEC a_addr={a} table_addr=262144 out_addr={out} count=65536\nEND@CTL"
    for out, expected in ((131072, 1.0), (65536, 2.0)):
        predicted, measured = both(container(text.format(a=0, out=out), {}))
        (event,) = predicted["trace"]
        assert event["end"] - event["start"] - event["fixed"] == pytest.approx(expected * 1024)
        assert measured["cycles"] == pytest.approx(predicted["cycles"])


def test_other_units_do_not_slow_an_instruction() -> None:
    """What the event simulation adds: a load into the group that a look-up reads."""
    text = "VLUT@VEC a_addr=0 table_addr=262144 out_addr=393216 count=65536\nLD@LD0 src_region=1 dst={to} row_bytes=65536\nEND@CTL"
    runs = [both(container(text.format(to=to), {1: 65536}, changed(EDGE, sram_bank_bytes=8))) for to in (65536, 300000)]
    assert runs[0][0]["cycles"] == pytest.approx(runs[1][0]["cycles"])
    ends = [float(measured["trace"]["end"][0]) for _, measured in runs]
    assert ends[0] > ends[1] and float(runs[0][0]["trace"]["end"][0]) == pytest.approx(ends[1])


def test_barriers_and_signals_between_cores() -> None:
    """Cores of different length meet; one waits for the other's multicast."""
    vector = "VUN@VEC function=NEG a_addr=0 out_addr=65536 count={n} lo=-128 hi=127"
    load = "LD@LD0 src_region=1 dst=131072 row_bytes=1024 multicast=3 post(1,1)"
    texts = [
        f"{vector.format(n=5000)}\n{load}\nBAR@CTL cores=3\n{vector.format(n=640)}\nEND@CTL",
        f"{vector.format(n=900)}\nVUN@VEC function=NEG a_addr=131072 out_addr=65536 count=1024 lo=-128 hi=127 wait(1,1)\nBAR@CTL cores=3\n{vector.format(n=64)}\nEND@CTL",
    ]
    check_equal(Container(LARGE, [encode(assemble(t)) for t in texts], b"", {1: 4096}, [], []).to_bytes())


def test_a_program_that_cannot_go_on_is_refused() -> None:
    with pytest.raises(_sim.SimError, match="deadlock"):
        _sim.predict(container("POST@VEC wait(0,1) post(1,1)\nPOST@ST wait(1,1) post(0,1)\nEND@CTL", {}))


def test_fewer_events_do_not_change_the_cycles() -> None:
    code = container(pipeline(9), {1: 4096, 2: 4096})
    whole, short = _sim.predict(code), _sim.predict(code, most_events=4)
    assert len(whole["trace"]) == 27 and short["cycles"] == whole["cycles"]
    np.testing.assert_array_equal(short["trace"], whole["trace"][:4])
