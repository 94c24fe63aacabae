# SPDX-License-Identifier: Apache-2.0
"""The self-check: a finished artefact runs once against the interpreter, and what was counted meanwhile goes to the report.

Where its device is not to be had, the report says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.diag import GadlError
from gadl.compiler.diag.render import headline
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Trait, op_def
from gadl.compiler.ir.types import Array
from gadl.passes.quant.quantize import Precision
from gadl.targets.base import DeviceProgram, Machine


def exact_outputs(graph: Graph) -> set[str]:
    """Outputs that come from inputs by integer arithmetic, conversions and movement alone: every bit of them is defined."""
    inexact: set[int] = set()
    for op in graph.ops:
        computes_floats = any(v.dtype.is_float for v in op.results) and not (
            op.name == "dequantize" or Trait.MOVES_DATA in op_def(op.name).traits
        )
        if computes_floats or any(id(v) in inexact for v in op.inputs):
            inexact.update(id(v) for v in op.results)
    return {name for name, value in zip(graph.output_names, graph.outputs) if id(value) not in inexact}


def self_check(
    data: bytes, driver: str, feeds: Mapping[str, Array], expected: Mapping[str, Array], precision: Precision, exact: Collection[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run the artefact of a driver once against the interpreter: what was found, and the device's counters.

    Without the driver or its device nothing is run: `not_run` says why, and `equal` is None. Raises `GADL-P003` when one bit of an exact output differs, or another output by more than floats may.
    """
    from gadl.runtime.session import Session, device_for

    device, problem = device_for(driver)
    if problem is not None:
        return {"equal": None, "max_relative_difference": None, "precision": precision.value, "not_run": headline(problem)}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.gadl"
        path.write_bytes(data)
        session = Session(path, device)
        got = session.run(feeds)
        counters = session.counters
    equal = True
    worst = 0.0
    for name, want in expected.items():
        have = got[name]
        if not np.array_equal(have, want):
            equal = False
            scale = float(np.max(np.abs(want), initial=0.0)) or 1.0
            worst = max(worst, float(np.max(np.abs(have.astype(np.float64) - want.astype(np.float64)), initial=0.0)) / scale)
            if name in exact or worst > 1e-2 or not np.isfinite(worst):
                raise GadlError.of("GADL-P003", tensor=name, count=int((have != want).sum()))
    return {"equal": equal, "max_relative_difference": worst, "precision": precision.value}, counters


def add_counters(report: dict[str, Any], counters: Mapping[str, float], machine: Machine | None) -> None:
    """Counted cycles and traffic, and what follows from them; a time below the bound is a bug."""
    plan, cycles = report["plan"], counters.get("cycles")
    if not plan or machine is None or not cycles:
        return
    traffic = int(counters["dram_read_bytes"] + counters["dram_write_bytes"])
    if cycles < plan["lb0_cycles"]:
        raise GadlError.of("GADL-P004", cycles=round(cycles), bound=round(plan["lb0_cycles"]))
    plan |= {
        "cycles": round(cycles),
        "lb0_cycles": round(plan["lb0_cycles"]),
        "lbgeo_cycles": round(plan["lbgeo_cycles"]),
        "cycles_over_lbgeo": round(cycles / plan["lbgeo_cycles"], 4) if plan["lbgeo_cycles"] else None,
        "mac_utilisation": round(plan["macs"] / (cycles * machine.macs_per_cycle), 6),
        "dram_bytes": traffic,
    }
    report["latency_us"] = round(cycles / machine.clock_mhz, 3)



def add_estimate(report: dict[str, Any], programs: Sequence[DeviceProgram], machine: Machine | None) -> None:
    """Where a run counted nothing: the time that the target estimates for its programs, said to be an estimate."""
    cycles = sum(float(program.report.get("estimated_cycles", 0)) for program in programs)
    if report["latency_us"] is not None or machine is None or not cycles:
        return
    report["plan"] |= {
        "estimated_cycles": round(cycles),
        "estimated_dram_bytes": sum(int(program.report.get("estimated_dram_bytes", 0)) for program in programs),
    }
    report["latency_us"] = round(cycles / machine.clock_mhz, 3)
