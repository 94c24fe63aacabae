# SPDX-License-Identifier: Apache-2.0
"""Scores of the suite's models in float (`cpu`), int8 (`npu`, simulated) and ONNX Runtime's own int8, as a table.

    GADL_SUITE=path/to/suite python benchmarks/suite_scores.py [--calib 64] [--out docs/results.md] [NAME …]

Rows go to the table between the markers of the file, so that it can be regenerated model by model.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

MODELS = ("fashion_cnn", "mobilenet_v2", "pulsevad_81k", "hey_jarvis", "ppocr_det", "ppocr_rec", "layout_picodet", "u2netp")
BEGIN, END = "<!-- suite: begin -->", "<!-- suite: end -->"
HEAD = (
    "| model | metric | ORT float | gadl float (cpu) | gadl int8 (npu edge) | ORT int8 | simulator = interpreter | host ops | cycles | × LBgeo |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def row(name: str, count: int) -> str:
    """Compile, check and score one model."""
    import suite

    import gadl
    from gadl.runtime.session import Session

    case = suite.load(name)
    shapes = {i.name: i.shape for i in case.inputs}
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in ("cpu", "npu"):
            start = time.perf_counter()
            feeds = list(case.calibration(count)) if target == "npu" else None
            artifact = gadl.compile(case.onnx, target=target, shapes=shapes, calibration=feeds)
            path = Path(folder) / f"{target}.gadl"
            artifact.save(path)
            session = Session(path, check=False)
            scores[target] = case.evaluate(session.run)["score"]
            print(f"{name} {target}: {scores[target]:.4f} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
    report = artifact.report
    known = case._scores
    equal = "0 bits differ" if report["self_check"]["equal"] else f"{report['self_check']['max_relative_difference']:.1e}"
    return (
        f"| {name} | {case.metric} | {known['float']['score']:.4f} | {scores['cpu']:.4f} | {scores['npu']:.4f} | "
        f"{known['ort-int8']['score']:.4f} | {equal} | {len(report['placement']['reasons'])} | {report['plan']['cycles']:,} | "
        f"{report['plan']['cycles_over_lbgeo']:.2f} |"
    )


def merge(path: Path, rows: list[str]) -> None:
    """Put rows into the table of a page, replacing those of the same models."""
    text = path.read_text(encoding="utf-8")
    inside = text.split(BEGIN)[1].split(END)[0]
    table = {m.group(1): m.group(0) for m in re.finditer(r"^\| (\w+) \|.*\|$", inside, re.M) if m.group(1) in MODELS}
    table |= {r.split("|")[1].strip(): r for r in rows}
    body = "\n".join([*HEAD, *(table[m] for m in MODELS if m in table)])
    path.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{body}\n{END}{text.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--calib", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, os.environ["GADL_SUITE"])
    for name in options.names:
        line = row(name, options.calib)
        print(line, flush=True)
        if options.out:
            merge(options.out, [line])


if __name__ == "__main__":
    main()
