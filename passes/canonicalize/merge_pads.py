# SPDX-License-Identifier: Apache-2.0
"""Zero padding in front of a window goes into the window's own padding."""

from __future__ import annotations

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.pattern import producer


def merge_pads(graph: Graph) -> bool:
    """`conv(pad(x, p), pads = q)  -->  conv(x, pads = p + q)`, for zeros on spatial axes.

    A convolution pads with zeros, so both read the same numbers. `avg_pool` likewise, where it counts its padding:
    the denominator is then that of the padded tensor (`ceil_mode` off, no pads of its own unless it counts them).
    `max_pool` pads with minus infinity; zeros are the same when no input is negative and every window holds a real
    element.
    """
    changed = False
    for op in graph.ops:
        before = producer(op.inputs[0], "pad") if op.name in ("conv", "avg_pool", "max_pool") else None
        spatial = _spatial_zeros(before) if before is not None else None
        if before is None or spatial is None or not _same(op, before.inputs[0], spatial):
            continue
        if op.name == "avg_pool":
            op.attrs["count_include_pad"] = True
        op.attrs["pads"] = tuple(a + b for a, b in zip(op.attrs["pads"], spatial))
        op.set_operand(0, before.inputs[0])
        changed = True
    return bool(graph.remove_dead_ops()) or changed


def _spatial_zeros(pad: Op) -> tuple[int, ...] | None:
    """The spatial pads (begins, then ends) of a float pad with zeros that leaves batch and channels alone."""
    pads, rank = pad.attrs["pads"], pad.result.type.rank
    zero = pad.attrs["mode"] == "constant" and pad.attrs["value"] == 0 and pad.result.quant is None
    if not zero or rank < 3 or any(pads[i] for i in (0, 1, rank, rank + 1)):
        return None
    return (*pads[2:rank], *pads[rank + 2 :])


def _same(op: Op, x: Value, pads: tuple[int, ...]) -> bool:
    """True where the window's own padding may replace the zeros."""
    if op.name == "conv":
        return True
    if op.name == "avg_pool":
        return not op.attrs["ceil_mode"] and (op.attrs["count_include_pad"] or not any(op.attrs["pads"]))
    rank = len(pads) // 2
    total = [a + b for a, b in zip(op.attrs["pads"], pads)]
    reach = [(k - 1) * d + 1 for k, d in zip(op.attrs["kernel"], op.attrs["dilations"])]
    dense = all(d == 1 for d in op.attrs["dilations"]) and not op.attrs["ceil_mode"] and not any(op.attrs["pads"])
    return dense and all(total[i] < reach[i % rank] for i in range(2 * rank)) and _not_negative(x)


def _not_negative(value: Value) -> bool:
    """True for values that some op has limited from below by 0."""
    op = value.producer
    if op is None:
        return False
    bounds = op.attrs.get("clamp")
    limited = op.name in ("relu", "sigmoid", "hard_sigmoid", "softmax") or (op.name == "clamp" and op.attrs["lo"] >= 0)
    return limited or (bounds is not None and bounds[0] >= 0)
