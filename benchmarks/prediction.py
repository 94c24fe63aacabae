# SPDX-License-Identifier: Apache-2.0
"""How well predicted cycles (L0) agree with simulated ones (L1), over the layers and groups of models.

    GADL_SUITE=path/to/suite python benchmarks/prediction.py [--machines edge,mid] [NAME …]

Both are the machine's cycles, so the table is the same on every computer.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["mobilenet_v2", "resnet50", "ppocr_rec"])
    parser.add_argument("--machines", default="edge,mid")
    options = parser.parse_args()
    sys.path[:0] = [os.environ["GADL_SUITE"], str(ROOT)]
    from benchmarks.plans import model_of

    import gadl
    from gadl.compiler.artifact.reader import ArtifactFile
    from gadl.compiler.report import observe
    from gadl.compiler.report.model import Agreement

    def score(found: Agreement) -> str:
        error = "–" if found.median_relative_error is None else f"{found.median_relative_error:.1%}"
        weighted = "–" if found.weighted_relative_error is None else f"{found.weighted_relative_error:.1%}"
        return f"{found.count} | {error} | {weighted} | {'–' if found.spearman is None else f'{found.spearman:.3f}'}"

    print("| model | machine | L1 cycles | L0 / L1 | layers | median error | by cycles | rank | groups | median error | by cycles | rank | limited by |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in options.names:
        model, shapes, samples = model_of(name)
        for machine in options.machines.split(","):
            artifact = gadl.compile(model, target="npu", machine=machine, shapes=shapes, calibration=samples, self_check=False)
            performance, _ = observe(ArtifactFile(artifact.data))
            assert performance is not None
            total = performance.total
            print(
                f"| {name} | {machine} | {total.measured_cycles:,.0f} | {total.predicted_cycles / total.measured_cycles:.2f} | "
                f"{score(performance.layer_agreement)} | {score(performance.group_agreement)} | {total.limit.value} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
