# SPDX-License-Identifier: Apache-2.0
"""A run as Chrome trace events, for ui.perfetto.dev: one process per segment, one thread per queue, in the model's layer names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from gadl.targets.profile import ProgramProfile


def trace_json(profiles: Sequence[ProgramProfile]) -> str:
    """The whole trace, an event a line. `ts` and `dur` are in microseconds of the device's clock, to a thousandth."""
    return '{"displayTimeUnit":"ns","traceEvents":[\n' + ",\n".join(_events(profiles)) + "\n]}\n"


def _events(profiles: Sequence[ProgramProfile]) -> Iterator[str]:
    at = 0.0
    for process, profile in enumerate(profiles):
        trace, scale = profile.trace, 1000 / profile.machine.clock_mhz
        yield _named("process_name", process, 0, f"{profile.machine.name} segment {process}")
        used = set(np.unique(trace.unit).tolist())
        for thread, unit in enumerate(profile.units):
            if thread in used:
                yield _named("thread_name", process, thread, unit.name)
                yield json.dumps({"ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread, "args": {"sort_index": thread}})
        names = [json.dumps(layer.name, ensure_ascii=False) for layer in profile.layers]
        # Ends are rounded before the difference is taken, so that what follows one another does not overlap.
        start = np.rint((at + trace.start) * scale).astype(np.int64)
        end = np.rint((at + trace.end) * scale).astype(np.int64)
        columns = (trace.layer, trace.unit, trace.step, trace.bytes, start, end - start)
        rows = zip(trace.instruction, *(column.tolist() for column in columns))
        for instruction, layer, unit_, step, size, first, length in rows:
            moved = f',"bytes":{size}' if size else ""
            yield (
                f'{{"ph":"X","name":{names[layer]},"cat":"{profile.units[unit_].role.value}","pid":{process},"tid":{unit_},'
                f'"ts":{first // 1000}.{first % 1000:03d},"dur":{length // 1000}.{length % 1000:03d},'
                f'"args":{{"instruction":"{instruction}","step":{step}{moved}}}}}'
            )
        at += profile.cycles


def _named(what: str, process: int, thread: int, name: str) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}, ensure_ascii=False)
