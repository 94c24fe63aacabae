# SPDX-License-Identifier: Apache-2.0
"""How static allocation does on a folder of MiniMalloc cases.

    python benchmarks/minimalloc.py [tests/data/minimalloc] [--capacity 1048576] [--steps 8000000000]

A case is a CSV file with a row for each buffer (github.com/google/minimalloc). Steps, and with them the results, are the same on
every computer; times are not.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from gadl.passes.memory.search import Item, heuristic, lower_bound, search

ROOT = Path(__file__).parents[1]
#: The columns by their names in the versions of the format.
START, END = ("lower", "start"), ("upper", "end")


def load(path: Path) -> list[Item]:
    """The buffers of a case, in the order of its rows; `KeyError` when a column is missing, `ValueError` when a value is no number.

    Columns: `id` or `buffer`, `lower` or `start`, `upper` or `end` (exclusive), `size`, and perhaps `alignment`. Others are left.
    """
    with path.open(newline="") as file:
        return [
            Item(_value(row, START), _value(row, END), int(row["size"]), int(row.get("alignment") or 1)) for row in csv.DictReader(file)
        ]


def _value(row: dict[str, str], names: tuple[str, ...]) -> int:
    return int(row[names[0]] if names[0] in row else row[names[1]])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "tests/data/minimalloc")
    parser.add_argument("--capacity", type=int, default=1 << 20)
    parser.add_argument("--steps", type=int, default=8_000_000_000)
    options = parser.parse_args()
    print("| case | buffers | lower bound | height | by | s | steps |\n|---|---|---|---|---|---|---|")
    for path in sorted(options.folder.glob("*.csv")):
        items, begun = load(path), time.perf_counter()
        offsets, by, steps = heuristic(items, options.capacity), "heuristic", 0
        if offsets is None:
            found = search(items, options.capacity, options.steps)
            offsets, by, steps = found.offsets, "search", found.steps
        height = max(o + i.size for o, i in zip(offsets, items)) if offsets else None
        print(
            f"| {path.name.split('.')[0]} | {len(items)} | {lower_bound(items):,} | {f'{height:,}' if height else 'not found'} | {by} | "
            f"{time.perf_counter() - begun:.3f} | {steps:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
