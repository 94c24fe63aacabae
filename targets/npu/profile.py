# SPDX-License-Identifier: Apache-2.0
"""Facts for reports: what a container's description says of layers and memory, and a traced run of the program."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

import gadl.targets.npu._sim as _sim
from gadl.compiler.ir.types import Array
from gadl.passes.plan.program import Program
from gadl.passes.schedule.cores import Item
from gadl.targets.base import Segment
from gadl.targets.profile import BufferFacts, LayerFacts, MachineFacts, ProgramProfile, Role, Trace, Unit

from .bounds import segment_bounds
from .container import MAGIC, read_description
from .expand.context import SRAM
from .isa import BY_OPCODE
from .layers import Layer
from .machine import PARAMETERS, Machine

#: Units in the simulator's order.
UNITS = (
    Unit("CTL", Role.CONTROL), Unit("LD0", Role.LOAD), Unit("LD1", Role.LOAD), Unit("LD2", Role.LOAD), Unit("ST", Role.STORE),
    Unit("MMA", Role.ARRAY), Unit("VEC", Role.VECTOR), Unit("EPI", Role.DRAIN),
)  # fmt: skip


def describe(
    program: Program, layers: list[Layer], segment: Segment, machine: Machine, estimated: Sequence[float], items: Sequence[Item] | None = None
) -> dict[str, Any]:
    """The part of a container's description that `profile` reads back: layers, estimates of the plan's groups, the map of SRAM.

    `items` are those of the first of several cores, whose map it then is.
    """
    spans = program.lifetimes() if items is None else _lifetimes(items)
    rows = [(b, spans[id(b)]) for b in program.buffers if b.memory == SRAM and id(b) in spans]
    names = {name: number for number, name in enumerate(dict.fromkeys(b.name for b, _ in rows))}
    return {
        "layers": [
            {
                "name": layer.name, "op": layer.op.name, "source": str(layer.op.loc), "shape": list(layer.result.shape), **bound,
            }
            for layer, bound in zip(layers, _bounds(layers, segment, machine), strict=True)
        ],
        "estimated": [round(cycles) for cycles in estimated],
        "buffers": {"names": list(names), "rows": [[names[b.name], b.address, b.size, *span] for b, span in rows]},
    }  # fmt: skip


def _lifetimes(items: Sequence[Item]) -> dict[int, tuple[int, int]]:
    """First and last instruction of each buffer on one core, waits not counted, by `id(buffer)`."""
    steps = [item.step for item in items if item.step is not None or item.signal]
    spans: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for region in () if step is None else (*step.reads, *step.writes):
            spans[id(region.buffer)] = spans.get(id(region.buffer), (number, number))[0], number
    return spans


def _bounds(layers: list[Layer], segment: Segment, machine: Machine) -> list[dict[str, Any]]:
    """MACs and [array, vector, dram] cycles that each layer cannot avoid; a segment's input counts where it is read first."""
    seen: set[int] = set()
    returned = {id(v) for v in segment.outputs}
    found = []
    for layer in layers:
        ops = (layer.op,) if layer.lut is None else (layer.op, layer.lut)
        inputs = tuple(v for v in segment.inputs if id(v) not in seen and any(v is x for op in ops for x in op.inputs))
        seen |= {id(v) for v in inputs}
        outputs = tuple(op.result for op in ops if id(op.result) in returned)
        bounds = segment_bounds(machine, [layer], Segment(segment.index, segment.ops, inputs, outputs))
        cycles = [bounds[key] for key in ("geometric_cycles", "vector_cycles", "dram_cycles")]
        found.append({"macs": bounds["macs"], "bound": [round(float(c), 1) for c in cycles]})
    return found


def machine_of(data: bytes) -> Machine:
    """The machine that a container was made for; `ValueError` when it is not a container."""
    if data[:4] != MAGIC or len(data) < 192:
        raise ValueError("not an NPU program")
    count, at = struct.unpack_from("<I", data, 44)[0], struct.unpack_from("<Q", data, 56)[0]
    if count != len(PARAMETERS) or at + 8 * count > len(data):
        raise ValueError("the machine record is damaged")
    name = read_description(data).get("machine", "")
    return Machine(str(name), "1.0", struct.unpack_from(f"<{count}d", data, at))


def profile(data: bytes) -> ProgramProfile:
    """Run a container's timing with a trace. `ValueError` when its description does not fit its code."""
    machine, description = machine_of(data), read_description(data)
    run, predicted = _sim.simulate(data, {}, functional=False, races=False, trace=True), _sim.predict(data)
    layers = tuple(
        LayerFacts(
            str(row["name"]), str(row["op"]), str(row["source"]), tuple(row.get("shape", ())), int(row.get("macs", 0)),
            dict(zip(("array", "vector", "dram"), row.get("bound", ()))),
        )
        for row in description.get("layers", ())
    )  # fmt: skip
    events = run["trace"]
    if len(events) and int(events["debug"].max()) >= len(layers):
        raise ValueError("an instruction belongs to a layer that the description does not have")
    buffers = description.get("buffers", {"names": [], "rows": []})
    if any(not 0 <= first <= last < run["instructions"] for *_, first, last in buffers["rows"]):
        raise ValueError("a buffer belongs to steps that the program does not have")
    units = UNITS if machine["machine.cores"] == 1 else tuple(
        Unit(f"{unit.name}.{core}", unit.role) for core in range(machine.integer("machine.cores")) for unit in UNITS
    )
    return ProgramProfile(
        MachineFacts(
            machine.name, machine.clock_mhz, machine.macs_per_cycle, machine["dram.bytes_per_cycle"] * machine["dram.eff"],
            machine.sram_bytes, machine.integer("sram.groups"),
        ),
        float(run["cycles"]), layers,
        tuple(BufferFacts(buffers["names"][n], address, size, first, last) for n, address, size, first, last in buffers["rows"]),
        units, _trace(events), int(run["events_left_out"]), _trace(predicted["trace"]), float(predicted["cycles"]),
        tuple(float(cycles) for cycles in description.get("estimated", ())),
    )  # fmt: skip


def _trace(events: Array) -> Trace:
    """The simulator's events, or those of its analytic model."""
    names = {number: spec.name for number, spec in BY_OPCODE.items()}
    return Trace(
        # Steps are the instructions without WAIT and POST, which take no time and are not traced.
        np.unique(events["core"].astype(np.int64) << 32 | events["instr"], return_inverse=True)[1].reshape(-1),
        events["core"].astype(np.int64) * len(UNITS) + events["unit"],
        events["debug"].astype(np.int64),
        tuple(names[int(op)] for op in events["op"]),
        *(events[name].astype(np.int64) for name in ("bytes", "burst_bytes", "macs")),
        *(events[name].copy() for name in ("fixed", "alone", "start", "end")),
    )
