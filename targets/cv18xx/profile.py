# SPDX-License-Identifier: Apache-2.0
"""Facts for reports: the layers that a `.cvimodel` of ours describes, and its run in the overlap model (`cost.py`).

The description is a section of a kind that the vendor's runtime does not know, so it passes it over. Commands carry their layer's index in
`layer_info` and `layer_ID`; in files without a description layers are these numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gadl.targets.profile import BufferFacts, LayerFacts, MachineFacts, ProgramProfile, Role, Trace, Unit

from .asm import operation
from .chip import CHIPS, Chip
from .cost import MB_PER_S, schedule, tdma_bytes, time_ns, tiu_macs
from .cvimodel import CviModel, SectionKind, decode
from .descriptor import Command
from .isa import Direction, Engine, Task

#: The section's name.
DESCRIPTION = "gadl.description"
#: Each engine does one thing at a time; what it does has a row of its own in reports.
UNITS = (Unit("TIU.mac", Role.ARRAY), Unit("TIU.vector", Role.VECTOR), Unit("TDMA.load", Role.LOAD), Unit("TDMA.store", Role.STORE))


def pack(layers: Sequence[LayerFacts], buffers: Sequence[BufferFacts] = (), estimated: Sequence[float] = ()) -> bytes:
    """The description's bytes. Buffers' steps are indices of commands, over all sections."""
    facts = {"layers": [asdict(f) for f in layers], "buffers": [asdict(f) for f in buffers], "estimated": list(estimated)}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def profile(data: bytes) -> ProgramProfile:
    """The run of a container's command sections, one after another. `ValueError` when its description does not fit them."""
    model = decode(data)
    chip, description = CHIPS[model.chip], _description(model)
    cycle_ns, at = 1000 / chip.mhz, 0.0
    events: list[tuple[float, float, int, Command]] = []
    for index, section in enumerate(model.model.sections):
        if section.kind != SectionKind.COMMANDS:
            continue
        commands = model.commands(index)
        spans = schedule(commands, [time_ns(command, chip) for command in commands])
        for command, (start, end) in zip(commands, spans, strict=True):
            events.append((at + start / cycle_ns, at + end / cycle_ns, len(events), command))
        at += max((end for _, end in spans), default=0.0) / cycle_ns
    most = max((_layer(command) for *_, command in events), default=0)
    rows = description.get("layers") or [{"name": f"layer {i}", "op": "", "source": "", "macs": 0, "bound": {}} for i in range(most + 1)]
    layers = tuple(LayerFacts(**{**row, "shape": tuple(row.get("shape", ()))}) for row in rows)
    if most >= len(layers):
        raise ValueError(f"a command belongs to layer {most} of {len(layers)}")
    buffers = tuple(BufferFacts(**row) for row in description.get("buffers", ()))
    if any(not 0 <= buffer.first <= buffer.last < len(events) for buffer in buffers):
        raise ValueError("a buffer belongs to commands that the program does not have")
    trace = _trace(sorted(events, key=lambda event: (event[1], event[2])))
    return ProgramProfile(_facts(chip), at, layers, buffers, UNITS, trace, estimated=tuple(description.get("estimated", ())))


def _description(model: CviModel) -> dict[str, Any]:
    for section, data in zip(model.model.sections, model.data, strict=True):
        if section.name == DESCRIPTION:
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError("its description is not an object")
            return found
    return {}


def _facts(chip: Chip) -> MachineFacts:
    """On-chip memory is one lane's: all lanes hold the same at the same place."""
    return MachineFacts(chip.name, chip.clock_mhz, chip.macs_per_cycle, MB_PER_S / chip.mhz, chip.lane_bytes, chip.banks)


def _layer(command: Command) -> int:
    return command.fields["layer_info" if command.engine == Engine.TIU else "layer_ID"]


def _unit(command: Command) -> int:
    """Index into `UNITS`."""
    if command.engine == Engine.TIU:
        return 0 if command.fields["tsk_typ"] in (Task.CONV, Task.MATMUL) else 1
    return 3 if command.fields["trans_dir"] == Direction.STORE else 2


def _trace(events: Sequence[tuple[float, float, int, Command]]) -> Trace:
    def numbers(values: Sequence[float]) -> Any:
        return np.array(values, np.int64)

    costs = [(0, 0) if c.engine == Engine.TIU else tdma_bytes(c.fields)[:2] for *_, c in events]
    start, end = (np.array([event[i] for event in events], np.float64) for i in (0, 1))
    return Trace(
        step=numbers([step for _, _, step, _ in events]),
        unit=numbers([_unit(c) for *_, c in events]),
        layer=numbers([_layer(c) for *_, c in events]),
        instruction=tuple(operation(c) for *_, c in events),
        bytes=numbers([useful for useful, _ in costs]),
        burst_bytes=numbers([moved for _, moved in costs]),
        macs=numbers([tiu_macs(c.fields) if c.engine == Engine.TIU else 0 for *_, c in events]),
        fixed=np.zeros(len(events)),
        alone=end - start,
        start=start,
        end=end,
    )
