# SPDX-License-Identifier: Apache-2.0
"""Machine files and the timing formulas against public closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gadl.compiler.diag import GadlError
from gadl.targets.npu.bounds import systolic_total
from gadl.targets.npu.machine import PARAMETERS, load_machine, machine_names, parse_machine


@pytest.mark.parametrize("name", machine_names())
def test_shipped_machines_load(name: str) -> None:
    machine = load_machine(name)
    assert len(machine.record) == 8 * len(PARAMETERS)
    assert machine.sram_bytes > 0


def test_peak_rates_of_the_classes() -> None:
    tops = {}
    for name in ("edge", "mid", "large"):
        m = load_machine(name)
        tops[name] = 2e-12 * m.clock_hz * math.prod(m[f"mma.shape.{i}"] for i in range(3)) * m["machine.cores"]
    assert {k: round(v, 1) for k, v in tops.items()} == {"edge": 2.0, "mid": 8.2, "large": 32.8}


@pytest.mark.parametrize(
    ("data", "code", "key"),
    [
        ({"machine": {"clock": 1}}, "GADL-T012", "machine.clock"),
        ({"mma": {"rate": {"i4": 1}}}, "GADL-T012", "mma.rate.i4"),
        ({}, "GADL-T013", "sram.kib"),
        ({"sram": {"kib": -1}}, "GADL-T014", "sram.kib"),
        ({"mma": {"flow": "sideways"}}, "GADL-T014", "mma.flow"),
        ({"sram": {"kib": float("nan")}}, "GADL-T014", "sram.kib"),
        ({"mma": {"shape": [4]}}, "GADL-T014", "mma.shape[1]"),
    ],
)
def test_every_mistake_names_its_key(data: dict, code: str, key: str) -> None:
    with pytest.raises(GadlError) as caught:
        parse_machine(data)
    assert any(d.code == code and d.values["key"] == key for d in caught.value.diagnostics)


def test_files_that_are_no_machines(tmp_path: Path) -> None:
    for text in ("[machine", "x" * (1 << 21), "a = 1"):
        path = tmp_path / "m.toml"
        path.write_text(text)
        with pytest.raises(GadlError):
            load_machine(path)
    with pytest.raises(GadlError, match="GADL-T010"):
        load_machine("no-such-machine")


def scale_sim(flow: str, r: int, m: int, n: int, k: int) -> int:
    """Published closed forms without stalls (SCALE-Sim 3.0.0), square array."""
    if flow == "ws":
        return math.ceil(k / r) * math.ceil(n / r) * (3 * r + m - 2) - 1
    return math.ceil(m / r) * math.ceil(n / r) * (2 * r + k - 2) - 1


#: (M, N, K): GEMMs of one ViT-B block at sequence 197, and convolutions as products.
LAYERS = [(197, 768, 768), (197, 197, 64), (197, 64, 197), (197, 3072, 768), (197, 768, 3072), (12544, 64, 147), (3136, 64, 576), (49, 2048, 512), (196, 32, 144)]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("flow", ["ws", "os"])
def test_systolic_presets_equal_scale_sim(flow: str, size: int) -> None:
    machine = load_machine(f"scalesim-{flow}-{size}")
    for layer in LAYERS:
        assert systolic_total(machine, [layer]) == scale_sim(flow, size, *layer)


def test_the_small_layer_that_was_run_in_scale_sim_itself() -> None:
    """One 16x16 layer (M=196, N=32, K=144): 4355 weight-stationary, 4523 output-stationary."""
    assert systolic_total(load_machine("scalesim-ws-16"), [(196, 32, 144)]) == 4355
    assert systolic_total(load_machine("scalesim-os-16"), [(196, 32, 144)]) == 4523
