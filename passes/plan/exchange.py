# SPDX-License-Identifier: Apache-2.0
"""Which values cores exchange, where they divide rows (`division.py`), and which rows they compute twice instead.

Dynamic programming over labels, from the last layer to the first. A label is the rows that later layers want of the values
before them, on each core, and what these layers cost: rows that are exchanged, and the longest computation of any core. Rows
that are computed twice want more of the operands in turn; so it is known only at the next exchange what they came to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from .division import Rows, Shares, lacks, without

#: Labels that are followed at each layer.
BEAM = 20

#: Rows wanted of values that are not made yet, on each core.
Wanted = tuple[tuple[int, Rows], ...]


@dataclass(frozen=True)
class Prices:
    """Cycles of `moved` rows of a value between memory and chip, of `made` rows of one, and of one exchange beside its rows."""

    moved: Callable[[int, int], float]
    made: Callable[[int, int], float]
    exchange: float = 0.0


@dataclass(frozen=True)
class Choice:
    """How many cores own the rows of a value (0: all), and whether these are exchanged."""

    owners: int
    exchanged: bool


@dataclass(frozen=True)
class _Label:
    """The cost so far, and what was chosen so far, the last first."""

    cost: float
    chosen: _Chain | None


_Chain = tuple[int, Choice, "_Chain | None"]


def choose_exchanges(shares: Shares, prices: Prices, counts: Sequence[int], fixed: Set[int]) -> dict[int, Choice]:
    """Which values to exchange where some core needs rows that it does not own, and how many cores own them, one of `counts`.

    The owners of `fixed` values are those of `shares`.
    """
    labels: dict[Wanted, _Label] = {(): _Label(0.0, None)}
    for layer in reversed(shares.layers):
        value, found = layer.result, dict[Wanted, _Label]()
        usual = shares.owners.get(value, 0)
        ways = [(count, shares.owned(value, count)) for count in ((usual,) if value in fixed else counts)]
        for wanted, label in labels.items():
            others = dict(wanted)
            need = others.pop(value, shares.none)
            options = {shares.made(value, need, own, False): Choice(count, False) for count, own in reversed(ways)}
            options |= {own: Choice(count, True) for count, own in ways if value not in shares.spread and lacks(need, own)}
            for made, choice in options.items():
                cost = label.cost + prices.made(value, max(high - low for low, high in made))
                if moved := _moved(need, made, value in shares.stored):
                    cost += prices.moved(value, moved) + prices.exchange
                key = tuple(sorted(shares.wanted(layer, made, others).items()))
                if key not in found or cost < found[key].cost:
                    found[key] = _Label(cost, (value, choice, label.chosen))
        labels = dict(sorted(found.items(), key=lambda item: item[1].cost)[:BEAM])

    def loaded(wanted: Wanted) -> float:
        """What comes from memory as it is."""
        return sum(prices.moved(value, sum(high - low for low, high in need)) for value, need in wanted)

    chain = min(labels.items(), key=lambda item: item[1].cost + loaded(item[0]))[1].chosen
    chosen: dict[int, Choice] = {}
    while chain is not None:
        value, chosen[value], chain = chain
    return chosen


def _moved(need: Rows, made: Rows, stored: bool) -> int:
    """Rows that are loaded, and those that are stored for that, where they are not stored anyway."""
    loads = sorted(rows for n, m in zip(need, made) for rows in without(n, m))
    count = sum(high - low for low, high in loads)
    end = 0
    for low, high in () if stored else loads:
        count += max(0, high - max(low, end))
        end = max(end, high)
    return count
