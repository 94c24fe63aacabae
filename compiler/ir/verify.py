# SPDX-License-Identifier: Apache-2.0
"""The verifier: what a stage may contain, and that every op agrees with its declaration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

from .graph import Graph, Op, Stage
from .opdef import AttrKind, OpError, op_def
from .types import DType, Requant, Rounding, TensorType

#: Ops that exist only once numbers are integers.
INTEGER_OPS = frozenset({"requantize", "lut", "attention"})
#: Element types of quantised activations.
ACTIVATIONS = frozenset({DType.I8, DType.I16})


def verify(graph: Graph) -> None:
    """Raise one `GadlError` with every violation (`GADL-I001`)."""
    GadlError.raise_if(violations(graph))


def violations(graph: Graph) -> Iterator[Diagnostic]:
    """Everything that is wrong with `graph`."""
    yield from _graph_violations(graph)
    defined = {id(v) for v in graph.inputs}
    uses = Counter((id(value), id(user)) for value in graph.values() for user in value.users)
    rules = [rule for rule in RULES if graph.stage in rule.stages]
    for op in graph.ops:
        for operand in dict.fromkeys(op.inputs):
            if not operand.is_constant and id(operand) not in defined:
                yield _wrong(op.loc, f"'{op.name}' reads '{operand.name}' before it is made")
            if uses[id(operand), id(op)] != op.operands.count(operand):
                yield _wrong(op.loc, f"the use list of '{operand.name}' has '{op.name}' {uses[id(operand), id(op)]} times")
        defined.update(id(r) for r in op.results)
        declared = True
        for detail in _op_violations(op):
            declared = False
            yield _wrong(op.loc, detail)
        if declared:
            yield from (_wrong(op.loc, detail) for rule in rules for detail in rule.check(op))
    for value in graph.outputs:
        if not value.is_constant and id(value) not in defined:
            yield _wrong(graph, f"output '{value.name}' is never made")


def _wrong(where: object, detail: str) -> Diagnostic:
    return diagnostic("GADL-I001", where.name if isinstance(where, Graph) else where, detail=detail)


def _graph_violations(graph: Graph) -> Iterator[Diagnostic]:
    """Names, constants and the interface."""
    names: set[str] = set()
    present = {id(op) for op in graph.ops}
    for value in graph.values():
        if any(id(user) not in present for user in value.users):
            yield _wrong(graph, f"'{value.name}' is said to be read by an op outside the graph")
        if value.name in names:
            yield _wrong(graph, f"two values are called '{value.name}'")
        names.add(value.name)
        if value.data is not None and (value.data.dtype != value.dtype.numpy or value.data.shape != value.type.shape):
            yield _wrong(graph, f"constant '{value.name}' holds {value.data.dtype}{list(value.data.shape)}, not {value.type}")
    if len(graph.output_names) != len(graph.outputs):
        yield _wrong(graph, "outputs and their names differ in number")
    if len(set(graph.output_names)) != len(graph.output_names):
        yield _wrong(graph, "two outputs have one name")


def _op_violations(op: Op) -> Iterator[str]:
    """Attributes, operands and result types against the declaration."""
    try:
        definition = op_def(op.name)
        definition.check_operands(op.operands)
        if set(definition.complete(op.attrs)) != set(op.attrs):
            yield f"'{op.name}' lacks attributes"
        types = definition.infer([None if v is None else v.type for v in op.operands], op.attrs)
    except OpError as error:
        yield str(error)
        return
    except ValueError as error:  # A symbolic dimension.
        yield f"'{op.name}': {error}"
        return
    if len(types) != len(op.results):
        yield f"'{op.name}' has {len(op.results)} results, not {len(types)}"
        return
    for inferred, value in zip(types, op.results):
        if value.producer is not op:
            yield f"'{value.name}' names another producer than '{op.name}'"
        if inferred.shape != value.type.shape:
            yield f"'{op.name}' makes shape {inferred.shape}, '{value.name}' says {value.type.shape}"
        if not _same_family(inferred, value.type):
            yield f"'{op.name}' makes {inferred.dtype.value}, '{value.name}' says {value.type.dtype.value}"


def _same_family(inferred: TensorType, actual: TensorType) -> bool:
    """The integer form of an op may choose another integer width for its result."""
    return inferred.dtype is actual.dtype or (inferred.dtype.is_integer and actual.dtype.is_integer)


# -- what stages allow ------------------------------------------------------------


def no_integer_arithmetic(op: Op) -> Iterator[str]:
    """Float graphs hold real arithmetic only (plus `quantize` and `dequantize`, which models may bring along)."""
    if op.name in INTEGER_OPS or "requant" in op.attrs:
        yield f"integer '{op.name}' in a float graph"


def integers_are_rescaled(op: Op) -> Iterator[str]:
    """Arithmetic on quantised operands says how its result is rescaled."""
    declares = any(a.name == "requant" for a in op_def(op.name).attrs)
    if op.name == "resize" and op.attrs["mode"] == "nearest":
        return
    quantised = [v for v in op.inputs if v.quant is not None and v.dtype in ACTIVATIONS]
    if declares and quantised and "requant" not in op.attrs:
        yield f"'{op.name}' on integers without 'requant'"


def requantisation_is_in_range(op: Op) -> Iterator[str]:
    """Multipliers, shifts and their count are those of `docs/numerics.md` section 2."""
    for attr in op_def(op.name).attrs:
        value = op.attrs.get(attr.name)
        if value is None or attr.kind not in (AttrKind.REQUANT, AttrKind.REQUANTS):
            continue
        for requant in value if isinstance(value, tuple) else (value,):
            yield from (f"'{attr.name}' of '{op.name}': {detail}" for detail in requant_violations(requant, _counts(op, attr.name)))


def _counts(op: Op, attr: str) -> tuple[int, ...]:
    """Numbers of multipliers that an attribute may hold."""
    if attr == "requant" and op.name in ("conv", "conv_transpose"):
        return 1, op.result.shape[1]
    if attr == "requant" and op.name == "linear":
        return 1, op.result.shape[-1]
    if op.name == "avg_pool":
        return 1, int(np.prod(op.attrs["kernel"]))
    return (1,)


def requant_violations(requant: Requant, counts: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with a requantisation that may have one of `counts` entries."""
    if len(requant.multiplier) not in counts:
        yield f"{len(requant.multiplier)} multipliers, expected {' or '.join(map(str, dict.fromkeys(counts)))}"
    if requant.rounding is Rounding.F32:
        return
    least = 31 if requant.rounding is Rounding.TFL2 else 1
    if int(requant.multiplier.min()) < 0:
        yield "a multiplier is negative"
    low, high = int(requant.shift.min()), int(requant.shift.max())
    zero = requant.multiplier == 0
    if high > 62 or bool(((requant.shift < least) & ~zero).any()) or low < 1:
        yield f"shifts are {low} to {high}, allowed are {least} to 62"


def every_op_is_placed(op: Op) -> Iterator[str]:
    """After partition every op has a device, or the host with a reason."""
    if op.placement is None:
        yield f"'{op.name}' has no placement"


@dataclass(frozen=True)
class Rule:
    """A check of each op; its docstring says what holds in `stages`."""

    check: Callable[[Op], Iterator[str]]
    stages: frozenset[Stage]


_INTEGER = frozenset({Stage.QUANTIZED, Stage.PLACED, Stage.PLANNED})
RULES = (
    Rule(no_integer_arithmetic, frozenset({Stage.FLOAT})),
    Rule(integers_are_rescaled, _INTEGER),
    Rule(requantisation_is_in_range, _INTEGER),
    Rule(every_op_is_placed, frozenset({Stage.PLACED, Stage.PLANNED})),
)
