# SPDX-License-Identifier: Apache-2.0
"""Partition: every op goes to a device segment, or to the host with the reason."""

from __future__ import annotations

from collections.abc import Callable

from gadl.compiler.ir.graph import Graph, Op, Placement, Stage

HOST = "host"


def partition(graph: Graph, device: str, refuse: Callable[[Op], str | None]) -> bool:
    """Place each op of `graph` and sort the ops so that every segment is contiguous.

    `refuse` gives the reason why an op cannot run on `device`, or None. An op's depth is the number of device-to-host
    crossings on the longest path to it; device ops of one depth form one segment. Host ops of depth d need only segments
    before d, segment d needs only host ops up to depth d: hence the order host(0), segment 0, host(1), segment 1, …
    is an execution order, and no segment waits for itself.
    """
    depth: dict[int, int] = {}
    on_device: dict[int, bool] = {}
    for op in graph.ops:
        reason = refuse(op)
        on_device[id(op)] = reason is None
        level = 0
        for value in op.inputs:
            producer = value.producer
            if producer is not None:
                crossing = on_device[id(producer)] and reason is not None
                level = max(level, depth[id(producer)] + crossing)
        depth[id(op)] = level
        op.placement = Placement(device, level) if reason is None else Placement(HOST, None, reason)
    position = {id(op): index for index, op in enumerate(graph.ops)}
    graph.ops.sort(key=lambda op: (depth[id(op)], on_device[id(op)], position[id(op)]))
    _renumber(graph, device)
    graph.stage = Stage.PLACED
    return True


def _renumber(graph: Graph, device: str) -> None:
    """Count segments from 0 without gaps."""
    used = sorted({op.placement.segment for op in graph.ops if op.placement and op.placement.segment is not None})
    number = {old: new for new, old in enumerate(used)}
    for op in graph.ops:
        if op.placement is not None and op.placement.segment is not None:
            op.placement = Placement(device, number[op.placement.segment])
