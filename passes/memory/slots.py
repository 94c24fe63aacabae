# SPDX-License-Identifier: Apache-2.0
"""Slots: buffers of about one size take turns in places of their own, so that what is free never lies in pieces.

What a tiled layer loads and stores comes in few sizes, again and again. Each size gets as many slots as are in use at once, and
more of them, one size after another, as long as there is room: what is loaded next need not wait for what is in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gadl.passes.plan.program import Buffer

Spans = Mapping[int, tuple[int, int]]


@dataclass
class _Class:
    """Buffers, in order of first use, that share slots of one size."""

    size: int
    buffers: list[Buffer]
    slots: int


def take_turns(buffers: Sequence[Buffer], spans: Spans, capacity: int) -> bool:
    """Give all of the buffers addresses; False, and nothing done, when the slots do not fit.

    `buffers` come in order of first use, `spans` names the first and last step of each, by `id`.
    """
    classes = _classes(buffers, spans)
    room = capacity - sum(c.size * c.slots for c in classes)
    if room < 0:
        return False
    grown = True
    while grown:
        grown = False
        for item in classes:
            if item.slots < len(item.buffers) and item.size <= room:
                item.slots, room, grown = item.slots + 1, room - item.size, True
    start = 0
    for item in classes:
        free = [-1] * item.slots  # the last step of who had each slot
        for buffer in item.buffers:
            first, last = spans[id(buffer)]
            slot = min(range(item.slots), key=lambda i: free[i])
            free[slot], buffer.address = last, start + slot * item.size
        start += item.size * item.slots
    return True


def _classes(buffers: Sequence[Buffer], spans: Spans) -> list[_Class]:
    """Sizes from the largest down; a size joins the one above where that takes no more memory."""
    sizes: dict[int, list[Buffer]] = {}
    for buffer in buffers:
        step = buffer.alignment
        sizes.setdefault(-(-buffer.size // step) * step, []).append(buffer)
    found: list[_Class] = []
    for size, members in sorted(sizes.items(), reverse=True):
        made = _Class(size, members, _alive(members, spans))
        if found:
            above = found[-1]
            both = sorted((*above.buffers, *members), key=lambda b: spans[id(b)][0])
            slots = _alive(both, spans)
            if slots * above.size <= above.slots * above.size + made.slots * size:
                found[-1] = _Class(above.size, both, slots)
                continue
        found.append(made)
    return found


def _alive(buffers: Sequence[Buffer], spans: Spans) -> int:
    """The most buffers alive at one step."""
    changes = sorted(change for b in buffers for change in ((spans[id(b)][0], 1), (spans[id(b)][1] + 1, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
