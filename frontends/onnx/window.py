# SPDX-License-Identifier: Apache-2.0
"""Sliding windows: strides, pads and dilations with `auto_pad` worked out."""

from __future__ import annotations

from gadl.compiler.ir.graph import Value

from .node import Node, Unsupported


def window_of(node: Node, kernel: tuple[int, ...], extents: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Strides, pads and dilations of a window, `auto_pad` worked out."""
    rank = len(kernel)
    strides = node.ints("strides") or (1,) * rank
    dilations = node.ints("dilations") or (1,) * rank
    pads = node.ints("pads") or (0,) * (2 * rank)
    auto = node.attr("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        if min(strides) < 1:
            raise Unsupported(f"strides {strides}")
        before, after = [], []
        for extent, k, s, d in zip(extents, kernel, strides, dilations):
            total = max(0, (-(-extent // s) - 1) * s + (k - 1) * d + 1 - extent)
            less, more = total // 2, total - total // 2
            before.append(less if auto == "SAME_UPPER" else more)
            after.append(more if auto == "SAME_UPPER" else less)
        pads = (*before, *after)
    if not (len(strides) == len(dilations) == len(pads) // 2 == len(extents) == rank) or min(strides, default=1) < 1:
        raise Unsupported(f"strides {strides}, dilations {dilations} and pads {pads} do not fit a window of {kernel}")
    return {"strides": strides, "pads": pads, "dilations": dilations}


def crop_negative(node: Node, x: Value, window: dict[str, tuple[int, ...]]) -> Value:
    """Negative pads cut the input; the window then starts at 0."""
    pads, rank = window["pads"], len(window["strides"])
    if min(pads) >= 0:
        return x
    starts = (0, 0, *(max(0, -p) for p in pads[:rank]))
    sizes = tuple(d - s - (max(0, -pads[rank + i - 2]) if i >= 2 else 0) for i, (d, s) in enumerate(zip(x.shape, starts)))
    window["pads"] = tuple(max(0, p) for p in pads)
    return node.emit("slice", x, starts=starts, sizes=sizes, steps=(1,) * len(starts))
