# SPDX-License-Identifier: Apache-2.0
"""The verifier: what a stage may contain, and that every op agrees with its declaration."""

from __future__ import annotations

from collections.abc import Iterator

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

from .graph import Graph, Op, Stage
from .opdef import OpError, op_def
from .types import DType

#: Ops that exist only once numbers are integers.
_INTEGER_OPS = frozenset({"requantize", "lut"})


def verify(graph: Graph) -> None:
    """Raise one `GadlError` with every violation (`GADL-I001`)."""
    GadlError.raise_if(violations(graph))


def violations(graph: Graph) -> Iterator[Diagnostic]:
    """Everything that is wrong with `graph`."""
    defined = {id(v) for v in graph.inputs}
    names: set[str] = set()
    for value in graph.values():
        if value.name in names:
            yield _wrong(graph, f"two values are called '{value.name}'")
        names.add(value.name)
    for op in graph.ops:
        for operand in op.inputs:
            if not operand.is_constant and id(operand) not in defined:
                yield _wrong(op.loc, f"'{op.name}' reads '{operand.name}' before it is made")
            if op not in operand.users:
                yield _wrong(op.loc, f"the use list of '{operand.name}' lacks '{op.name}'")
        defined.update(id(r) for r in op.results)
        yield from _op_violations(op)
        yield from _stage_violations(op, graph.stage)
    for value in graph.outputs:
        if not value.is_constant and id(value) not in defined:
            yield _wrong(graph, f"output '{value.name}' is never made")
    if len(graph.output_names) != len(graph.outputs):
        yield _wrong(graph, "outputs and their names differ in number")


def _wrong(where: object, detail: str) -> Diagnostic:
    return diagnostic("GADL-I001", where.name if isinstance(where, Graph) else where, detail=detail)


def _op_violations(op: Op) -> Iterator[Diagnostic]:
    """Attributes, operands and result types against the declaration."""
    try:
        definition = op_def(op.name)
        definition.check_operands(op.operands)
        if definition.complete(op.attrs) != op.attrs and set(definition.complete(op.attrs)) != set(op.attrs):
            yield _wrong(op.loc, f"'{op.name}' lacks attributes")
        types = definition.infer([None if v is None else v.type for v in op.operands], op.attrs)
    except OpError as error:
        yield _wrong(op.loc, str(error))
        return
    if len(types) != len(op.results):
        yield _wrong(op.loc, f"'{op.name}' has {len(op.results)} results, not {len(types)}")
        return
    for inferred, value in zip(types, op.results):
        if inferred.shape != value.type.shape:
            yield _wrong(op.loc, f"'{op.name}' makes shape {inferred.shape}, '{value.name}' says {value.type.shape}")
        if inferred.dtype is not value.type.dtype and not (inferred.dtype.is_integer and value.type.dtype.is_integer):
            yield _wrong(op.loc, f"'{op.name}' makes {inferred.dtype.value}, '{value.name}' says {value.type.dtype.value}")


def _stage_violations(op: Op, stage: Stage) -> Iterator[Diagnostic]:
    """What the stage forbids."""
    if stage is Stage.FLOAT:
        if op.name in _INTEGER_OPS or "requant" in op.attrs:
            yield _wrong(op.loc, f"integer '{op.name}' in a float graph")
        return
    quantised = [v for v in op.inputs if v.quant is not None and v.dtype in (DType.I8, DType.I16)]
    if op.name in ("conv", "conv_transpose", "linear", "matmul", "avg_pool") and quantised and "requant" not in op.attrs:
        yield _wrong(op.loc, f"'{op.name}' on integers without 'requant'")
    if stage in (Stage.PLACED, Stage.PLANNED) and op.placement is None:
        yield _wrong(op.loc, f"'{op.name}' has no placement")
