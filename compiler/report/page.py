# SPDX-License-Identifier: Apache-2.0
"""The page: one self-contained HTML file; everything drawn comes from one block of JSON in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from gadl.compiler.diag import Language, current_language
from gadl.compiler.registry import target
from gadl.targets.profile import ProgramProfile, Role

from .labels import labels
from .model import Performance, Spent

TEMPLATES = Path(__file__).parent / "templates"
#: Blocks of the timeline that a page holds; beyond, those too narrow to see are joined.
MOST_BLOCKS = 80_000
#: Buffers of the SRAM map that a page holds, the largest (bytes by cycles) first.
MOST_BUFFERS = 6_000


def render_page(report: Mapping[str, Any], performance: Performance | None, profiles: Sequence[ProgramProfile]) -> str:
    """The page's text in the current language."""
    words, chinese = labels(), current_language() is Language.ZH
    known = target(report["target"])
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined)
    data = None if performance is None else _data(performance, profiles)
    text = json.dumps({"labels": words, "data": data}, ensure_ascii=False, separators=(",", ":"))
    return environment.get_template("report.html").render(
        lang="zh-CN" if chinese else "en",
        words=words,
        report=report,
        status=known.status.zh if chinese else known.status.en,
        p=performance,
        spent=[kind.value for kind in Spent],
        # `<` and the line separators would end the script element or a string early.
        data=text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    )


def _data(performance: Performance, profiles: Sequence[ProgramProfile]) -> dict[str, Any]:
    plain = performance.to_json()
    sram = plain.pop("sram")
    weight = [b["size"] * (b["end"] - b["start"]) for b in sram]
    kept = sorted(sorted(range(len(sram)), key=lambda i: -weight[i])[:MOST_BUFFERS])
    number: dict[tuple[int, int], int] = {}
    for group in performance.groups:
        for layer in group.layers:
            number.setdefault((group.segment, layer.index), len(number))
    by_name = {layer.name: i for i, layer in reversed(list(enumerate(performance.layers)))}
    lanes, joined = _lanes(performance, profiles, number)
    return plain | {
        "lanes": lanes,
        "joined": joined,
        "sram": [
            [sram[i]["name"], by_name[sram[i]["layer"]], sram[i]["address"], sram[i]["size"], round(sram[i]["start"]), round(sram[i]["end"])]
            for i in kept
        ],
    }


def _lanes(
    performance: Performance, profiles: Sequence[ProgramProfile], number: Mapping[tuple[int, int], int]
) -> tuple[list[dict[str, Any]], bool]:
    """A lane per queue: its name, role, and blocks as flat [gap to the block before, length, layer] triples."""
    parts: dict[str, tuple[Role, list[np.ndarray[Any, np.dtype[Any]]]]] = {}
    at, count = 0.0, 0
    for segment, profile in enumerate(profiles):
        trace = profile.trace
        layer = np.array([number[segment, i] for i in range(len(profile.layers))], np.int64)
        for index, unit in enumerate(profile.units):
            mine = np.flatnonzero(trace.unit == index)
            mine = mine[np.argsort(trace.start[mine], kind="stable")]
            if len(mine):
                block = np.stack([np.rint(trace.start[mine] + at), np.rint(trace.end[mine] + at), layer[trace.layer[mine]]], axis=1)
                parts.setdefault(unit.name, (unit.role, []))[1].append(block.astype(np.int64))
                count += len(mine)
        at += profile.cycles
    joined = count > MOST_BLOCKS
    lanes = {name: (role, np.concatenate(blocks)) for name, (role, blocks) in parts.items()}
    if joined:
        width = max(1, -int(-at * len(lanes) // MOST_BLOCKS))
        lanes = {name: (role, join_blocks(blocks, width)) for name, (role, blocks) in lanes.items()}
    return [{"name": name, "role": role.value, "blocks": _packed(blocks)} for name, (role, blocks) in lanes.items()], joined


def join_blocks(blocks: np.ndarray[Any, np.dtype[Any]], width: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Blocks [start, end, layer] that start in the same `width` cycles become one.

    It is as long as they are together, so that density keeps its look, and of the layer that has most of it.
    """
    start, length, layer = blocks[:, 0], blocks[:, 1] - blocks[:, 0], blocks[:, 2]
    first = np.flatnonzero(np.diff(start // width, prepend=-1))
    busy = np.add.reduceat(length, first)
    bucket = np.repeat(np.arange(len(first)), np.diff(first, append=len(blocks)))
    # One row per bucket and layer, the longest of a bucket last.
    pairs, place = np.unique(np.stack([bucket, layer], axis=1), axis=0, return_inverse=True)
    sums = np.bincount(place.reshape(-1), length, minlength=len(pairs))
    order = np.lexsort((sums, pairs[:, 0]))
    last = np.flatnonzero(np.diff(pairs[order, 0], append=len(first)))
    return np.stack([start[first], start[first] + busy, pairs[order[last], 1]], axis=1)


def _packed(blocks: np.ndarray[Any, np.dtype[Any]]) -> list[int]:
    start, end = blocks[:, 0], blocks[:, 1]
    gaps = start - np.concatenate(([0], end[:-1]))
    found: list[int] = np.stack([gaps, end - start, blocks[:, 2]], axis=1).reshape(-1).tolist()
    return found
