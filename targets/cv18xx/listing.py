# SPDX-License-Identifier: Apache-2.0
"""What a `.cvimodel` holds, ours or the vendor's, as data for JSON and as text."""

from __future__ import annotations

import math
from typing import Any

from gadl.compiler.diag import Diagnostic, GadlError, diagnostic

from .arguments import decode_arguments
from .asm import disassemble
from .chip import CHIPS, Chip
from .cost import MB_PER_S, overlap, serial_us, tdma_bytes, tiu_macs
from .cvimodel import CviModel, DataType, Program, Routine, RoutineKind, Section, SectionKind, Tensor, Weight, decode
from .descriptor import Command, DescriptorError
from .flatbuffer import FlatbufferError
from .isa import Direction, Engine

#: Sums over the command sections, in the order of their display; times are estimates.
TOTALS = (
    "serial_us", "overlap_us", "tiu_us", "tdma_us", "tiu_commands", "tdma_commands", "macs", "load_bytes", "store_bytes", "ddr_bytes",
)  # fmt: skip


def disassemble_model(code: bytes) -> str:
    """The command sections of a `.cvimodel` as text; `GADL-A010` or `GADL-A011` when it is damaged."""
    model = decode(code)
    return "".join(_assembler(entry, model.commands(index)) for index, entry in enumerate(model.model.sections) if _is_code(entry))


def describe(model: CviModel, asm: bool = False) -> tuple[dict[str, Any], list[Diagnostic]]:
    """All of a model as JSON values, with the commands as text on demand, and what cannot be read of it."""
    problems: list[Diagnostic] = []
    sections, totals = [], dict[str, float].fromkeys(TOTALS, 0)
    for index, entry in enumerate(model.model.sections):
        row: dict[str, Any] = {
            "name": entry.name, "kind": _name(SectionKind, entry.kind), "offset": entry.offset, "bytes": entry.size,
            "encrypted": entry.encrypted, "compressed": entry.compressed,
        }  # fmt: skip
        sections.append(row)
        if not _is_code(entry):
            continue
        try:
            commands = model.commands(index)
            row["estimated"] = estimate(commands, CHIPS[model.chip])
        except GadlError as error:
            problems += error.diagnostics
            continue
        except DescriptorError as error:
            problems.append(diagnostic("GADL-A011", section=entry.name, detail=str(error)))
            continue
        for name, value in row["estimated"].items():
            totals[name] += value
        if asm:
            row["asm"] = disassemble(commands).splitlines()
    root = model.model
    found: dict[str, Any] = {
        "chip": model.chip, "name": root.name, "target": root.target, "build_time": root.build_time,
        "version": ".".join(str(part) for part in root.version), "mlir_version": root.mlir_version,
        "md5": "equal" if model.md5_equal else "different",
        "programs": [_program(program) for program in root.programs],
        "weights": [_tensor(weight) for weight in root.weights],
        "sections": sections,
    }  # fmt: skip
    if not problems:
        found["estimated"] = {"mb_per_s": MB_PER_S, **totals}
    return found, problems


def estimate(commands: list[Command], chip: Chip) -> dict[str, float]:
    """`TOTALS` of one stream; `DescriptorError` when it cannot run."""
    both = overlap(commands, chip)
    transfers = [tdma_bytes(c.fields) for c in commands if c.engine == Engine.TDMA]
    compute = [c for c in commands if c.engine == Engine.TIU]
    return {
        "serial_us": serial_us(commands, chip), "overlap_us": both.total_us, "tiu_us": both.tiu_us, "tdma_us": both.tdma_us,
        "tiu_commands": len(compute), "tdma_commands": len(transfers), "macs": sum(tiu_macs(c.fields) for c in compute),
        "load_bytes": sum(t.useful for t in transfers if t.direction in (Direction.LOAD, Direction.DDR)),
        "store_bytes": sum(t.useful for t in transfers if t.direction in (Direction.STORE, Direction.DDR)),
        "ddr_bytes": sum(t.ddr for t in transfers),
    }  # fmt: skip


def _is_code(entry: Section) -> bool:
    return entry.kind == SectionKind.COMMANDS


def _name(names: Any, value: int) -> str:
    """The name of an enumeration's value in lower case, or its number."""
    return names(value).name.lower() if value in names._value2member_map_ else str(value)


def _assembler(entry: Section, commands: list[Command]) -> str:
    return f"; {entry.name}\n{disassemble(commands)}"


def _program(program: Program) -> dict[str, Any]:
    return {
        "batch": program.batch, "inputs": list(program.inputs), "outputs": list(program.outputs),
        "shared_bytes": program.shared_bytes, "private_bytes": program.private_bytes,
        "tensors": [_tensor(tensor) for tensor in program.tensors],
        "routines": [_routine(routine) for routine in program.routines],
    }  # fmt: skip


def _tensor(tensor: Tensor | Weight) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": tensor.name, "dtype": _name(DataType, tensor.dtype), "shape": list(tensor.shape.dim) if tensor.shape else [],
        "region": tensor.region, "address": tensor.address, "bytes": tensor.size,
    }  # fmt: skip
    if isinstance(tensor, Tensor):
        found["qscale"] = _finite(tensor.quant.qscale) if tensor.quant else None
    return found


def _finite(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _routine(routine: Routine) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": _name(RoutineKind, routine.kind),
        "inputs": list(routine.inputs),
        "outputs": list(routine.outputs),
    }
    if routine.tpu is not None:
        found["section"] = routine.tpu.commands or routine.tpu.dma_buffer
    if routine.cpu is not None:
        found["function"] = routine.cpu.function
        try:
            found["arguments"] = {key: _finite(value) for key, value in decode_arguments(routine.cpu.arguments).items()}
        except FlatbufferError:
            found["arguments"] = None
    return found
