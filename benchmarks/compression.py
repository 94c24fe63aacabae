# SPDX-License-Identifier: Apache-2.0
"""What weight compression (zb1) saves: cycles and DRAM bytes without it and with it, as trained and pruned to `--zeros`.

    GADL_SUITE=path/to/suite python benchmarks/compression.py [--machine edge] [--zeros 0.7] [--pruned NAME,…] [NAME …]

Pruned models lose the smallest weights of each tensor with at least two axes and are not trained again: they only say what
sparse weights cost. Cycles are the simulator's, so the table is the same on every computer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MODELS = ["mobilenet_v2", "ppocr_det", "ppocr_rec", "u2netp", "layout_picodet", "fashion_cnn", "pulsevad_81k", "hey_jarvis"]
#: Tensors with fewer elements are tables, biases and shapes.
LEAST_ELEMENTS = 256


def without_codec(machine: str, folder: Path) -> Path:
    """The same machine without a decoder."""
    import gadl.targets.npu.machine as machines

    text = (Path(machines.__file__).parent / "machines" / f"{machine}.toml").read_text()
    plain = folder / f"{machine}.toml"
    plain.write_text(text.replace('weights = "zb1"', 'weights = "none"'))
    return plain


def pruned(model: Any, zeros: float) -> Any:
    """The model with its smallest weights set to zero, tensor by tensor."""
    import onnx

    loaded = onnx.load(model) if isinstance(model, (str, Path)) else model
    for tensor in loaded.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim >= 2 and array.size >= LEAST_ELEMENTS:
            sizes = np.abs(array)
            made = np.where(sizes > np.quantile(sizes, zeros), array, np.float32(0))
            tensor.CopyFrom(onnx.numpy_helper.from_array(made, tensor.name))
    return loaded


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--machine", default="edge")
    parser.add_argument("--zeros", type=float, default=0.7)
    parser.add_argument("--pruned", default="mobilenet_v2")
    options = parser.parse_args()
    sys.path[:0] = [os.environ["GADL_SUITE"], str(ROOT), str(ROOT / "benchmarks")]
    from plans import model_of

    import gadl

    print("| model | weights | stored / raw | cycles: raw | zb1 | | DRAM bytes: raw | zb1 | | / least |\n|---|---|---|---|---|---|---|---|---|---|")
    runs = [(name, 0.0) for name in options.names] + [(name, options.zeros) for name in options.pruned.split(",") if name]
    for name, zeros in runs:
        model, shapes, samples = model_of(name)
        if zeros:
            model = pruned(model, zeros)
        with tempfile.TemporaryDirectory() as folder:
            plain = without_codec(options.machine, Path(folder))
            before, after = (
                gadl.compile(model, target="npu", machine=str(m), shapes=shapes, calibration=samples).report["plan"]
                for m in (plain, options.machine)
            )
        parts = []
        for key in ("cycles", "dram_bytes"):
            parts += [f"{before[key]:,}", f"{after[key]:,}", f"{100 * (after[key] / before[key] - 1):+.2f} %"]
        print(
            f"| {name} | {f'{zeros:.0%} zeros' if zeros else 'as trained'} | "
            f"{after['weights_compressed_bytes'] / after['weights_raw_bytes']:.4f} | {' | '.join(parts)} | "
            f"{after['dram_bytes'] / after['dram_bound_bytes']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
