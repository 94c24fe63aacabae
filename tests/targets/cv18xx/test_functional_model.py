# SPDX-License-Identifier: Apache-2.0
"""Small programs of our encoder and container on the vendor's functional model, against numpy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.cvimodel import CviModel, Port, Region, build, place_ports
from gadl.targets.cv18xx.descriptor import encode
from gadl.targets.cv18xx.isa import Direction, Engine, Task

from .vendor import needs_functional_model, run

INPUTS, OUTPUTS, HEIGHT, WIDTH, KERNEL = 4, 12, 6, 7, 3
PIXELS = HEIGHT * WIDTH
#: Of a channel in local memory.
PITCH = -(-PIXELS // 16) * 16
X_AT, WEIGHTS_AT, Y_AT = 0x0000, 0x1000, 0x2000


class Stream:
    """A command stream whose commands wait for everything before them."""

    def __init__(self, chip: Chip) -> None:
        self.chip, self.code, self.done = chip, b"", {engine: 0 for engine in Engine}

    def tdma(self, **fields: int) -> None:
        self.done[Engine.TDMA] += 1
        fields |= {"vld": 1, "bar_en": 1, "cmd_id": self.done[Engine.TDMA], "wait_id_tpu": self.done[Engine.TIU]}
        self.code += encode(self.chip, Engine.TDMA, fields)

    def tiu(self, **fields: int) -> None:
        self.done[Engine.TIU] += 1
        fields |= {"cmd_en": 1, "cmd_id_en": 1, "cmd_id_tpu": self.done[Engine.TIU], "cmd_id_gdma": self.done[Engine.TDMA]}
        self.code += encode(self.chip, Engine.TIU, fields)


def side(name: str, shape: tuple[int, int, int], strides: tuple[int, int, int], address: int, region: int = 0) -> dict[str, int]:
    """Source or destination of a transfer: (c, h, w), strides of n, c, h."""
    named = dict(zip((f"{name}_{axis}" for axis in "chw"), shape, strict=True))
    n, c, h = strides
    named |= {f"{name}_n_stride": n, f"{name}_c_stride_low": c & 0xFFFF, f"{name}_c_stride_high": c >> 16, f"{name}_h_stride": h}
    return named | {f"{name}_base_addr_low": address, f"{name}_base_reg_sel": region}


def dense(name: str, shape: tuple[int, int, int], region: int, address: int = 0) -> dict[str, int]:
    """A tensor in DDR without gaps."""
    c, h, w = shape
    return side(name, shape, (c * h * w, h * w, w), address, region)


def channels(chip: Chip, name: str, count: int, address: int) -> dict[str, int]:
    """A tensor of HEIGHT x WIDTH in local memory."""
    return side(name, (count, HEIGHT, WIDTH), (PITCH * -(-count // chip.lanes), PITCH, WIDTH), address)


def convolution(chip: Chip, weights: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, relu: bool) -> tuple[bytes, Stream]:
    """The weights' section, and a stream from `Region.FIRST_PORT` to the next; `weights`: i8[OUTPUTS, INPUTS, k, k]."""
    slots = -(-OUTPUTS // chip.lanes)
    kernel_bytes, records_at = INPUTS * KERNEL**2, -(-slots * INPUTS * KERNEL**2 // 16) * 16
    lane_bytes = records_at + slots * 9
    tile = np.zeros((chip.lanes, lane_bytes), np.uint8)
    for j in range(OUTPUTS):
        lane, slot = j % chip.lanes, j // chip.lanes
        tile[lane, slot * kernel_bytes : (slot + 1) * kernel_bytes] = weights[j].transpose(1, 2, 0).reshape(-1).view(np.uint8)
        record = bias[j].astype("<i4").tobytes() + m[j].astype("<u4").tobytes() + bytes([int(s[j])])
        tile[lane, records_at + slot * 9 : records_at + slot * 9 + 9] = np.frombuffer(record, np.uint8)
    stream = Stream(chip)
    x, y = (INPUTS, HEIGHT, WIDTH), (OUTPUTS, HEIGHT, WIDTH)
    stream.tdma(trans_dir=Direction.LOAD, **dense("src", x, Region.FIRST_PORT), **channels(chip, "dst", INPUTS, X_AT))
    packed = (chip.lanes, 1, lane_bytes)
    local = side("dst", packed, (lane_bytes, lane_bytes, lane_bytes), WEIGHTS_AT)
    stream.tdma(trans_dir=Direction.LOAD, **dense("src", packed, Region.WEIGHTS), **local)
    stream.tiu(
        tsk_typ=Task.CONV, opt_chl_quan=1, opt_res_shift=0, opt_relu_typ=int(relu), double_conv=1,
        opt_res0_sign=1, opt_opd0_sign=1, opt_opd2_seg=1, short_res0_str=3, short_opd1_str=1, short_opd2_str=2,
        res0_n=1, res0_c=OUTPUTS, res0_h=HEIGHT, res0_w=WIDTH, res0_addr=Y_AT,
        res0_n_str=PITCH * slots, res0_c_str=PITCH, res0_h_str=WIDTH, res0_w_str=1,
        opd0_n=1, opd0_c=INPUTS, opd0_h=HEIGHT, opd0_w=WIDTH, opd0_addr=X_AT,
        opd1_n=INPUTS, opd1_c=OUTPUTS, opd1_h=KERNEL, opd1_w=KERNEL, opd1_addr=WEIGHTS_AT,
        opd2_n=1, opd2_c=OUTPUTS, opd2_h=1, opd2_w=1, opd2_addr=WEIGHTS_AT + records_at, opd2_b_str=0,
        conv_opd0_up_pad=1, conv_opd0_dn_pad=1, conv_opd0_lf_pad=1, conv_opd0_rt_pad=1,
    )  # fmt: skip
    stream.tdma(trans_dir=Direction.STORE, **channels(chip, "src", OUTPUTS, Y_AT), **dense("dst", y, Region.FIRST_PORT + 1))
    return tile.tobytes(), stream


def reference(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, relu: bool) -> np.ndarray:
    """The convolution with its requantisation: a product rounded up at ties, a shift rounded away from zero."""
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), (2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, weights.astype(np.int64)) + bias.reshape(1, -1, 1, 1)
    t = (sums * m.reshape(1, -1, 1, 1) + (1 << 30)) >> 31
    half = (1 << s.astype(np.int64) >> 1).reshape(1, -1, 1, 1)
    y = np.sign(t) * ((np.abs(t) + half) >> s.reshape(1, -1, 1, 1))
    return np.clip(y, 0 if relu else -128, 127).astype(np.int8)


def ports(*channel_counts: int) -> list[Port]:
    """int8 ports of HEIGHT x WIDTH, the first an input."""
    return [Port(f"t{i}", (1, count, HEIGHT, WIDTH), 0.125) for i, count in enumerate(channel_counts)]


def convolution_model(chip: Chip, relu: bool) -> tuple[CviModel, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(5)
    weights = rng.integers(-127, 128, (OUTPUTS, INPUTS, KERNEL, KERNEL)).astype(np.int8)
    bias, m = rng.integers(-20000, 20000, OUTPUTS), rng.integers(1 << 30, 1 << 31, OUTPUTS)
    m[:2] = 1 << 30  # with ties
    s = rng.integers(6, 10, OUTPUTS)
    tile, stream = convolution(chip, weights, bias, m, s, relu)
    given, made, private = place_ports(ports(INPUTS)[:1], [Port("y", (1, OUTPUTS, HEIGHT, WIDTH), 0.5)], 0)
    x = rng.integers(-128, 128, (1, INPUTS, HEIGHT, WIDTH)).astype(np.int8)
    model = build(chip, "tiny", tile, [stream.code], given, made, private_bytes=private)
    return model, {"t0": x}, reference(x, weights, bias, m, s, relu)


@needs_functional_model
@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_a_convolution_with_records_per_channel(chip: Chip, relu: bool, tmp_path: Path) -> None:
    model, inputs, expected = convolution_model(chip, relu)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(run(model, inputs, tmp_path)["y"], expected)


def copies(chip: Chip, moves: list[tuple[tuple[int, int], tuple[int, int]]]) -> Stream:
    """A stream that copies HEIGHT x WIDTH bytes from (region, address) to (region, address)."""
    stream, shape = Stream(chip), (1, HEIGHT, WIDTH)
    for (source, at), (target, to) in moves:
        stream.tdma(trans_dir=Direction.DDR, **dense("src", shape, source, at), **dense("dst", shape, target, to))
    return stream


@needs_functional_model
def test_several_streams_run_one_after_the_other(tmp_path: Path) -> None:
    chip = CHIPS["cv181x"]
    given, made, _ = place_ports(ports(1), [Port("y", (1, 1, HEIGHT, WIDTH), 1.0)], 0)
    scratch = (int(Region.PRIVATE), 32)
    streams = [copies(chip, [((given[0].region, 0), scratch)]).code, copies(chip, [(scratch, (made[0].region, 0))]).code]
    x = np.arange(PIXELS, dtype=np.int8).reshape(1, 1, HEIGHT, WIDTH)
    model = build(chip, "two", bytes(16), streams, given, made, private_bytes=32 + PIXELS, extra={"gadl.description": b"not the runtime's"})
    np.testing.assert_array_equal(run(model, {"t0": x}, tmp_path)["y"], x)


@needs_functional_model
def test_more_ports_than_base_registers(tmp_path: Path) -> None:
    """Ports beyond the fifth lie in private memory, behind what the program keeps there."""
    chip, all_ports = CHIPS["cv180x"], ports(*[1] * 9)
    given, made, private = place_ports(all_ports[:3], all_ports[3:], 20)
    moves = [((given[i % 3].region, given[i % 3].address), (port.region, port.address)) for i, port in enumerate(made)]
    rng = np.random.default_rng(1)
    inputs = {port.name: rng.integers(-128, 128, port.shape).astype(np.int8) for port in given}
    model = build(chip, "many", bytes(16), [copies(chip, moves).code], given, made, private_bytes=private)
    results = run(model, inputs, tmp_path)
    assert [port.region for port in (*given, *made)] == [3, 4, 5, 6, 7, 2, 2, 2, 2]
    assert private == 32 + 3 * 48 + math.prod(made[0].shape)
    for i, port in enumerate(made):
        np.testing.assert_array_equal(results[port.name], inputs[f"t{i % 3}"], err_msg=port.name)
