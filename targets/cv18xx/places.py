# SPDX-License-Identifier: Apache-2.0
"""Where tensors lie in DDR: inputs and outputs in regions of their own, values between layers in scratch memory or inside others."""

from __future__ import annotations

from dataclasses import dataclass

from gadl.compiler.ir.graph import Value
from gadl.passes.plan.program import Buffer

from .expand.context import PRIVATE, SCRATCH, Expansion, Place
from .layers import Layer, shape_of
from .local import align
from .strides import Strides, can_read, can_write, dense_strides, operand_within, same_strides, seen_through

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
    return Place(buffer, offset, dense_strides(value.shape))


def is_dense(value: Value, place: Place) -> bool:
    """True where a value lies without gaps."""
    return same_strides(value.shape, place.strides, dense_strides(value.shape))


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
    looked at in another way lies where the result does, wherever its producer can write so. Forwards: another look at a tensor
    (its axes permuted, split or joined, a part of it) is a view wherever its readers can read so.
    """
    for layer in reversed(layers):
        value = layer.result
        if id(value) not in context.places:
            context.places[id(value)] = dense(value, context.program.buffer(SCRATCH, value.type.size_bytes, value.name, ALIGNMENT))
        place = context.places[id(value)]
        if layer.op.name == "concat":
            _place_inside(context, layer, place, returned)
        else:
            _place_behind(context, layer, place, returned)
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
        if x is not None and _alone(value, returned) and id(value) not in context.places and _writes(value, place.strides):
            context.places[id(value)] = Place(place.buffer, offset, place.strides)
        offset += 0 if x is None else x.c * place.c_str


def _place_behind(context: Expansion, layer: Layer, place: Place, returned: set[int]) -> None:
    """The operand of an op that only moves, where its result will lie."""
    if layer.op.name not in ("reshape", "transpose") or not _alone(layer.op.inputs[0], returned):
        return
    operand = layer.op.inputs[0]
    strides = operand_within(layer.op, place.strides)
    if strides is not None and _writes(operand, strides):
        context.places.setdefault(id(operand), Place(place.buffer, place.offset, strides))


def _writes(value: Value, strides: Strides) -> bool:
    """True where a value's producer puts it there; what lies dense everybody writes."""
    if same_strides(value.shape, strides, dense_strides(value.shape)):
        return True
    return value.producer is not None and can_write(value.producer, value.shape, strides)


def _view(context: Expansion, layer: Layer) -> None:
    op, x, y = layer.op, layer.op.inputs[0], layer.result
    if x.is_constant or id(x) not in context.places or _inside(context, layer):
        return
    source = context.places[id(x)]
    seen = seen_through(op, source.strides)
    if seen is not None and all(can_read(user, y.shape, seen.strides) for user in y.users):
        context.places[id(y)] = Place(source.buffer, source.offset + seen.offset, seen.strides)


def _inside(context: Expansion, layer: Layer) -> bool:
    """True where the result has to lie in a place that is another value's."""
    place = context.places[id(layer.result)]
    return any(user.name == "concat" for user in layer.result.users) or place.buffer.memory != SCRATCH


def moves_nothing(context: Expansion, layer: Layer) -> bool:
    """True where a layer's result lies in memory already once its operands do."""
    op, place = layer.op, context.places[id(layer.result)]
    if op.name == "concat":
        return all(not v.is_constant and context.places[id(v)].buffer is place.buffer for v in op.inputs)
    if op.inputs[0].is_constant:
        return False
    source = context.places[id(op.inputs[0])]
    seen = seen_through(op, source.strides)
    if seen is None or source.buffer is not place.buffer or source.offset + seen.offset != place.offset:
        return False
    return same_strides(layer.result.shape, seen.strides, place.strides)


def is_view(layer: Layer, returned: set[int]) -> bool:
    """True for a layer that only looks at its operand in DDR in another way."""
    op, x = layer.op, layer.op.inputs[0]
    if op.name != "reshape" or x.is_constant:
        return False
    return id(layer.result) not in returned or _alone(x, returned)
