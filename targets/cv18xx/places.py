# SPDX-License-Identifier: Apache-2.0
"""Where tensors lie in DDR: inputs and outputs in regions of their own, values between layers in scratch memory or inside others."""

from __future__ import annotations

from dataclasses import dataclass

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.program import Buffer

from .expand.context import PRIVATE, SCRATCH, Expansion, Place
from .layers import Layer, Shape, shape_of
from .local import align

#: Alignment of tensors in DDR.
ALIGNMENT = 16
#: Regions for inputs and outputs; further ones lie in private memory.
FIRST_REGION, LAST_REGION = 3, 7


@dataclass(frozen=True)
class Binding:
    """Where an input or output lies."""

    value: Value
    buffer: Buffer


def dense(value: Value, buffer: Buffer, offset: int = 0) -> Place:
    """The place of a dense tensor."""
    shape = shape_of(value) or Shape(1, 1, 1, value.type.element_count)
    element = value.dtype.size_bytes
    row = shape.w * element
    return Place(buffer, offset, shape.c * shape.h * row, shape.h * row, row)


def bind(context: Expansion, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> list[Binding]:
    """A buffer for every input and output, inputs first."""
    found, private = [], 0
    for number, value in enumerate((*inputs, *outputs)):
        region, size = FIRST_REGION + number, value.type.size_bytes
        memory, address = (f"ddr{region}", 0) if region <= LAST_REGION else (PRIVATE, private)
        private += align(size) if memory == PRIVATE else 0
        buffer = context.program.buffer(memory, size, value.name, ALIGNMENT, address)
        context.places[id(value)] = dense(value, buffer)
        found.append(Binding(value, buffer))
    return found


def place_values(context: Expansion, layers: list[Layer], returned: set[int]) -> None:
    """A place for every value between layers.

    Backwards: an operand that only a concatenation along channels reads is written straight into the result, and one that is only
    looked at in another way lies where the result does. Forwards: a slice of channels and another look at a dense tensor are views.
    """
    for layer in reversed(layers):
        value = layer.result
        if id(value) not in context.places:
            context.places[id(value)] = dense(value, context.program.buffer(SCRATCH, value.type.size_bytes, value.name, ALIGNMENT))
        place = context.places[id(value)]
        if layer.op.name == "concat":
            _place_inside(context, layer, place, returned)
        elif layer.op.name == "reshape" and _alone(layer.op.inputs[0], returned) and place == dense(value, place.buffer, place.offset):
            operand = layer.op.inputs[0]
            context.places.setdefault(id(operand), dense(operand, place.buffer, place.offset))
    for layer in layers:
        if id(layer.result) not in returned:
            _view(context, layer)


def _alone(value: Value, returned: set[int]) -> bool:
    """True for a value that the segment makes and that one op reads."""
    return len(value.users) == 1 and value.producer is not None and value.producer.placement is not None and (
        value.producer.placement.segment is not None and id(value) not in returned
    )


def _place_inside(context: Expansion, layer: Layer, place: Place, returned: set[int]) -> None:
    axis, shape = layer.op.attrs["axis"] % layer.result.type.rank, shape_of(layer.result)
    if shape is None or axis != 1:
        return
    offset = place.offset
    for value in layer.op.inputs:
        x = shape_of(value)
        if x is not None and _alone(value, returned) and id(value) not in context.places:
            context.places[id(value)] = Place(place.buffer, offset, place.n_str, place.c_str, place.h_str)
        offset += 0 if x is None else x.c * place.c_str


def _view(context: Expansion, layer: Layer) -> None:
    op, x = layer.op, layer.op.inputs[0]
    if op.name not in ("reshape", "slice") or x.is_constant or id(x) not in context.places or _inside(context, layer):
        return
    source, shape = context.places[id(x)], shape_of(x)
    if op.name == "reshape":
        if source == dense(x, source.buffer, source.offset):
            context.places[id(layer.result)] = dense(layer.result, source.buffer, source.offset)
    elif shape is not None and x.type.rank in (3, 4) and all(s == 1 for s in op.attrs["steps"]):
        starts = op.attrs["starts"]
        rows = starts[2] if x.type.rank == 4 else 0
        offset = starts[0] * source.n_str + starts[1] * source.c_str + rows * source.h_str + starts[-1]
        context.places[id(layer.result)] = Place(source.buffer, source.offset + offset, source.n_str, source.c_str, source.h_str)


def _inside(context: Expansion, layer: Layer) -> bool:
    """True where the result has to lie in a place that is another value's."""
    place = context.places[id(layer.result)]
    return any(user.name == "concat" for user in layer.result.users) or place.buffer.memory != SCRATCH


def moves_nothing(context: Expansion, layer: Layer) -> bool:
    """True where a layer's result lies in memory already once its operands do."""
    op, place = layer.op, context.places[id(layer.result)]
    if op.name == "reshape":
        source = context.places[id(op.inputs[0])]
        return source.buffer is place.buffer and source.offset == place.offset
    if op.name == "slice":
        return context.places[id(op.inputs[0])].buffer is place.buffer
    if op.name == "concat":
        return all(not v.is_constant and context.places[id(v)].buffer is place.buffer for v in op.inputs)
    return False


def is_view(layer: Layer, returned: set[int]) -> bool:
    """True for a layer that only looks at its operand in DDR in another way."""
    op, x = layer.op, layer.op.inputs[0]
    if op.name != "reshape" or x.is_constant:
        return False
    return id(layer.result) not in returned or _alone(x, returned)
