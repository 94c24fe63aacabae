# SPDX-License-Identifier: Apache-2.0
"""How fast compiler and simulator are: `GADL_SUITE=path/to/suite python benchmarks/tool_speed.py [--large]`.

Wall times depend on the machine, so each comes with its ratio to ONNX Runtime's float session of the same model, taken in the
same run. Compile times are processor time, by stage and without calibration. `--large` adds ResNet-50 (random weights).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Threads that wait for each other in a loop would count as work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

ROOT = Path(__file__).parents[1]


def row(what: str, measured: str, limit: str, ratio: str = "") -> None:
    print(f"| {what} | {measured} | {limit} | {ratio} |", flush=True)


def best(action: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of several runs, seconds."""
    found = float("inf")
    for _ in range(times):
        start = clock()
        action()
        found = min(found, clock() - start)
    return found


class Stages:
    """Processor seconds per stage of a compilation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last, self._since = "", 0.0

    def __call__(self, name: str) -> None:
        now = time.process_time()
        if self._last:
            self.seconds[self._last] = self.seconds.get(self._last, 0.0) + now - self._since
        self._last, self._since = name, now

    def without(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time not counted."""

        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*args, **options)
            self._since += time.process_time() - start
            return result

        return call


def model_rows(name: str, model: Any, feeds: Mapping[str, np.ndarray], limits: tuple[str, str], shapes: Mapping[str, Any]) -> None:
    """Compile, simulate in function and in timing alone."""
    import onnxruntime

    import gadl
    from gadl.compiler import driver
    from gadl.runtime.session import Session

    source = str(model) if isinstance(model, (str, Path)) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    start = time.process_time()
    reference = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    opened = time.process_time() - start
    ran = best(lambda: reference.run(None, dict(feeds)), 5)

    stages, calibrate = Stages(), driver.calibrate
    driver.calibrate = stages.without(calibrate)
    artifact = gadl.compile(model, target="npu", shapes=shapes, calibration=[feeds], watch=stages)
    driver.calibrate = calibrate
    stages("")
    compiled = sum(stages.seconds.values())
    row(f"compile {name}, CPU s", f"{compiled:.2f}", limits[0], f"{compiled / opened:.0f} x opening a session")
    row("… by stage", ", ".join(f"{k} {v:.2f}" for k, v in stages.seconds.items()), "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gadl"
        artifact.save(path)
        session = Session(path, check=False)
        wall = best(lambda: session.run(feeds), 3)
    row(f"simulate {name}, function and timing, s", f"{wall:.3f}", limits[1], f"{wall / ran:.1f} x a float run")
    timing_rows(name, artifact)


def timing_rows(name: str, artifact: Any) -> None:
    """The program of a model, timing alone; decoding and checking it is most of the work, since it runs once."""
    from gadl.targets.base import segments_of
    from gadl.targets.npu import _sim
    from gadl.targets.npu.backend import NpuBackend
    from gadl.targets.npu.machine import load_machine

    backend = NpuBackend(load_machine("edge"))
    programs = [backend.compile(s).code for s in segments_of(artifact.graph.ops, artifact.graph.outputs)]
    instructions = 0

    def run() -> None:
        nonlocal instructions
        reports = [_sim.simulate(program, {}, functional=False, races=False) for program in programs]
        instructions = sum(r["instructions"] for r in reports)

    seconds = best(run, 5, time.process_time)
    row(f"time: {name}, alone, M instructions/s with loading", f"{instructions / seconds / 1e6:.1f}", "-", f"{instructions} instructions")


def loop_rows() -> None:
    """The loops of sim_speed.py: the event simulation without the cost of loading."""
    from sim_speed import SHORT, TILE, rate

    for label, body, count in (("tile loop", TILE, 200_000), ("short instructions", SHORT, 800_000)):
        row(f"time: {label}, alone, M instructions/s", f"{rate(body, count, races=False)[0] / 1e6:.1f}", "10")


def import_row() -> None:
    """What `import gadl.runtime` costs and loads."""
    code = "import sys, gadl.runtime; print(*(m for m in ('onnx', 'onnx_ir', 'onnxsim', 'torch') if m in sys.modules))"

    def run(text: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=environment).stdout.strip()

    loaded = run(code)
    ours, numpy = best(lambda: run("import gadl.runtime"), 3), best(lambda: run("import numpy"), 3)
    row("import gadl.runtime, s", f"{ours:.2f}", "loads neither onnx nor torch", f"{ours / numpy:.1f} x numpy; loads {loaded or 'neither'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="ResNet-50 as well")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT), os.environ["GADL_SUITE"]]
    import suite

    print("| what | measured | limit | in comparison |\n|---|---|---|---|")
    case = suite.load("mobilenet_v2")
    shapes = {i.name: i.shape for i in case.inputs}
    model_rows("mobilenet_v2", case.onnx, next(iter(case.calibration(1))), ("4", "1"), shapes)
    if options.large:
        from tests.networks import resnet50

        image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
        model_rows("resnet50", resnet50(), {"x": image}, ("-", "3"), {})
    loop_rows()
    import_row()


if __name__ == "__main__":
    main()
