# SPDX-License-Identifier: Apache-2.0
"""The table of groups and layers for terminals."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .labels import labels
from .model import Figures, Limit, Performance

_COLOURS = {
    "array": "blue", "mma": "blue", "banks": "yellow", "sram banks": "yellow", "drain": "magenta", "vector": "cyan",
    "dram": "red", "waiting": "bright_black", "hidden": "bright_black",
}  # fmt: skip
#: Characters of a bar.
BAR = 16


def plan_table(performance: Performance, name_width: int = 0) -> RenderableType:
    """Every group with its layers, the total, and what limits. Names longer than `name_width` (0: any) lose their beginning."""
    words, total = labels(), performance.total
    table = Table(box=None, pad_edge=False, header_style="bright_black", padding=(0, 1, 0, 0))
    table.add_column(words["layer"], no_wrap=True)
    table.add_column(words["op"], no_wrap=True)
    table.add_column("", no_wrap=True)
    for key in ("measured", "share", "predicted", "error", "bound"):
        table.add_column(words[key], justify="right", no_wrap=True)
    table.add_column(words["limited_by"], no_wrap=True)
    for key in ("macs", "bytes"):
        table.add_column(words[key], justify="right", no_wrap=True)
    widest = max((g.measured_cycles for g in performance.groups), default=0.0)
    widest_layer = max((y.measured_cycles for y in performance.layers), default=0.0)
    for group in performance.groups:
        count = len(group.layers)
        said = f"{count} {words['layers' if count > 1 else 'one_layer']}"
        if group.iterations > 1:
            said += f", {group.iterations} {words['iterations']}"
        heading = Text(f"{words['group']} {group.index + 1}").append(f"  {said}", style="not bold bright_black")
        table.add_row(heading, "", *_numbers(group, total, widest, words), style="bold")
        for layer in group.layers:
            name = layer.name if not name_width or len(layer.name) <= name_width else "…" + layer.name[1 - name_width :]
            # Names may hold square brackets, which are no markup.
            table.add_row(Text(f"  {name}"), Text(layer.op), *_numbers(layer, total, widest_layer, words))
    table.add_row(Text(words["total"], style="bold"), "", *_numbers(total, total, total.measured_cycles, words), style="bold")
    return Group(table, Text(""), *_summary(performance, words))


def _numbers(row: Figures, total: Figures, widest: float, words: dict[str, str]) -> list[Text]:
    """The cells after name and op."""
    measured, hidden = row.measured_cycles, row.limit is Limit.HIDDEN
    error = "–" if hidden or not row.predicted else f"{100 * (row.predicted_cycles - measured) / measured:+.0f} %"
    return [
        bar(row.spent, widest),
        Text("–" if hidden else f"{measured:,.0f}"),
        Text(f"{100 * measured / total.measured_cycles:.1f} %" if total.measured_cycles else "–"),
        Text(f"{row.predicted_cycles:,.0f}" if row.predicted else "–"),
        Text(error, style="" if error == "–" or abs(row.predicted_cycles - measured) <= measured / 2 else "red"),
        Text("–" if hidden or not row.bound else f"{100 * row.bound_cycles / measured:.0f} %"),
        Text(words[f"limit.{row.limit.value}"], style=_COLOURS[row.limit.value]),
        Text(f"{100 * row.mac_utilisation:.1f}" if row.macs else "–"),
        Text(f"{row.dram_bytes / 1024:,.1f} KiB" if row.dram_bytes else "–"),
    ]


def bar(spent: dict[str, float], widest: float) -> Text:
    """A bar of `BAR` characters for `widest` cycles, by cause; boundaries are rounded, so parts keep their sum."""
    text, at, drawn = Text(), 0.0, 0
    for kind, cycles in spent.items():
        at += cycles
        end = round(BAR * at / widest) if widest else 0
        text.append("█" * (end - drawn), style=_COLOURS[kind])
        drawn = end
    return text


def _summary(performance: Performance, words: dict[str, str]) -> list[Text]:
    total = performance.total
    parts = Text(words["where"])
    for kind, cycles in total.spent.items():
        share = 100 * cycles / total.measured_cycles if total.measured_cycles else 0.0
        parts.append("  ■ ", style=_COLOURS[kind]).append(f"{words[f'spent.{kind}']} {share:.1f} %")
    found = [parts, Text(words[f"verdict.{total.limit.value}"], style="bold")]
    for what, word, score in (
        ("agreement", "layers", performance.layer_agreement),
        ("agreement", "groups_only", performance.group_agreement),
        ("estimate", "groups_only", performance.estimate_agreement),
    ):
        if score.median_relative_error is not None:
            rank = "–" if score.spearman is None else f"{score.spearman:.3f}"
            text = f"{words[what]} / L1, {score.count} {words[word]}: {words['median']} {100 * score.median_relative_error:.1f} %"
            found.append(Text(f"{text}, {words['rank']} {rank}", style="bright_black"))
    return found
