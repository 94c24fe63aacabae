# SPDX-License-Identifier: Apache-2.0
"""The search over a space that has no target behind it, the measurement interface, and what travels to workers."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.opdef import Builder
from gadl.compiler.ir.types import DType, TensorType
from gadl.compiler.tune.budget import Budget
from gadl.compiler.tune.identity import segment_digest
from gadl.compiler.tune.measure import Measurement, Measurer, SimulatorMeasurer
from gadl.compiler.tune.residual import Residual
from gadl.compiler.tune.search import Search
from gadl.passes.plan.plan import GroupPlan, LayerPlan, Plan
from gadl.targets.base import DeviceProgram, Estimate, Segment, segments_of
from gadl.targets.npu.machine import load_machine
from gadl.targets.npu.space import NpuSpace

from .conftest import Compile

MOST = 64


class Hills:
    """Groups of one layer whose iterations each have one best number; the estimate is off by a factor that a feature tells."""

    machine_digest, bound = "0", 100.0
    compressed: Sequence[int] = ()

    def __init__(self, best: Sequence[int] = (5, 40, 17)) -> None:
        self.best = best

    def initial(self) -> Plan:
        return Plan(tuple(GroupPlan((LayerPlan((i,)),), 1) for i in range(len(self.best))))

    def candidates(self, rng: random.Random) -> Iterator[Plan]:
        yield self.initial()

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        groups, at = list(plan.groups), rng.randrange(len(plan.groups))
        wanted = groups[at].iterations + rng.choice((-9, -3, -1, 1, 3, 9))
        groups[at] = replace(groups[at], iterations=min(max(1, wanted), MOST))
        return replace(plan, groups=tuple(groups))

    def legal(self, plan: Plan) -> bool:
        return len(plan.groups) == len(self.best) and all(1 <= g.iterations <= MOST for g in plan.groups)

    def estimate(self, plan: Plan) -> Estimate:
        return Estimate(100.0 + sum(g.iterations for g in plan.groups), tuple(float(g.iterations) for g in plan.groups))

    def simulate(self, plan: Plan) -> float:
        return 100.0 + sum(abs(g.iterations - want) for g, want in zip(plan.groups, self.best))

    def compile(self, plan: Plan) -> DeviceProgram:
        return DeviceProgram(b"", plan.to_json(), {})


class Counting:
    """A measurer as somebody would write it for a device: answers, failures, nothing else."""

    def __init__(self, space: Hills, broken: int = 0) -> None:
        self.space, self.broken, self.plans = space, broken, list[Plan]()

    def measure(self, plans: Sequence[Plan]) -> list[Measurement]:
        self.plans += plans
        return [self.one(plan) for plan in plans]

    def one(self, plan: Plan) -> Measurement:
        if self.broken and plan.groups[0].iterations > self.broken:
            return Measurement(None, "the device gave no answer")
        return Measurement(self.space.simulate(plan))


def run(measurer: Measurer, count: int, seed: int = 0) -> Search:
    search = Search(Hills(), measurer, seed, {})
    search.run(Budget(count=count), lambda made: None, lambda now: None)
    return search


def test_measurements_win_over_estimates() -> None:
    """The estimate's best plan is the worst measured one; evolution finds the other end."""
    measurer = Counting(Hills())
    found = run(measurer, 300)
    cycles = [t.cycles for t in found.trials if t.cycles is not None]
    assert cycles[0] == 159 and min(cycles) <= 103
    assert len(measurer.plans) == 300 == len({p.digest for p in measurer.plans})


def test_failed_plans_have_no_children_and_the_search_goes_on() -> None:
    found = run(Counting(Hills(), broken=8), 200)
    assert any(t.cycles is None and t.problem for t in found.trials) and len(found.trials) == 200
    assert min(t.cycles for t in found.trials if t.cycles is not None) <= 105


def test_the_same_seed_the_same_trials() -> None:
    plans = [[t.plan for t in run(Counting(Hills()), 60, seed).trials] for seed in (3, 3, 4)]
    assert plans[0] == plans[1] != plans[2]


def test_a_small_space_ends() -> None:
    search = Search(Hills(()), Counting(Hills(())), 0, {})
    search.space.mutate = lambda plan, rng: plan  # type: ignore[method-assign]
    assert len(search.run(Budget(count=50), lambda made: None, lambda now: None)) == 1


def test_the_residual_learns_a_factor_and_who_fails() -> None:
    rng = random.Random(0)
    features = [(rng.random(), rng.random()) for _ in range(60)]
    model = Residual()
    assert model.ratio((0.5, 0.5)) == 0.0 == model.failure((0.5, 0.5))
    model.fit(features, [None if b > 0.8 else 0.3 * a for a, b in features])
    assert model.ratio((0.9, 0.1)) == pytest.approx(0.27, abs=0.03) and model.ratio((0.1, 0.1)) == pytest.approx(0.03, abs=0.03)
    assert model.failure((0.5, 0.95)) > 0.4 > 0.2 > model.failure((0.5, 0.2))
    assert math.isfinite(model.ratio((1e9, -1e9)))


def test_budgets() -> None:
    assert Budget.parse("60s") == Budget(seconds=60) and Budget.parse("1.5m") == Budget(seconds=90) and Budget.parse(200) == Budget(count=200)
    assert Budget(count=3).share(0.1) == Budget(count=1) and Budget(seconds=60).share(0.5) == Budget(seconds=30)


def segment_of(build: Compile) -> Segment:
    made = build()
    (segment,) = segments_of(made.graph.ops, made.graph.outputs)
    return segment


def test_a_space_travels(build: Compile) -> None:
    """The copy in another process costs and simulates every plan as the original does, and is the same segment."""
    segment = segment_of(build)
    space = NpuSpace(load_machine("edge"), segment)
    copy = pickle.loads(pickle.dumps(space))
    assert segment_digest(copy.segment) == segment_digest(segment)
    rng, plan = random.Random(0), space.initial()
    assert copy.initial() == plan
    for _ in range(8):
        plan = space.mutate(plan, rng)
        assert copy.estimate(plan) == space.estimate(plan) and copy.compile(plan) == space.compile(plan)


def test_a_long_chain_travels() -> None:
    graph = Graph("chain")
    b, x = Builder(graph), graph.add_input("x", TensorType(DType.F32, (4,)))
    for _ in range(3000):
        x = b("relu", x)
    copy = pickle.loads(pickle.dumps(Segment(0, tuple(graph.ops), tuple(graph.inputs), (x,))))
    assert len(copy.ops) == 3000 and copy.ops[1].inputs[0].producer is copy.ops[0] and copy.ops[0].result.users == [copy.ops[1]]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_answer_as_this_process_does(build: Compile, method: str) -> None:
    space = NpuSpace(load_machine("edge"), segment_of(build))
    rng, plans = random.Random(0), [space.initial()]
    for _ in range(5):
        plans.append(space.mutate(plans[-1], rng))
    broken = replace(plans[0], groups=plans[0].groups[:-1] * 2)
    with SimulatorMeasurer(space, 1) as here, SimulatorMeasurer(space, 2, method) as there:
        assert here.measure(plans) == there.measure(plans)
        assert there.measure([broken])[0].cycles is None or not space.legal(broken)
