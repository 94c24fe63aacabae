# SPDX-License-Identifier: Apache-2.0
"""What onnxsim before the importer would change on the suite's models: ops after the float pipeline, and time.

    GADL_SUITE=path/to/suite python benchmarks/onnxsim_first.py [NAME …]
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter

import onnx_ir

from gadl.compiler.diag import Diagnostic
from gadl.compiler.ir.graph import Graph
from gadl.frontends.onnx import import_onnx
from gadl.frontends.onnx.load import load_model
from gadl.frontends.onnx.simplify import simplified
from gadl.passes.pipeline import FLOAT_PIPELINE

MODELS = ("fashion_cnn", "mobilenet_v2", "pulsevad_81k", "hey_jarvis", "ppocr_det", "ppocr_rec", "layout_picodet", "u2netp")


def ops_of(graph: Graph) -> Counter[str]:
    """Ops by name after the float pipeline."""
    for item in FLOAT_PIPELINE:
        item.run(graph)
    return Counter(op.name for op in graph.ops)


def show(item: Diagnostic) -> None:
    """A warning of onnxsim's."""
    print(item, file=sys.stderr)


def main() -> None:
    sys.path.insert(0, os.environ["GADL_SUITE"])
    import suite

    print("| model | ops | ops after onnxsim | time, × import alone |\n|---|---|---|---|")
    for name in sys.argv[1:] or MODELS:
        case = suite.load(name)
        shapes = {i.name: i.shape for i in case.inputs}
        start = time.perf_counter()
        plain = import_onnx(case.onnx, shapes, simplify=False)
        middle = time.perf_counter()
        model, _, file = load_model(case.onnx)
        simple = onnx_ir.to_proto(simplified(model, shapes, file, show) or model)
        first = import_onnx(simple, shapes, simplify=False)
        ratio = (time.perf_counter() - middle) / (middle - start)
        before, after = ops_of(plain), ops_of(first)
        more = [f"+{n} {op}" for op, n in (after - before).items()] + [f"−{n} {op}" for op, n in (before - after).items()]
        print(f"| {name} | {before.total()} | {', '.join(more) or 'the same'} | {ratio:.0f} |", flush=True)


if __name__ == "__main__":
    main()
