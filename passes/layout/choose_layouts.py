# SPDX-License-Identifier: Apache-2.0
"""Layout choice: each tensor of a placed graph gets a memory layout, and `relayout` ops stand where two meet.

The logical shape never changes, so no result changes: `y = f(x)  -->  y = f(relayout(x))`, and `relayout` is the
identity on values.
"""

from __future__ import annotations

from gadl.compiler.ir.graph import Graph, Op, Placement, Value
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import Layout

#: Device ops whose meaning follows the logical order of elements, or that work along the last axis.
_ROW_MAJOR = frozenset({"reshape", "linear", "matmul", "softmax", "layer_norm", "rms_norm", "attention"})


def choose_layouts(graph: Graph, channels_last: frozenset[str]) -> bool:
    """Set `layout` on every value and insert `relayout` where producer and consumer differ.

    Host kernels work on row-major tensors. On the device, the ops named in `channels_last` want channels innermost, products
    and reshapes row major, and all other ops take the layout that most of their neighbours have.
    """
    wanted = _device_layouts(graph, channels_last)
    changed = False
    for op in graph.ops:
        for value in op.results:
            layout = op.attrs["layout"] if op.name == "relayout" else wanted.get(id(value), Layout.ROW_MAJOR)
            if layout is not value.layout:
                value.type = value.type.with_(layout=layout)
                changed = True
    for op in list(graph.ops):
        for index, operand in enumerate(op.operands):
            if operand is None or operand.is_constant or operand.type.rank < 3:
                continue
            need = _operand_layout(op, operand, wanted, channels_last)
            if need is not operand.layout and not _same_bytes(operand):
                op.set_operand(index, _relaid(graph, op, operand, need))
                changed = True
    return changed


def _on_device(op: Op | None) -> bool:
    return op is not None and op.placement is not None and op.placement.segment is not None


def _same_bytes(value: Value) -> bool:
    """True when both layouts order the elements alike."""
    return value.shape[1] == 1 or all(d == 1 for d in value.shape[2:])


def _device_layouts(graph: Graph, channels_last: frozenset[str]) -> dict[int, Layout]:
    """The layout of each device result, by `id(value)`; two sweeps settle the neutral ops."""
    chosen: dict[int, Layout] = {}
    device_ops = [op for op in graph.ops if _on_device(op)]
    for op in device_ops:
        if op.name == "relayout":
            chosen[id(op.result)] = op.attrs["layout"]
        elif op.result.type.rank < 3 or op.name in _ROW_MAJOR:
            chosen[id(op.result)] = Layout.ROW_MAJOR
        elif op.name in channels_last:
            chosen[id(op.result)] = Layout.CHANNELS_LAST
    for sweep in (device_ops, list(reversed(device_ops)), device_ops):
        for op in sweep:
            if id(op.result) not in chosen and op.result.type.rank >= 3:
                votes = [chosen[id(v)] for v in op.inputs if id(v) in chosen and v.type.rank == op.result.type.rank]
                votes += [Layout.CHANNELS_LAST for u in op.result.users if u.name in channels_last and _on_device(u)]
                votes += [Layout.ROW_MAJOR for u in op.result.users if u.name in _ROW_MAJOR and _on_device(u)]
                if votes:
                    last = votes.count(Layout.CHANNELS_LAST)
                    chosen[id(op.result)] = Layout.CHANNELS_LAST if 2 * last > len(votes) else Layout.ROW_MAJOR
    return chosen


def _operand_layout(op: Op, value: Value, wanted: dict[int, Layout], channels_last: frozenset[str]) -> Layout:
    """The layout in which `op` reads `value`."""
    if not _on_device(op):
        return Layout.ROW_MAJOR if op.name != "relayout" else value.layout
    if op.name in ("transpose", "relayout"):
        return value.layout
    if op.name in channels_last:
        return Layout.CHANNELS_LAST
    if op.name in _ROW_MAJOR:
        return Layout.ROW_MAJOR
    if op.name.startswith("reduce_") and value.type.rank >= 3:
        return value.layout if value.layout is Layout.CHANNELS_LAST else Layout.ROW_MAJOR
    return wanted.get(id(op.result), Layout.ROW_MAJOR)


def _relaid(graph: Graph, op: Op, value: Value, layout: Layout) -> Value:
    """`value` in another layout, made once per value and layout.

    The copy runs where the producer runs, or on the host when the value comes from there: a device reads what it
    is given in long rows.
    """
    for user in value.users:
        if user.name == "relayout" and user.result.layout is layout:
            return user.result
    producer = value.producer
    index = 0 if producer is None else graph.ops.index(producer) + 1
    build = Builder(graph, index, op.loc)
    made = build.create("relayout", [value], {"layout": layout}, result=f"{value.name}.{layout.value}",
                        type=value.type.with_(layout=layout))
    made.placement = producer.placement if producer is not None and producer.placement is not None else None
    if made.placement is None:
        made.placement = Placement("host", None, "prepares a model input for the device")
    return made.result
