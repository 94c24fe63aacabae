# SPDX-License-Identifier: Apache-2.0
"""Where tensors lie in memory: inputs and outputs in their regions, values between layers in scratch memory, or inside others."""

from __future__ import annotations

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.program import Program

from .container import Binding
from .expand.bands import even_rows
from .expand.context import SCRATCH, Expansion, Place
from .layers import Layer, memory_strides, read_once, same_bytes

#: Alignment of tensors in DRAM.
DRAM_ALIGNMENT = 64


def end_of(program: Program, memory: str) -> int:
    """Bytes of a memory from its start to the end of the last buffer."""
    return max((b.address + b.size for b in program.buffers if b.memory == memory and b.address is not None), default=0)


def lay_apart(program: Program, memory: str) -> None:
    """Give every buffer of a memory bytes of its own: cores that share none wait less for each other."""
    at = 0
    for buffer in program.buffers:
        if buffer.memory == memory and buffer.address is None:
            buffer.address = at
            at += -(-buffer.size // DRAM_ALIGNMENT) * DRAM_ALIGNMENT


def bind(context: Expansion, values: tuple[Value, ...], memory: str) -> tuple[list[Binding], int]:
    """Lay out the segment's inputs or outputs one after another in their region."""
    bindings: list[Binding] = []
    at = 0
    for value in values:
        size = value.type.size_bytes
        buffer = context.program.buffer(memory, size, value.name, DRAM_ALIGNMENT, at)
        context.places[id(value)] = Place(buffer, 0, memory_strides(value))
        bindings.append(Binding(int(memory[4:]), at, size))
        at += -(-size // DRAM_ALIGNMENT) * DRAM_ALIGNMENT
    return bindings, at


def place_values(context: Expansion, layers: list[Layer], returned: set[int]) -> None:
    """Give every value between layers a place in scratch memory, or inside another value.

    Backwards: an operand that only a concat reads, or that is only looked at in another way, is written straight into the result.
    Forwards: a slice that keeps rows whole, or another look at the same bytes, is a view of its operand.
    """
    for layer in reversed(layers):
        value = layer.result
        if id(value) not in context.places:
            buffer = context.program.buffer(SCRATCH, value.type.size_bytes, value.name, DRAM_ALIGNMENT)
            context.places[id(value)] = Place(buffer, 0, memory_strides(value))
        if layer.op.name == "concat":
            _place_inside(context, layer, returned)
        elif same_bytes(layer.op):
            operand, place = layer.op.inputs[0], context.places[id(value)]
            if read_once(operand, returned) and id(operand) not in context.places and place.strides == memory_strides(value):
                context.places[id(operand)] = Place(place.buffer, place.offset, memory_strides(operand))
    for layer in layers:
        if (layer.op.name == "slice" or same_bytes(layer.op)) and id(layer.result) not in returned:
            _view(context, layer)


def _place_inside(context: Expansion, layer: Layer, returned: set[int]) -> None:
    """Operands of a concat that nothing else reads lie inside its result."""
    target, axis = context.places[id(layer.result)], layer.op.attrs["axis"] % layer.result.type.rank
    offset = target.offset
    for value in layer.op.inputs:
        alone = read_once(value, returned)
        placed = id(value) in context.places
        even = even_rows(value, target.strides)
        if alone and even and not placed and value.layout is layer.result.layout and _writes_strided(value):
            context.places[id(value)] = Place(target.buffer, offset, target.strides)
        offset += value.shape[axis] * target.strides[axis]


def _writes_strided(value: Value) -> bool:
    """True when the producer can store rows at any stride."""
    return value.producer is not None and value.producer.name in (
        "conv", "conv_transpose", "max_pool", "avg_pool", "resize", "lut", "add", "sub", "mul", "requantize", "concat",
    )  # fmt: skip


def _view(context: Expansion, layer: Layer) -> None:
    """A slice with whole innermost elements, or another look at a dense tensor, reads its operand in place."""
    op, x = layer.op, layer.op.inputs[0]
    if x.is_constant or any(user.name == "concat" for user in layer.result.users):
        return
    source = context.places[id(x)]
    if op.name != "slice":
        if source.strides == memory_strides(x):
            context.places[id(layer.result)] = Place(source.buffer, source.offset, memory_strides(layer.result))
        return
    if all(s == 1 for s in op.attrs["steps"]) and all(u.name in ("conv", "linear", "max_pool", "resize") for u in layer.result.users):
        if not even_rows(layer.result, source.strides):
            return
        offset = source.offset + sum(s * stride for s, stride in zip(op.attrs["starts"], source.strides))
        context.places[id(layer.result)] = Place(source.buffer, offset, source.strides)
