# SPDX-License-Identifier: Apache-2.0
"""Hoisting: steps that only bring data nearer move up to where their operands and their target are free.

Engines are in-order queues, so a load that stands where its data is needed starts too late. Steps marked `early` move behind
the last step that touches the same bytes, whoever that is; all others keep their order.
"""

from __future__ import annotations

from gadl.passes.plan.program import Program, Region


def hoist_early(program: Program) -> None:
    """Reorder `program.steps`; the first step that touches a buffer keeps its place, so lifetimes do not grow."""
    touched: dict[int, list[tuple[float, int, int, bool]]] = {}
    position: list[float] = []
    for index, step in enumerate(program.steps):
        at = float(index)
        regions = [*((r, False) for r in step.reads), *((r, True) for r in step.writes)]
        if step.early and all(id(r.buffer) in touched for r, _ in regions):
            # Behind the last conflict, and behind what moved there before.
            at = min(at, 1e-6 + max(_last_conflict(touched[id(r.buffer)], r, write) for r, write in regions))
        position.append(at)
        for region, write in regions:
            touched.setdefault(id(region.buffer), []).append((at, region.start, region.start + region.size, write))
    order = sorted(range(len(position)), key=lambda i: (position[i], i))
    program.steps[:] = [program.steps[i] for i in order]


def _last_conflict(history: list[tuple[float, int, int, bool]], region: Region, write: bool) -> float:
    """The position of the last access that must come before; the first of all where none must."""
    end = region.start + region.size
    met = (at for at, low, high, wrote in history if (write or wrote) and low < end and region.start < high)
    return max(met, default=history[0][0])
