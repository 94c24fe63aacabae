# SPDX-License-Identifier: Apache-2.0
"""Reports of `.cvimodel` programs: the run of the overlap model, divided among layers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gadl.compiler.report.chrome import trace_json
from gadl.compiler.report.measure import measure
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.targets.cv18xx.chip import CHIPS
from gadl.targets.cv18xx.cost import overlap
from gadl.targets.cv18xx.cvimodel import Port, build, decode, place_ports
from gadl.targets.cv18xx.descriptor import encode
from gadl.targets.cv18xx.isa import Direction, Elementwise, Engine, Task
from gadl.targets.cv18xx.profile import DESCRIPTION, UNITS, pack, profile
from gadl.targets.profile import BufferFacts, LayerFacts

CHIP = CHIPS["cv181x"]
LAYERS = (
    LayerFacts("conv", "conv2d", "m.onnx: conv", (1, 8, 16, 16), 8 * 256 * 9 * 8, {"array": 600.0}),
    LayerFacts("激活", "lut", "m.onnx: act", (1, 8, 16, 16), 0, {"vector": 300.0}),
)


def load(number: int, after: int, layer: int) -> bytes:
    size = {"src_c": 8, "src_h": 16, "src_w": 16, "src_h_stride": 16, "src_c_stride_low": 256, "src_n_stride": 2048}
    local = {"dst_c": 8, "dst_h": 16, "dst_w": 16, "dst_h_stride": 16}
    return encode(CHIP, Engine.TDMA, {"vld": 1, "cmd_id": number, "wait_id_tpu": after, "layer_ID": layer, **size, **local})


def program(description: bytes | None) -> bytes:
    """A load, a convolution, a look-up and a store; then a load alone."""
    shape = {"res0_c": 8, "res0_h": 16, "res0_w": 16, "cmd_en": 1}
    conv = {"tsk_typ": Task.CONV, "opt_chl_quan": 1, "opd0_c": 8, "opd1_h": 3, "opd1_w": 3, "cmd_id_tpu": 1, "cmd_id_gdma": 1, **shape}
    act = {"tsk_typ": Task.ELEMENTWISE, "tsk_eu_typ": Elementwise.LOOKUP, "opd1_h": 16, "cmd_id_tpu": 2, "cmd_id_gdma": 1, "layer_info": 1, **shape}
    store = {"trans_dir": Direction.STORE, "dst_c": 8, "dst_w": 256, "vld": 1, "cmd_id": 2, "wait_id_tpu": 2, "layer_ID": 1}
    first = load(1, 0, 0) + encode(CHIP, Engine.TIU, conv) + encode(CHIP, Engine.TIU, act) + encode(CHIP, Engine.TDMA, store)
    extra = {} if description is None else {DESCRIPTION: description}
    x, y, _ = place_ports([Port("x", (1, 8, 16, 16), 1.0)], [Port("y", (1, 8, 16, 16), 1.0)], 0)
    return build(CHIP, "m", b"", [first, load(1, 0, 1)], x, y, extra=extra).encode()


def test_layers_sum_to_the_run_of_the_overlap_model() -> None:
    data = program(pack(LAYERS, [BufferFacts("x", 0, 256, 0, 1)], [700.0, 500.0]))
    found = profile(data)
    commands = [decode(data).commands(i) for i in (1, 2)]
    total = sum(overlap(stream, CHIP).total_us for stream in commands) * CHIP.mhz
    assert found.cycles == pytest.approx(total) and found.layers == LAYERS and found.estimated == (700.0, 500.0)
    assert [UNITS[unit].name for unit in found.trace.unit] == ["TDMA.load", "TIU.mac", "TIU.vector", "TDMA.store", "TDMA.load"]
    assert found.trace.instruction == ("LOAD", "CONV", "ELEMENTWISE.LOOKUP", "STORE", "LOAD")
    assert found.trace.layer.tolist() == [0, 0, 1, 1, 1] and found.trace.bytes.tolist() == [2048, 0, 0, 2048, 2048]
    assert found.trace.macs.sum() == LAYERS[0].macs
    performance = measure([found], [Plan((GroupPlan((LayerPlan((0,)),)), GroupPlan((LayerPlan((1,)),))))])
    assert performance is not None and len(performance.groups) == 2
    assert sum(group.measured_cycles for group in performance.groups) == pytest.approx(found.cycles)
    assert performance.total.measured_cycles == pytest.approx(total) and performance.total.dram_bytes == 3 * 2048
    trace = json.loads(trace_json([found]))["traceEvents"]
    assert {event["name"] for event in trace if event["ph"] == "X"} == {"conv", "激活"}


def test_steps_end_in_order_and_engines_do_one_thing_at_a_time() -> None:
    trace = profile(program(None)).trace
    assert (np.diff(trace.end) >= 0).all() and trace.step.tolist() == [0, 1, 2, 3, 4]
    for engine in ((0, 1), (2, 3)):
        mine = np.isin(trace.unit, engine)
        assert (trace.start[mine][1:] >= trace.end[mine][:-1]).all()


def test_without_a_description_layers_are_numbers() -> None:
    assert [layer.name for layer in profile(program(None)).layers] == ["layer 0", "layer 1"]


@pytest.mark.parametrize(
    ("description", "text"),
    [
        (pack(LAYERS[:1]), "layer 1 of 1"),
        (pack(LAYERS, [BufferFacts("x", 0, 256, 0, 5)]), "a buffer"),
        (b"[]", "not an object"),
        (b"{", "Expecting"),
    ],
)
def test_descriptions_that_do_not_fit(description: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        profile(program(description))
