# SPDX-License-Identifier: Apache-2.0
"""Whatever the plan, commands that touch the same bytes are ordered by their ids; and no id asks for more than that."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gadl.compiler.diag import GadlError
from gadl.targets.base import Segment
from gadl.targets.cv18xx.backend import CviBackend
from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.space import CviSpace

from .hazards import accesses, awaited, conflicts, hulls_meet, races, reachable, weakened
from .networks import ALL, commands, network, placed, segments

sizes = st.tuples(st.integers(6, 40), st.sampled_from((9, 33, 64)), st.sampled_from((6, 24, 96)))


def only_segment(chip: Chip, kinds: list[str], size: tuple[int, int, int]) -> Segment:
    return segments(placed(network(kinds, *size), chip.name))[0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(list(CHIPS.values())), st.lists(st.sampled_from(ALL), min_size=1, max_size=8), sizes, st.booleans())
def test_programs_have_no_hazards(chip: Chip, kinds: list[str], size: tuple[int, int, int], groups: bool) -> None:
    for segment in segments(placed(network(kinds, *size), chip.name)):
        stream = commands(CviBackend(chip).compile(segment, groups=groups))
        assert not races(chip, stream, accesses(chip, stream))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(CHIPS.values())), st.lists(st.sampled_from(ALL), min_size=2, max_size=8), sizes, st.integers(0, 1 << 30), st.integers(1, 15)
)  # fmt: skip
def test_no_plan_has_hazards(chip: Chip, kinds: list[str], size: tuple[int, int, int], seed: int, moves: int) -> None:
    """Cuts, iterations, chunks, tiles, what is kept, streamed or put over operands, by random moves."""
    made = segments(placed(network(kinds, *size), chip.name))
    assume(made)
    space, rng = CviSpace(chip, made[0]), random.Random(seed)
    plan = rng.choice([space.initial(), *space.candidates(rng)])
    for _ in range(moves):
        plan = space.mutate(plan, rng)
    try:
        stream = commands(space.compile(plan))
    except GadlError as error:
        assert error.diagnostics[0].code == "GADL-P001"
        return
    assert not races(chip, stream, accesses(chip, stream))


#: Networks with all that waits come from: operands from memory, constants in pieces, copies by the transfer engine, what takes another's place.
NETWORKS = {
    "chain": ["conv3", "depthwise", "pointwise", "swish", "stride", "skip"],
    "lanes": ["conv3", "concat", "conv3", "concat", "pool", "sigmoid"],
    "matrix": ["stride", "excite", "scores"],
    "resized": ["up", "bilinear", "spread", "odd", "difference"],
}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("groups", [True, False], ids=["grouped", "layers"])
def test_a_weaker_wait_lets_a_race_in_or_was_implied(chip: Chip, name: str, groups: bool) -> None:
    """Each wait, one less: two commands that touch the same byte are in no order any more, or the closure of all that is left orders them.

    Conflicts and the closure are found by looking at all pairs, which also checks the checker.
    """
    stream = commands(CviBackend(chip).compile(only_segment(chip, NETWORKS[name], (14, 20, 12)), groups=groups))
    touched = accesses(chip, stream)
    pairs, closure = conflicts(touched, stream), reachable(stream)
    assert pairs and all(closure[pair.first, pair.second] for pair in pairs) and not races(chip, stream, touched)
    needed = 0
    for index in range(len(stream)):
        weaker = weakened(stream, index)
        if weaker is None:
            continue
        found, closure = races(chip, weaker, touched), reachable(weaker)
        open_pairs = [pair for pair in pairs if not closure[pair.first, pair.second]]
        assert {pair.second for pair in found} == {pair.second for pair in open_pairs}
        assert all(pair in open_pairs for pair in found)
        # What is implied comes from bytes between those of rows and on other lanes, which the compiler does not tell apart.
        assert found or hulls_meet(chip, touched[awaited(stream, index)], touched[index])
        needed += bool(found)
    assert needed >= 4
