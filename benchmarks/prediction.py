# SPDX-License-Identifier: Apache-2.0
"""How well predicted cycles (L0) and the planner's estimates agree with simulated ones (L1), over layers and groups of models.

    GADL_SUITE=path/to/suite python benchmarks/prediction.py [--machines edge,mid,large] [NAME …]

Both are the machine's cycles, so the table is the same on every computer.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: The convolutional models of the suite, and ResNet-50.
MODELS = (
    "mobilenet_v2", "resnet50", "ppocr_rec", "ppocr_det", "layout_picodet", "u2netp", "fashion_cnn", "pulsevad_81k", "hey_jarvis",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--machines", default="edge,mid,large")
    options = parser.parse_args()
    sys.path[:0] = [os.environ["GADL_SUITE"], str(ROOT)]
    from benchmarks.plans import model_of

    import gadl
    from gadl.compiler.artifact.reader import ArtifactFile
    from gadl.compiler.report import observe
    from gadl.compiler.report.model import Agreement, Performance
    from gadl.compiler.report.score import agreement

    def score(found: Agreement) -> str:
        error = "–" if found.median_relative_error is None else f"{found.median_relative_error:.1%}"
        weighted = "–" if found.weighted_relative_error is None else f"{found.weighted_relative_error:.1%}"
        return f"{found.count} | {error} | {weighted} | {'–' if found.spearman is None else f'{found.spearman:.3f}'}"

    scored = [f"{what} | median error | by cycles | rank" for what in ("layers", "groups", "estimated")]
    columns = ["model", "machine", "L1 cycles", "L0 / L1", *scored, "limited by"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * (len(columns) + 3 * len(scored))}")
    pooled: dict[str, list[Performance]] = {}
    for name in options.names:
        model, shapes, samples = model_of(name)
        for machine in options.machines.split(","):
            artifact = gadl.compile(model, target="npu", machine=machine, shapes=shapes, calibration=samples, self_check=False)
            performance, _ = observe(ArtifactFile(artifact.data))
            assert performance is not None
            total = performance.total
            pooled.setdefault(machine, []).append(performance)
            print(
                f"| {name} | {machine} | {total.measured_cycles:,.0f} | {total.predicted_cycles / total.measured_cycles:.2f} | "
                f"{score(performance.layer_agreement)} | {score(performance.group_agreement)} | "
                f"{score(performance.estimate_agreement)} | {total.limit.value} |",
                flush=True,
            )
    for machine, found in pooled.items():
        layers, groups = [y for p in found for y in p.layers], [g for p in found for g in p.groups]
        told = [g for g in groups if g.estimated_cycles is not None]
        scores = (
            agreement([y.predicted_cycles for y in layers], [y.measured_cycles for y in layers]),
            agreement([g.predicted_cycles for g in groups], [g.measured_cycles for g in groups]),
            agreement([g.estimated_cycles or 0.0 for g in told], [g.measured_cycles for g in told]),
        )
        measured, predicted = (sum(getattr(p.total, key) for p in found) for key in ("measured_cycles", "predicted_cycles"))
        print(f"| all | {machine} | {measured:,.0f} | {predicted / measured:.2f} | {' | '.join(map(score, scores))} | – |")


if __name__ == "__main__":
    main()
