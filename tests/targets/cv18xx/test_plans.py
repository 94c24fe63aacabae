# SPDX-License-Identifier: Apache-2.0
"""Whatever the plan, the vendor's functional model gives the interpreter's bytes; the space of plans as a tuner uses it."""

from __future__ import annotations

import pickle
import random as random_module
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import Diagnostic, GadlError
from gadl.compiler.driver import compile
from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.printer import save_gir
from gadl.passes.plan.plan import GroupPlan, LayerPlan, LoopOrder, Plan
from gadl.targets.base import PlanSpace, Target
from gadl.targets.cv18xx.backend import CviBackend
from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.space import CviSpace
from gadl.targets.cv18xx.target import TARGETS

from ..npu.programs import float_graph, random
from .networks import ALL, feeds_of, network, placed, require_equal, segments
from .vendor import needs_functional_model

chips = st.sampled_from(list(CHIPS.values()))
kinds_of_layers = st.lists(st.sampled_from(ALL), min_size=1, max_size=8)
#: Rows, columns and channels: small ones, and such that a lane does not hold.
sizes = st.tuples(st.integers(5, 24), st.just(9), st.just(6)) | st.tuples(
    st.integers(20, 56), st.sampled_from((33, 64, 100)), st.sampled_from((6, 24, 96))
)
on_the_model = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@needs_functional_model
@on_the_model
@given(chips, kinds_of_layers, sizes, st.booleans())
def test_networks_on_the_functional_model(tmp_path: Path, chip: Chip, kinds: list[str], size: tuple[int, int, int], groups: bool) -> None:
    graph = placed(network(kinds, *size), chip.name)
    for segment in segments(graph):
        require_equal(graph, segment, CviBackend(chip).compile(segment, groups=groups), tmp_path)


@needs_functional_model
@on_the_model
@given(chips, kinds_of_layers, sizes, st.integers(0, 1 << 30), st.integers(1, 15))
def test_any_plan_that_the_tuner_reaches(tmp_path: Path, chip: Chip, kinds: list[str], size: tuple[int, int, int], seed: int, moves: int) -> None:
    graph, rng = placed(network(kinds, *size), chip.name), random_module.Random(seed)
    for segment in segments(graph):
        space = CviSpace(chip, segment)
        plan = rng.choice([space.initial(), *space.candidates(rng)])
        for _ in range(moves):
            plan = space.mutate(plan, rng)
        try:
            program = space.compile(plan)
        except GadlError as error:
            assert error.diagnostics[0].code == "GADL-P001"
            continue
        require_equal(graph, segment, program, tmp_path)


def one_convolution(chip: Chip, channels: int = 48) -> Graph:
    """3 x 3, with padding, from so many channels to 20."""
    graph, b, x = float_graph(1, channels, 7, 10)
    rng = np.random.default_rng(0)
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    graph.set_outputs([b("conv", x, random(graph, rng, 20, channels, 3, 3), random(graph, rng, 20), **window)])
    return placed(graph, chip.name)


@needs_functional_model
@pytest.mark.parametrize("order", LoopOrder)
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("rows", "channels", "depth"), [(1, 8, 0), (2, 20, 16), (7, 8, 32), (3, 16, 16)])
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_tiles_from_memory_to_memory(tmp_path: Path, chip: Chip, order: LoopOrder, resident: bool, rows: int, channels: int, depth: int) -> None:
    """Among them tiles whose operands begin with the same row and have other ends."""
    graph = one_convolution(chip)
    (segment,) = segments(graph)
    plan = Plan((GroupPlan((LayerPlan((0,), rows, channels, order, resident, depth),)),))
    space = CviSpace(chip, segment)
    assert space.legal(plan)
    require_equal(graph, segment, space.compile(plan), tmp_path)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_constants_that_come_again_are_kept_once(chip: Chip) -> None:
    (segment,) = segments(one_convolution(chip))

    def constant_bytes(tile: LayerPlan) -> int:
        return int(CviBackend(chip).compile(segment, Plan((GroupPlan((tile,)),))).report["constant_bytes"])

    weights = segment.ops[0].inputs[1].type.size_bytes
    again, stay = (constant_bytes(LayerPlan((0,), 2, 8, LoopOrder.ROWS, resident)) for resident in (False, True))
    assert weights < again == stay < 1.5 * weights


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
@pytest.mark.parametrize("kind", ["odd", "strided", "columns"])
def test_columns_behind_the_last_window_are_passed_over(chip: Chip, kind: str) -> None:
    """Padding would be negative there, which no descriptor holds."""
    (segment,) = segments(placed(network([kind], 11), chip.name))
    assert any(op.name in ("conv", "max_pool") for op in segment.ops)
    CviBackend(chip).compile(segment)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_windows_of_padding_only_stay_on_the_host(chip: Chip) -> None:
    graph = placed(network(["framed", "conv3"], 11), chip.name)
    assert [op.placement is not None and op.placement.segment is not None for op in graph.ops if op.name == "conv"] == [False, True]


# -- the space -------------------------------------------------------------------


def space_of(chip: Chip, kinds: list[str], *size: int) -> CviSpace:
    return CviSpace(chip, segments(placed(network(kinds, *size), chip.name))[0])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(chips, kinds_of_layers, sizes, st.integers(0, 1 << 30))
def test_moves_lead_from_legal_plans_to_legal_plans(chip: Chip, kinds: list[str], size: tuple[int, int, int], seed: int) -> None:
    found = segments(placed(network(kinds, *size), chip.name))
    assume(found)
    space, rng = CviSpace(chip, found[0]), random_module.Random(seed)
    for plan in (space.initial(), *space.candidates(rng)):
        assert space.legal(plan)
        for _ in range(6):
            plan = space.mutate(plan, rng)
            assert space.legal(plan) and space.estimate(plan).cycles > 0
            assert Plan.from_json(plan.to_json()) == plan


def test_all_kinds_of_decisions_are_reached() -> None:
    space, rng, found = space_of(CHIPS["cv180x"], ["conv3", "depthwise", "pointwise", "pool", "skip", "conv3"], 40, 48, 24), random_module.Random(0), set[str]()
    plan = space.initial()
    for _ in range(1500):
        plan = space.mutate(plan, rng)
        for group in plan.groups:
            found |= {"cut"} if len(plan.groups) > 1 else set()
            found |= {"alone"} if group.iterations == 0 else {"iterations"} if group.iterations > 1 else {"at once"}
            for layer in group.layers:
                by_channels = layer.order is LoopOrder.CHANNELS
                found |= {name for name, there in (
                    ("kept", layer.kept), ("over", layer.in_place), ("chunk", layer.channels > 0), ("depth", layer.depth > 0),
                    ("streamed", group.iterations > 1 and not layer.resident), ("sliced", by_channels and group.iterations == 1),
                    ("channels outside", by_channels and group.iterations == 0),
                ) if there}  # fmt: skip
    assert found == {
        "cut", "alone", "iterations", "at once", "kept", "over", "chunk", "depth", "streamed", "sliced", "channels outside",
    }  # fmt: skip


def test_plans_that_are_not_legal() -> None:
    space = space_of(CHIPS["cv181x"], ["conv3", "depthwise", "swish"], 12, 20, 24)
    plan = Plan(tuple(GroupPlan((LayerPlan(layer.ops),), 1) for layer in space.layers))
    first, *rest = plan.groups
    assert space.legal(plan) and not space.legal(Plan(plan.groups[1:])) and not space.legal(Plan((*plan.groups, first)))

    def legal(**change: object) -> bool:
        return space.legal(Plan((replace(first, layers=(replace(first.layers[0], **change), *first.layers[1:])), *rest)))

    assert legal() and not legal(channels=5) and not legal(in_place=True) and not legal(channels=-8)
    assert not space.legal(Plan((replace(first, iterations=1000), *rest))) and not space.legal(Plan((replace(first, cores=2), *rest)))


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_estimates_and_simulations(chip: Chip) -> None:
    """The estimate of the planner's own plan is near; what is simulated is what is built, and above the limit."""
    space = space_of(chip, ["conv3", "depthwise", "pointwise", "swish", "conv3", "pool", "conv3"], 40, 48, 48)
    plan = space.initial()
    cycles = space.simulate(plan)
    assert cycles == space.compile(plan).report["estimated_cycles"] >= space.bound > 0
    assert 0.6 * cycles < space.estimate(plan).cycles < 1.5 * cycles
    again: PlanSpace = pickle.loads(pickle.dumps(space))
    assert again.simulate(plan) == cycles and again.initial() == plan and again.machine_digest == space.machine_digest


def test_measurements_belong_to_a_chip() -> None:
    one, other = (space_of(chip, ["conv3"], 8) for chip in CHIPS.values())
    assert one.machine_digest != other.machine_digest and not one.compressed


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_search_finds_no_worse_a_plan_and_is_replayed(target: Target, tmp_path: Path) -> None:
    graph, log, problems = network(["conv3", "depthwise", "pointwise", "pool", "skip", "conv3"], 40, 48, 24), tmp_path / "log.jsonl", list[Diagnostic]()
    save_gir(graph, tmp_path / "m.gir")
    name = target.name
    options = {"calibration": feeds_of(graph), "tuning_log": log, "self_check": False}
    tuned = compile(tmp_path / "m.gir", name, tune=40, jobs=1, **options)
    tune = tuned.report["tune"]
    assert tune["measured"] == len(log.read_text().splitlines()) == 40 and tune["best_cycles"] < tune["default_cycles"]
    replayed = compile(tmp_path / "m.gir", name, warn=problems.append, **options)
    assert replayed.data == tuned.data and not problems
