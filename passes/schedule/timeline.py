# SPDX-License-Identifier: Apache-2.0
"""An estimate of when every step runs: units in order, data waited for, memory unlimited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gadl.passes.plan.program import Program, Step
from gadl.passes.plan.tiling import Floats


@dataclass(frozen=True)
class Timeline:
    """Start and finish of every step, in cycles."""

    start: Floats
    finish: Floats


def timeline(program: Program, unit_of: Callable[[Step], str]) -> Timeline:
    """The timeline when steps of one unit follow each other and wait for the last writer of what they read."""
    start, finish = np.zeros(len(program.steps)), np.zeros(len(program.steps))
    clocks: dict[str, float] = {}
    written: dict[int, float] = {}
    for index, step in enumerate(program.steps):
        unit = unit_of(step)
        begin = max([clocks.get(unit, 0.0), *(written.get(id(r.buffer), 0.0) for r in step.reads)])
        end = begin + step.cycles
        clocks[unit] = end
        for region in step.writes:
            written[id(region.buffer)] = end
        start[index], finish[index] = begin, end
    return Timeline(start, finish)
