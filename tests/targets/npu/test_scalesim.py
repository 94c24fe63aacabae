# SPDX-License-Identifier: Apache-2.0
"""Gate V1: SCALE-Sim 3.0.0 without memory stalls, on every layer of ResNet-18, ResNet-50, MobileNet and a ViT-B block.

Two of our levels are compared with the closed forms: the analytic cost that the planner calls, and the event engine, which
runs each layer as one instruction of a program.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from gadl.compiler.ir.types import DType
from gadl.targets.npu import _sim
from gadl.targets.npu.asm import assemble
from gadl.targets.npu.container import Container
from gadl.targets.npu.costs import Costs
from gadl.targets.npu.instruction import encode
from gadl.targets.npu.layers import Window
from gadl.targets.npu.machine import load_machine

DATA = Path(__file__).parents[2] / "data" / "scalesim"
SIZES = (16, 32, 64, 128)

#: Multiply-accumulates, and compute cycles (weight-stationary, output-stationary) by array size.
TOTALS = {
    "resnet18": (1.471e9, {16: (7_885_563, 6_359_601), 32: (2_519_815, 1_718_353), 64: (910_115, 547_249), 128: (417_628, 262_370)}),
    "resnet50": (3.480e9, {16: (18_216_922, 15_680_376), 32: (5_753_486, 4_434_168), 64: (2_043_372, 1_420_890), 128: (876_832, 611_561)}),
    "mobilenet": (0.566e9, {16: (3_799_529, 3_682_863), 32: (1_433_453, 1_338_519), 64: (672_421, 590_421), 128: (395_105, 334_435)}),
    "vit_b": (0.983e9, {16: (4_743_195, 4_205_079), 32: (1_420_995, 1_169_093), 64: (473_231, 355_523), 128: (184_955, 102_271)}),
}
CASES = [(network, flow, size) for network in TOTALS for flow in ("ws", "os") for size in SIZES]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Layer:
    """One layer of a list: a convolution without padding on a square image, or a product (kernel 0)."""

    size: int
    kernel: int
    ic: int
    oc: int
    stride: int
    times: int

    @property
    def out(self) -> int:
        """Rows and columns of the result, as SCALE-Sim counts them."""
        return ceil_div(self.size - self.kernel + self.stride, self.stride) if self.kernel else 0

    @property
    def product(self) -> tuple[int, int, int]:
        """(M, N, K)."""
        return (self.out**2, self.oc, self.kernel**2 * self.ic) if self.kernel else (self.size, self.oc, self.ic)

    def closed_form(self, flow: str, r: int) -> int:
        """SCALE-Sim's compute cycles on a square array."""
        m, n, k = self.product
        if flow == "ws":
            return ceil_div(k, r) * ceil_div(n, r) * (2 * r + r + m - 2) - 1
        return ceil_div(m, r) * ceil_div(n, r) * (r + r + k - 2) - 1

    @property
    def window(self) -> Window:
        """The layer as the planner sees it."""
        if not self.kernel:
            return Window(1, self.size, 1, self.ic, self.size, 1, self.oc, 1, 1, 1, 1, 1, 1, 0, 0)
        return Window(
            1, self.size, self.size, self.ic, self.out, self.out, self.oc, self.kernel, self.kernel, self.stride, self.stride, 1, 1, 0, 0
        )

    @property
    def instruction(self) -> str:
        """The whole layer as one instruction: input, weights behind it, accumulators."""
        m, n, k = self.product
        if not self.kernel:
            return f"MMA_MATMUL@MMA b_addr={m * k} m={m} n={n} k={k} a_stride={k} b_stride={k}"
        pixels = f"x_row_stride={self.size * self.ic} x_pix_stride={self.ic} ih={self.size} iw={self.size} oh={self.out} ow={self.out}"
        return (
            f"MMA_CONV@MMA {pixels} ic={self.ic} oc={self.oc} kh={self.kernel} kw={self.kernel} stride_h={self.stride} "
            f"stride_w={self.stride} dil_h=1 dil_w=1 w_addr={ceil_div(self.size**2 * self.ic, 16) * 16}"
        )


def rows_of(name: str) -> Iterator[dict[str, str]]:
    lines = (DATA / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    return csv.DictReader(line for line in lines if not line.startswith("#"))


@cache
def layers_of(network: str) -> list[Layer]:
    """The distinct layers of a network."""
    found = [
        Layer(*(int(row[k]) for k in ("size", "kernel", "channels", "filters", "stride", "times")))
        for row in rows_of("convolutions")
        if row["network"] == network
    ]
    found += [Layer(int(r["m"]), 0, int(r["k"]), int(r["n"]), 1, int(r["times"])) for r in rows_of("products") if r["network"] == network]
    return found


@pytest.mark.parametrize("network", TOTALS)
def test_the_lists_are_the_published_networks(network: str) -> None:
    """The closed forms over our lists give the published totals: the lists are SCALE-Sim's."""
    layers, (macs, totals) = layers_of(network), TOTALS[network]
    assert sum(x.times * x.product[0] * x.product[1] * x.product[2] for x in layers) == pytest.approx(macs, rel=1e-3)
    for size, published in totals.items():
        assert tuple(sum(x.times * x.closed_form(flow, size) for x in layers) for flow in ("ws", "os")) == published


@pytest.mark.parametrize(("network", "flow", "size"), CASES)
def test_the_analytic_cost_of_every_layer_is_the_closed_form(network: str, flow: str, size: int) -> None:
    costs, total = Costs(load_machine(f"scalesim-{flow}-{size}")), 0
    for layer in layers_of(network):
        window = layer.window
        cycles = costs.mma(window, window.oh, window.ow, window.oc, DType.I8) - 1
        assert cycles == layer.closed_form(flow, size), layer
        total += layer.times * int(cycles)
    assert total == TOTALS[network][1][size][flow == "os"]


@pytest.mark.parametrize(("network", "flow", "size"), CASES)
def test_the_event_engine_takes_the_closed_form_for_every_layer(network: str, flow: str, size: int) -> None:
    """The whole network as one program; SCALE-Sim numbers cycles from 0, so its count of a layer is ours minus one."""
    machine, layers = load_machine(f"scalesim-{flow}-{size}"), layers_of(network)
    every = [layer for layer in layers for _ in range(layer.times)]
    code = encode(assemble("\n".join([*(x.instruction for x in every), "END@CTL"])))
    report = _sim.simulate(Container(machine, [code], b"", {}, [], []).to_bytes(), {}, functional=False, trace=True)
    taken = [round(end - start, 6) - 1 for *_, start, end in report["trace"]]
    assert taken == [layer.closed_form(flow, size) for layer in every]
    total = TOTALS[network][1][size][flow == "os"]
    fetched = 1  # the first instruction arrives within a cycle
    assert total + len(every) <= report["cycles"] < total + len(every) + fetched
    assert report["macs"] == sum(x.product[0] * x.product[1] * x.product[2] for x in every)
