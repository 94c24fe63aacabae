# SPDX-License-Identifier: Apache-2.0
"""Measuring plans. The simulator does it today; a device behind a link is one more class with `measure`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from gadl.compiler.diag import GadlError
from gadl.compiler.diag.render import Language, render
from gadl.passes.plan.plan import Plan
from gadl.targets.base import PlanSpace


@dataclass(frozen=True)
class Measurement:
    """Cycles of one plan, or None and the reason why it did not run."""

    cycles: float | None
    problem: str = ""


class Measurer(Protocol):
    """Measures plans of one segment."""

    def measure(self, plans: Sequence[Plan]) -> list[Measurement]:
        """One measurement per plan, in the same order; a plan that does not run is an answer, not an error."""


def simulate(space: PlanSpace, plan: Plan) -> Measurement:
    """The target's own simulation of one plan."""
    try:
        return Measurement(space.simulate(plan))
    except GadlError as error:
        return Measurement(None, render(error.diagnostics[0], Language.EN).splitlines()[0])
    except (ValueError, ArithmeticError, LookupError) as error:
        # A plan that the expansion cannot express; the default plan was expanded before, so it is the plan's fault.
        return Measurement(None, f"{type(error).__name__}: {error}")


_SPACE: PlanSpace | None = None


def _start(space: PlanSpace) -> None:
    """A worker keeps the space; only plans travel after that."""
    global _SPACE
    _SPACE = space


def _simulate(plan: Plan) -> Measurement:
    if _SPACE is None:
        raise RuntimeError("the worker has no space")
    return simulate(_SPACE, plan)


class SimulatorMeasurer:
    """Simulated cycles, in `jobs` processes (1: in this one). Use it as a context manager."""

    def __init__(self, space: PlanSpace, jobs: int, method: str | None = None) -> None:
        """`method` is how processes start; by default they are forked where that exists: `__main__` then is not run again."""
        self.space, self.pool = space, None
        if jobs > 1:
            known = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context(method or ("fork" if "fork" in known else "spawn"))
            self.pool = ProcessPoolExecutor(jobs, context, _start, (space,))

    def measure(self, plans: Sequence[Plan]) -> list[Measurement]:
        """See `Measurer`."""
        if self.pool is None:
            return [simulate(self.space, plan) for plan in plans]
        return list(self.pool.map(_simulate, plans))

    def __enter__(self) -> SimulatorMeasurer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
