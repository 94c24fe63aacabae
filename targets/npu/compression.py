# SPDX-License-Identifier: Apache-2.0
"""Weight compression: which constants lie in DRAM as zb1 streams, and the bytes below which no choice of streams holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

import gadl.targets.npu._sim as _sim
from gadl.compiler.ir.types import Array, Requant

from .expand.weights import packed_weights
from .layers import Layer, window_of
from .machine import Machine

#: A stream is taken where its bursts are at most this part of those of the raw bytes.
PAYS = 0.95
#: Plans are estimated with what weights take compressed where that is at most this part: less is within the estimate's error.
NOTABLE = 0.8
#: Bits of a byte that is not zero within a masked block, by its value: two's complement, at least 2.
_WIDTHS = np.array([0, *(max(2, 1 + min(b, 255 - b).bit_length()) for b in range(1, 256))])
#: Least bits of constants that were looked at, by a digest of what they hold.
_LEAST: dict[tuple[bytes, str, tuple[int, ...]], int] = {}


def decodes(machine: Machine) -> bool:
    """True when loads can expand zb1 streams."""
    return machine["codec.weights"] != 0


def stream_of(machine: Machine, raw: bytes) -> bytes | None:
    """The stream of some constants, or None where they are better loaded as they are."""
    return _sim.encode_zb1(raw) if decodes(machine) and _pays(machine, len(raw), _sim.zb1_bytes(raw)) else None


def _pays(machine: Machine, raw: int, size: int) -> bool:
    """A load costs whole bursts."""
    burst = machine.integer("dram.burst")
    return -(-size // burst) <= PAYS * -(-raw // burst)


def compressed_sizes(machine: Machine, layer: Layer) -> list[int]:
    """Bytes of the streams of a layer's weights or constant operands, each in one piece, where they pay."""
    if not decodes(machine):
        return []
    raws = [np.ascontiguousarray(v.data).tobytes() for v in layer.op.inputs[:2] if v.data is not None]
    return [size for raw in raws if _pays(machine, len(raw), size := _sim.zb1_bytes(raw))]


def packed_part(machine: Machine, layers: Sequence[Layer]) -> float:
    """What a byte of the layers' constants takes in memory, for estimates; 1 where that makes no odds."""
    if not decodes(machine):
        return 1.0
    raw = packed = 0
    for layer in layers:
        for value in layer.op.inputs:
            if value.data is not None:
                data = np.ascontiguousarray(value.data).tobytes()
                size = _sim.zb1_bytes(data)
                raw, packed = raw + len(data), packed + (size if _pays(machine, len(data), size) else len(data))
    return packed / raw if packed < NOTABLE * raw else 1.0


def least_bytes(machine: Machine, layer: Layer) -> float:
    """Bytes of a layer's constants that every schedule loads, whatever it cuts them into and keeps as streams: weights, biases and
    the parameters of each channel's requantisation.

    A layer's constants reach the chip in chunks that the plan chooses, so the stream of a whole tensor is no limit: blocks that
    begin elsewhere may hold less. Products whose chunks are runs of their packed weights count the best cuts at any byte; all
    else counts byte by byte, each with its own width and one bit of a mask, or whole. Biases and
    parameters share blocks with weights, so they count no mask.
    """
    requant = layer.op.attrs.get("requant")
    vectors: tuple[Array, ...] = ()
    if isinstance(requant, Requant) and requant.per_channel:
        vectors = (requant.multiplier.astype(np.int32), requant.shift.astype(np.int8))
    if not decodes(machine):
        return sum(v.type.size_bytes for v in layer.op.inputs if v.is_constant) + sum(v.nbytes for v in vectors)
    product = layer.op.name in ("conv", "linear")
    bits = sum(_least(vector, "bias", layer) for vector in vectors)
    for position, value in enumerate(layer.op.operands):
        if value is None or value.data is None:
            continue
        if position == 1 and product and not window_of(layer.op).depthwise:
            kind = "run"
        else:
            kind = "bias" if position == 2 and (product or layer.op.name == "conv_transpose") else "bytes"
        bits += _least(value.data, kind, layer)
    return bits / 8


def _least(data: Array, kind: str, layer: Layer) -> int:
    raw = np.ascontiguousarray(data)
    key = hashlib.blake2b(raw.tobytes()).digest(), kind, data.shape
    if key not in _LEAST:
        if kind == "run":
            _LEAST[key] = _sim.least_zb1_bits(np.ascontiguousarray(packed_weights(layer.op, False)).tobytes())
        else:
            counts = np.bincount(raw.view(np.uint8).reshape(-1), minlength=256)
            _LEAST[key] = int((counts * np.minimum(8, _WIDTHS + (kind == "bytes"))).sum())
    return _LEAST[key]
