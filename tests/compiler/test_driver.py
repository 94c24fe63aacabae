# SPDX-License-Identifier: Apache-2.0
"""What the driver takes from its options and from the target's rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadl.compiler import driver
from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.printer import save_gir
from gadl.compiler.ir.types import DType, TensorType
from gadl.compiler.registry import target
from gadl.passes.quant.observers import ObserverKind
from gadl.targets.npu.quant_rules import QUANT_RULES

FEEDS = [{"x": np.random.default_rng(n).normal(0, 1, (1, 4, 5, 5)).astype(np.float32)} for n in range(3)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution whose sum with its operand is returned."""
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 4, 5, 5)))
    weights = graph.constant(np.random.default_rng(9).normal(0, 1, (4, 4, 1, 1)).astype(np.float32))
    build = Builder(graph)
    product = build("conv", x, weights, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), groups=1)
    graph.set_outputs([build("add", product, x, result="y")], ["y"])
    save_gir(graph, tmp_path / "model.gir")
    return tmp_path / "model.gir"


def with_rules(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The host with other rules under its own name."""
    changed = replace(target("cpu"), quant_rules=lambda machine: replace(QUANT_RULES, **changes))
    monkeypatch.setattr(driver, "find_target", lambda name: changed)


@pytest.mark.parametrize("residuals", [True, False])
def test_rules_decide_whether_convolutions_take_residuals(model: Path, monkeypatch: pytest.MonkeyPatch, residuals: bool) -> None:
    with_rules(monkeypatch, residuals=residuals)
    artifact = driver.compile(model, "cpu", calibration=FEEDS, precision="int8")
    names = [op.name for op in artifact.graph.ops]
    assert ("add" not in names) == residuals and "conv" in names


@pytest.mark.parametrize(("given", "tried"), [(None, ["minmax", "percentile, equalize 0.5"]), ("minmax", ["minmax", "minmax, equalize 0.5"])])
def test_what_the_rules_prefer_is_tried_unless_the_user_says(
    model: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, tried: list[str]
) -> None:
    with_rules(monkeypatch, observer=ObserverKind.PERCENTILE, equalize=0.5)
    search = driver.compile(model, "cpu", calibration=FEEDS, precision="int8", observer=given).report["quant"]["search"]
    assert [trial["recipe"] for trial in search["trials"]][:2] == tried
    assert sum(trial["chosen"] for trial in search["trials"]) == 1


@pytest.mark.parametrize(("option", "value"), [("effort", "most"), ("rounding", "up"), ("coverage", "half")])
def test_an_unknown_way_to_quantise_is_the_users_mistake(model: Path, option: str, value: str) -> None:
    with pytest.raises(GadlError) as caught:
        driver.compile(model, "cpu", calibration=FEEDS, precision="int8", **{option: value})
    assert caught.value.diagnostics[0].code == "GADL-U001"
    assert f"--{option} {value}" in str(caught.value)


def test_an_unknown_observer_is_the_users_mistake(model: Path) -> None:
    with pytest.raises(GadlError) as caught:
        driver.compile(model, "cpu", calibration=FEEDS, precision="int8", observer="median")
    assert caught.value.diagnostics[0].code == "GADL-U001"
