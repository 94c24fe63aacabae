# SPDX-License-Identifier: Apache-2.0
"""The event engine: overlap, contention, barriers, multicast, and the race detector against a brute-force reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble, disassemble
from gadl.targets.npu.container import Container
from gadl.targets.npu.instruction import Instruction, encode
from gadl.targets.npu.machine import Machine, load_machine

from .programs import container, simulate

LARGE = load_machine("large")


def timed(text: str, regions: dict[int, int], machine: Machine | None = None, **options: bool) -> dict[str, Any]:
    """Timing alone."""
    code = container(text, regions) if machine is None else container(text, regions, machine)
    return _sim.simulate(code, {}, functional=False, **options)


def multi(texts: list[str], regions: dict[int, np.ndarray], machine: Machine = LARGE, **options: bool) -> dict[str, Any]:
    """One program a core."""
    codes = [encode(assemble(text)) for text in texts]
    data = Container(machine, codes, b"", {k: v.nbytes for k, v in regions.items()}, [], []).to_bytes()
    return _sim.simulate(data, regions, **options)


PRODUCT = "MMA_CONV@MMA x_row_stride=1024 x_pix_stride=64 ih=8 iw=16 ic=64 kh=1 kw=1 stride_h=1 stride_w=1 dil_h=1 dil_w=1 oh=8 ow=16 oc=32 w_addr=262144 acc_addr={acc}"
DRAIN = "EPI@MMA oh=8 ow=16 oc=32 acc_addr={acc} out_addr=131072 out_row_stride=512 out_pix_stride=32"


def test_drains_overlap_products_of_other_accumulators() -> None:
    """Two tiles in turn: the array never waits for a drain; with one tile it always does."""

    def cycles(tiles: int, count: int) -> float:
        lines = [line.format(acc=(i % tiles) * 16384) for i in range(count) for line in (PRODUCT, DRAIN)]
        return float(timed("\n".join([*lines, "END@CTL"]), {})["cycles"])

    product, drain, fill = 32 * 2 * 4, 128 * 32 // 64, 12
    assert cycles(2, 20) - cycles(2, 10) == pytest.approx(10 * product)
    assert cycles(1, 20) - cycles(1, 10) == pytest.approx(10 * (product + drain + fill))


def test_the_first_result_appears_after_the_fill() -> None:
    report = timed("\n".join([PRODUCT.format(acc=0), "END@CTL"]), {}, trace=True)
    ((*_, end),) = report["trace"]
    assert report["cycles"] == pytest.approx(end + 12)


def vlut(where: int, table: int, out: int) -> str:
    return f"VLUT@VEC a_addr={where} table_addr={table} out_addr={out} count=65536"


def test_engines_in_one_bank_group_slow_each_other_down() -> None:
    """Two engines whose data share a group take longer than in separate groups, and never longer than one after the other."""
    group = 512 * 1024 // 4
    load = "LD@LD0 src_region=1 dst={to} row_bytes=65536"

    def cycles(to: int) -> float:
        return float(timed(f"{vlut(0, 2 * group, 3 * group)}\n{load.format(to=to)}\nEND@CTL", {1: 65536}, races=False)["cycles"])

    apart, together = cycles(2 * group), cycles(64 * 1024)
    assert together > apart
    alone = [timed(f"{text}\nEND@CTL", {1: 65536}, races=False)["cycles"] for text in (vlut(0, 2 * group, 3 * group), load.format(to=0))]
    assert together < sum(alone)


def test_channels_share_the_memory() -> None:
    """Two loads at once take as long as one of both sizes, apart from the latency."""
    one = timed("LD@LD0 src_region=1 dst=0 row_bytes=131072\nEND@CTL", {1: 131072})["cycles"]
    half = "LD@LD{q} src_region=1 src={at} dst={at} row_bytes=65536"
    two = timed(f"{half.format(q=0, at=0)}\n{half.format(q=1, at=65536)}\nEND@CTL", {1: 131072})["cycles"]
    pages = 32 * 20  # misses of the two transfers overlap
    assert abs(two - (one - pages)) < 40


def test_fetching_limits_short_instructions() -> None:
    text = "\n".join(["POST@LD0 post(0,1)"] * 100 + ["END@CTL"])
    assert timed(text, {})["cycles"] == pytest.approx(100 * 16 / 8)


def test_rows_that_interleave_do_not_race() -> None:
    """Even and odd rows: hulls overlap, bytes do not."""
    rows = "LD@LD{q} src_region=1 dst={to} row_bytes=16 n1=8 src_s1=16 dst_s1={stride}"
    text = f"{rows.format(q=0, to=0, stride=32)}\n{rows.format(q=1, to=16, stride=32)}\nEND@CTL"
    timed(text, {1: 256})
    with pytest.raises(_sim.SimError, match="race: LD on LD1"):
        timed(text.replace("dst=16", "dst=15"), {1: 256})


# Two buffers each way: every wait of this program is needed.
PIPELINE = """
POST@VEC post(2,2)
POST@ST post(3,2)
{rounds}
END@CTL
"""
ROUND = """
LD@LD0 src_region=1 src={src} dst={x} row_bytes=256 wait(2,1) post(0,1) #{i}
VUN@VEC function=NEG a_addr={x} out_addr={y} count=256 lo=-128 hi=127 wait(0,1) wait(3,1) post(1,1) post(2,1) #{i}
ST@ST src={y} dst_region=2 dst={src} row_bytes=256 wait(1,1) post(3,1) #{i}
"""


def pipeline(rounds: int) -> str:
    """Load, negate, store, double buffered."""
    text = (ROUND.format(i=i, src=256 * i, x=256 * (i % 2), y=4096 + 256 * (i % 2)) for i in range(rounds))
    return PIPELINE.format(rounds="".join(text))


def drop(item: Instruction, wait: int) -> Instruction:
    """Without one wait."""
    kept = tuple(w for k, w in enumerate(item.waits) if k != wait)
    return Instruction(item.name, item.queue, item.fields, kept, item.posts, item.debug)


def mutants() -> Iterator[tuple[int, int]]:
    for line, item in enumerate(assemble(pipeline(6))):
        for wait in range(len(item.waits)):
            yield line, wait


@pytest.mark.parametrize(("line", "wait"), list(mutants()))
def test_a_dropped_wait_of_a_pipeline_is_a_race(line: int, wait: int) -> None:
    """Also waits that a free buffer makes idle: the rounds behind them then run early."""
    program = assemble(pipeline(6))
    program[line] = drop(program[line], wait)
    with pytest.raises(_sim.SimError, match="race: "):
        timed(disassemble(program), {1: 2048, 2: 2048})


def test_a_pipeline_runs_and_is_faster_than_its_parts() -> None:
    regions = {1: np.arange(2048, dtype=np.uint8), 2: np.zeros(2048, np.uint8)}
    report = simulate(pipeline(6), regions)
    want = np.minimum(-regions[1].view(np.int8).astype(int), 127)
    np.testing.assert_array_equal(regions[2][:1536].view(np.int8), want[:1536])
    assert report["cycles"] < sum(report["busy"])
    assert report["dram_read_bytes"] == report["dram_write_bytes"] == 1536
    assert report["bound_cycles"] <= report["cycles"]


def test_barriers_order_cores() -> None:
    """Core 0 stores, core 1 loads what it stored: right with a barrier, a race without."""
    barrier = "BAR@CTL cores=3\n"
    first = "LD@LD0 src_region=1 dst=0 row_bytes=64 post(0,1)\nST@ST src=0 dst_region=3 row_bytes=64 wait(0,1)\n{b}END@CTL"
    second = "{b}LD@LD0 src_region=3 dst=0 row_bytes=64 post(0,1)\nST@ST src=0 dst_region=2 row_bytes=64 wait(0,1)\nEND@CTL"
    regions = {1: np.arange(64, dtype=np.uint8), 2: np.zeros(64, np.uint8), 3: np.zeros(64, np.uint8)}
    multi([first.format(b=barrier), second.format(b=barrier)], regions)
    np.testing.assert_array_equal(regions[2], regions[1])
    with pytest.raises(_sim.SimError, match="race: core . .* without waiting for core ."):
        multi([first.format(b=""), second.format(b="")], regions)
    with pytest.raises(_sim.SimError, match="deadlock: core 0 BAR on CTL .* waits for the other cores"):
        multi([first.format(b=barrier), second.format(b="")], regions, races=False)


def test_multicast_feeds_several_cores_with_one_read() -> None:
    sender = "LD@LD0 src_region=1 dst=0 row_bytes=64 multicast=3 post(0,1)\nWAIT@CTL wait(0,1)\nEND@CTL"
    receiver = "ST@ST src=0 dst_region=2 row_bytes=64 wait(0,1)\nEND@CTL"
    regions = {1: np.arange(64, dtype=np.uint8), 2: np.zeros(64, np.uint8)}
    report = multi([sender, receiver], regions)
    np.testing.assert_array_equal(regions[2], regions[1])
    assert report["dram_read_bytes"] == 64
    with pytest.raises(_sim.SimError, match="race"):
        multi([sender, receiver.replace(" wait(0,1)", "")], regions)
    with pytest.raises(_sim.SimError, match="no multicast"):
        simulate(sender, regions)


def test_a_host_call_holds_back_what_follows_it() -> None:
    text = "CALLC@CTL id=1 bytes_in=640 bytes_out=0\nLD@LD0 src_region=1 dst=0 row_bytes=64\nEND@CTL"
    report = timed(text, {1: 64}, trace=True)
    (call, load) = report["trace"]
    assert load["start"] >= call["end"]
    assert report["dram_read_bytes"] == 640 + 64


# --- the race detector against brute force ---

QUEUES = ("LD0", "LD1", "ST", "VEC")


@dataclass(frozen=True)
class Act:
    """One instruction: a strided access and semaphores. Loads write SRAM, stores and VEC read it; VEC also writes."""

    queue: str
    begin: int
    row: int
    count: int
    stride: int
    out: int
    waits: tuple[int, ...] = ()
    posts: tuple[int, ...] = ()

    def touched(self) -> list[tuple[bool, frozenset[int]]]:
        """(write, bytes) of each SRAM access."""
        rows = frozenset(self.begin + i * self.stride + j for i in range(self.count) for j in range(self.row))
        if self.queue == "VEC":
            return [(False, frozenset(range(self.begin, self.begin + self.row))), (True, frozenset(range(self.out, self.out + self.row)))]
        return [(self.queue != "ST", rows)]

    def text(self) -> str:
        tail = "".join(f" wait({s},1)" for s in self.waits) + "".join(f" post({s},1)" for s in self.posts)
        if self.queue == "VEC":
            return f"VUN@VEC function=NEG a_addr={self.begin} out_addr={self.out} count={self.row}{tail}"
        if self.queue == "ST":
            return f"ST@ST src={self.begin} dst_region=2 row_bytes={self.row} n1={self.count} src_s1={self.stride} dst_s1={self.row}{tail}"
        return f"LD@{self.queue} src_region=1 dst={self.begin} row_bytes={self.row} n1={self.count} dst_s1={self.stride} src_s1={self.row}{tail}"


@dataclass
class Script:
    """A program whose k-th wait on a semaphore is served by its k-th post: one poster, one waiter."""

    acts: list[Act] = field(default_factory=list)

    def races(self) -> bool:
        """Brute force: reachability over program order and semaphores, byte sets."""
        n = len(self.acts)
        before = [[False] * n for _ in range(n)]
        posts: dict[int, list[int]] = {}
        taken: dict[int, int] = {}
        last: dict[str, int] = {}
        for i, act in enumerate(self.acts):
            sources = [last[act.queue]] if act.queue in last else []
            for semaphore in act.waits:
                at = taken.get(semaphore, 0)
                sources.append(posts[semaphore][at])
                taken[semaphore] = at + 1
            for source in sources:
                before[i][source] = True
                for k in range(n):
                    before[i][k] |= before[source][k]
            for semaphore in act.posts:
                posts.setdefault(semaphore, []).append(i)
            last[act.queue] = i
        for i, j in itertools.combinations(range(n), 2):
            if before[j][i] or self.acts[i].queue == self.acts[j].queue:
                continue
            for (w1, b1), (w2, b2) in itertools.product(self.acts[i].touched(), self.acts[j].touched()):
                if (w1 or w2) and b1 & b2:
                    return True
        return False


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Random programs; semaphore 4*a+b goes from queue a to queue b, waits name posts that come earlier."""
    script = Script()
    open_posts: dict[int, int] = {}
    for _ in range(draw(st.integers(2, 14))):
        me = draw(st.integers(0, 3))
        row, count = draw(st.integers(1, 40)), draw(st.integers(1, 4))
        stride = draw(st.integers(row, row + 48))
        waits = tuple(s for s in range(16) if s % 4 == me and open_posts.get(s, 0) > 0 and draw(st.integers(0, 3)) > 0)[:3]
        targets = [t for t in range(4) if t != me]
        posts = tuple(4 * me + t for t in draw(st.lists(st.sampled_from(targets), max_size=2, unique=True)))
        for s in waits:
            open_posts[s] -= 1
        for s in posts:
            open_posts[s] = open_posts.get(s, 0) + 1
        begin, out = draw(st.integers(0, 640)), draw(st.integers(0, 640))
        script.acts.append(Act(QUEUES[me], begin, row, count, stride, out, waits, posts))
    return script


@settings(max_examples=120, deadline=None, derandomize=True)
@given(scripts())
def test_races_are_exactly_those_of_brute_force(script: Script) -> None:
    # Stores of one queue never race with each other in DRAM.
    text = "\n".join([*(act.text() for act in script.acts), "END@CTL"])
    try:
        timed(text, {1: 4096, 2: 4096})
        found = False
    except _sim.SimError as error:
        assert str(error).startswith("race: ")
        found = True
    assert found == script.races()


def test_random_scripts_hold_both_kinds() -> None:
    """The comparison above means something: races and clean programs are both common."""
    kinds: list[bool] = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(scripts())
    def collect(script: Script) -> None:
        kinds.append(script.races())

    collect()
    assert 0.05 < np.mean(kinds) < 0.95
