# SPDX-License-Identifier: Apache-2.0
"""What a target is: a name, constraints, quantisation rules and a backend for its device segments."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gadl.compiler.artifact.format import Feature
from gadl.compiler.diag.catalog import Text
from gadl.compiler.ir.graph import Op, Value
from gadl.passes.plan.plan import Plan
from gadl.passes.plan.recompute import Streaming
from gadl.passes.quant.specs import QuantRules

from .profile import ProgramProfile


@dataclass(frozen=True)
class Constraint:
    """A condition under which an op runs on the device.

    `check` returns True when the op fits. `reason` is what people read when it does not, and the row of the
    supported-ops page.
    """

    ops: tuple[str, ...]
    check: Callable[[Op, Any], bool]
    reason: Text

    @property
    def name(self) -> str:
        """The function's name."""
        return self.check.__name__


class ConstraintTable:
    """Constraints in the order of their declaration; the decorated function's docstring is the reason.

    The docstring's first line is English, its second Chinese.
    """

    def __init__(self) -> None:
        self.rows: list[Constraint] = []

    def __call__(self, *ops: str) -> Callable[[Callable[[Op, Any], bool]], Callable[[Op, Any], bool]]:
        """Declare a constraint of some ops (of all, when none is named)."""

        def declare(check: Callable[[Op, Any], bool]) -> Callable[[Op, Any], bool]:
            lines = [line.strip() for line in (check.__doc__ or "").strip().splitlines() if line.strip()]
            if len(lines) != 2:
                raise ValueError(f"{check.__name__} needs a docstring of two lines: English, Chinese")
            self.rows.append(Constraint(ops, check, Text(*lines)))
            return check

        return declare

    def violated(self, op: Op, machine: Any) -> Constraint | None:
        """The first constraint that `op` does not meet."""
        for row in self.rows:
            if (not row.ops or op.name in row.ops) and not row.check(op, machine):
                return row
        return None


@dataclass(frozen=True)
class Segment:
    """Consecutive ops that run on the device as one program.

    `inputs` are produced outside, `outputs` are read outside; constants are neither.
    """

    index: int
    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def __reduce__(self) -> tuple[Callable[..., Segment], tuple[Any, ...]]:
        """Flat, so that a long chain of ops is no deep recursion; of ops outside only what readers look at is kept."""
        members = list(dict.fromkeys(self.ops))
        around: dict[int, Op] = {}
        values: dict[int, Value] = {}
        for op in members:
            for value in (*op.inputs, *op.results):
                values.setdefault(id(value), value)
        for value in (*values.values(), *self.inputs, *self.outputs):
            values.setdefault(id(value), value)
            for op in (*value.users, *(() if value.producer is None else (value.producer,))):
                around.setdefault(id(op), op)
        inside = {id(op) for op in members}
        ops = [*members, *(op for key, op in around.items() if key not in inside)]
        at = {key: index for index, key in enumerate(values)}

        def numbers(found: Sequence[Value | None]) -> tuple[int | None, ...]:
            return tuple(None if v is None else at.get(id(v)) for v in found)

        flat = [(op.name, numbers(op.operands), numbers(op.results), op.attrs, op.loc, op.placement) for op in ops]
        tensors = [(v.name, v.type, v.data) for v in values.values()]
        return _unflatten, (self.index, len(members), flat, tensors, numbers(self.inputs), numbers(self.outputs))


def _unflatten(
    index: int, members: int, flat: list[Any], tensors: list[Any], inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> Segment:
    """The segment of `Segment.__reduce__`."""
    values = [Value(name, type, None, data) for name, type, data in tensors]
    ops: list[Op] = []
    for name, operands, results, attrs, loc, placement in flat:
        op = Op(name, [None if n is None else values[n] for n in operands], attrs, loc)
        op.placement = placement
        op.results = [values[n] for n in results if n is not None]
        for value in op.results:
            value.producer = op
        ops.append(op)
    return Segment(index, tuple(ops[:members]), tuple(values[n] for n in inputs), tuple(values[n] for n in outputs))


#: What a program's report may hold: sums over all programs, but the largest `sram_peak_bytes`. `lb0_cycles` is a limit that no
#: run can beat, `lbgeo_cycles` the least that this machine's geometry allows, `dram_bound_bytes` the least traffic.
#: A target whose driver counts nothing gives `estimated_cycles` and `estimated_dram_bytes` besides. `weights_raw_bytes` are the constants that a program loads, `weights_compressed_bytes` what they take as they are stored.
REPORTED = (
    "macs", "lb0_cycles", "lbgeo_cycles", "dram_bound_bytes", "steps", "sram_peak_bytes", "weights_raw_bytes", "weights_compressed_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class DeviceProgram:
    """A compiled segment: the driver's opaque bytes and what is known about it.

    `plan` is the text form of the decisions. `report`: numbers by name; those of `REPORTED` reach the compilation's report.
    `debug` maps debug ids to (op description, source).
    """

    code: bytes
    plan: str
    report: Mapping[str, Any]
    debug: tuple[tuple[str, str], ...] = ()


class Machine(Protocol):
    """What the compiler reads of a machine description; everything else is the target's own."""

    @property
    def name(self) -> str:
        """For people and reports."""

    @property
    def clock_mhz(self) -> float:
        """Turns the driver's cycles into time."""

    @property
    def macs_per_cycle(self) -> float:
        """Of all cores, in the fastest type; utilisation is measured against it."""


class Backend(Protocol):
    """Plans and emits device segments for one machine."""

    def compile(self, segment: Segment, *, groups: bool = True) -> DeviceProgram:
        """Plan, expand, allocate, synchronise and encode one segment; without `groups` layer by layer, as a comparison."""


@dataclass(frozen=True)
class Estimate:
    """Analytic cycles of a plan (infinite where it cannot fit), and numbers that a learned correction may look at."""

    cycles: float
    features: tuple[float, ...]


class PlanSpace(Protocol):
    """The plans of one segment on one machine, as `gadl.compiler.tune` sees them.

    Everything is deterministic: the same plan and the same state of `rng` give the same answer in every process. A space
    can be pickled.
    """

    @property
    def machine_digest(self) -> str:
        """Identifies all that measurements depend on in the machine's description."""

    @property
    def compressed(self) -> Sequence[int]:
        """Bytes of the constants that the machine keeps compressed, in the segment's order: measurements depend on them."""

    @property
    def bound(self) -> float:
        """Cycles that no plan can beat, for reports."""

    def initial(self) -> Plan:
        """The plan that the backend takes without a tuner."""

    def candidates(self, rng: random.Random) -> Iterator[Plan]:
        """Other starting points, a few dozen at most; not all need to fit."""

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """A legal plan one move away from a legal plan."""

    def legal(self, plan: Plan) -> bool:
        """True when the plan is one of this segment. It may still find no place in memory."""

    def estimate(self, plan: Plan) -> Estimate:
        """What the plan costs, without expanding it."""

    def simulate(self, plan: Plan) -> float:
        """Simulated cycles of the expanded plan; `GadlError` when it finds no place in memory."""

    def compile(self, plan: Plan) -> DeviceProgram:
        """The program of a plan; `GadlError` when it finds no place in memory."""


@dataclass(frozen=True)
class Target:
    """One target. `driver` is the runtime driver that its artefacts need; `status` an honest status word.

    A target without `machines` gets None wherever a machine is handed over.
    """

    name: str
    summary: Text
    status: Text
    driver: str
    machines: tuple[str, ...] = ()
    default_machine: str = ""
    load_machine: Callable[[str | Path], Machine | None] = field(default=lambda name: None)
    #: Ops that the device executes; empty for host-only targets.
    device_ops: frozenset[str] = frozenset()
    #: Device ops that read and write channels innermost; all others follow their neighbours, or are row-major.
    channels_last: frozenset[str] = frozenset()
    constraints: ConstraintTable = field(default_factory=ConstraintTable)
    quant_rules: Callable[[Any], QuantRules] | None = None
    backend: Callable[[Any], Backend] | None = None
    #: Memory and speed of a machine where large tensors may be worth computing twice.
    streaming: Callable[[Any], Streaming] | None = None
    #: The plans of a segment on a machine, where plans can be tuned and replayed.
    space: Callable[[Any, Segment], PlanSpace] | None = None
    #: The first one is the default.
    precisions: tuple[str, ...] = ("float",)
    #: What a runtime must have to run the artefacts.
    features: Feature = Feature.NONE
    #: How files are named that hold a program in the target's own container; `rename` gives such a program the names of the model's
    #: inputs and outputs, and of the model.
    native_suffix: str = ""
    rename: Callable[[bytes, Sequence[str], Sequence[str], str], bytes] | None = None
    #: A program as text, for `gadl inspect --asm`.
    disassemble: Callable[[bytes], str] | None = None
    #: A program's layers and memory, and a run of it step by step, for reports; `ValueError` when the program is damaged.
    profile: Callable[[bytes], ProgramProfile] | None = None

    def residuals(self, machine: Any) -> bool:
        """True unless a convolution with a residual operand has no form on the device."""
        return self.quant_rules is None or self.quant_rules(machine).residuals

    def refuse(self, op: Op, machine: Any) -> Text | None:
        """Why `op` stays on the host, or None when the device takes it."""
        if op.name not in self.device_ops:
            return Text(f"'{op.name}' is not in the device's op set", f"设备不支持算子 '{op.name}'")
        row = self.constraints.violated(op, machine)
        return row.reason if row is not None else None


def segments_of(ops: Sequence[Op], outputs: Sequence[Value]) -> list[Segment]:
    """The device segments of a placed graph, in execution order."""
    groups: dict[int, list[Op]] = {}
    for op in ops:
        if op.placement is not None and op.placement.segment is not None:
            groups.setdefault(op.placement.segment, []).append(op)
    returned = {id(v) for v in outputs}
    result = []
    for index in sorted(groups):
        members = {id(op) for op in groups[index]}
        inputs: dict[int, Value] = {}
        out: list[Value] = []
        for op in groups[index]:
            for value in op.inputs:
                if not value.is_constant and (value.producer is None or id(value.producer) not in members):
                    inputs.setdefault(id(value), value)
            for value in op.results:
                if id(value) in returned or any(id(user) not in members for user in value.users):
                    out.append(value)
        result.append(Segment(index, tuple(groups[index]), tuple(inputs.values()), tuple(out)))
    return result
