# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks on the reference NPU: cycles over LBgeo, DRAM bytes over the least, host ops, accuracy, and what groups are worth.

    python benchmarks/transformers.py [--machines edge,mid] [--precision int8] [NAME …]

Blocks are random torch modules, calibrated on four inputs; `SNR` compares the artefact's output with torch's on a fifth. Cycles are
the simulator's, so the table is the same on every computer.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import gadl
from gadl.frontends.torch import import_torch
from gadl.runtime.session import Session


class Attention(nn.Module):
    """Heads of attention with projections; `causal` masks what comes later."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (f(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        if self.causal:
            seen = torch.ones(length, length, dtype=torch.bool).tril()
            scores = scores.masked_fill(~seen, -math.inf)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class Encoder(nn.Module):
    """Attention and a GELU network; layer_norm before or (`post`) after each."""

    def __init__(self, width: int, heads: int, post: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.attention, self.post = Attention(width, heads, causal), post
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.post:
            x = self.first(x + self.attention(x))
            return self.second(x + self.down(F.gelu(self.up(x))))
        x = x + self.attention(self.first(x))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Decoder(nn.Module):
    """Causal attention and a SwiGLU network, rms_norm before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = width * 8 // 96 * 32
        self.attention = Attention(width, heads, True)
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        self.first, self.second = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.first(x))
        y = self.second(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


#: Name: module, tokens and width.
BLOCKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "encoder 128x4, 64": (lambda: Encoder(128, 4), 64, 128),
    "encoder 256x8, 128": (lambda: Encoder(256, 8), 128, 256),
    "post-norm 256x8, 128": (lambda: Encoder(256, 8, post=True), 128, 256),
    "encoder 384x12, 128": (lambda: Encoder(384, 12), 128, 384),
    "encoder 384x12, 256": (lambda: Encoder(384, 12), 256, 384),
    "encoder 128x4, 1024": (lambda: Encoder(128, 4), 1024, 128),
    "encoder 128x4, 2048": (lambda: Encoder(128, 4), 2048, 128),
    "encoder 128x1, 4096": (lambda: Encoder(128, 1), 4096, 128),
    "decoder 128x4, 64": (lambda: Decoder(128, 4), 64, 128),
    "decoder 256x8, 128": (lambda: Decoder(256, 8), 128, 256),
    "decoder 384x12, 256": (lambda: Decoder(384, 12), 256, 384),
}


def compiled(program: Any, feeds: list[dict[str, np.ndarray]], machine: str, precision: str, groups: bool) -> Any:
    """The artefact of one block."""
    return gadl.compile(program, target="npu", machine=machine, calibration=feeds, precision=precision, groups=groups)


def snr(artifact: Any, feed: dict[str, np.ndarray], wanted: np.ndarray) -> float:
    """Signal to noise of the artefact's output in dB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.gadl"
        artifact.save(path)
        (found,) = Session(path, check=False).run(feed).values()
    return float(10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(BLOCKS))
    parser.add_argument("--machines", default="edge,mid")
    parser.add_argument("--precision", default="int8")
    options = parser.parse_args()
    columns = ["block, tokens", "machine", "cycles", "/ LBgeo", "DRAM bytes / least", "MAC utilisation", "host ops", "SNR dB", "layer by layer", "× faster"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in options.names:
        build, length, width = BLOCKS[name]
        torch.manual_seed(0)
        module = build().eval()
        program = torch.export.export(module, (torch.randn(1, length, width),))
        (value,) = import_torch(program, {}).inputs
        rng = np.random.default_rng(0)
        feeds = [{value.name: rng.standard_normal((1, length, width)).astype(np.float32)} for _ in range(5)]
        with torch.no_grad():
            wanted = module(torch.from_numpy(feeds[4][value.name])).numpy()
        for machine in options.machines.split(","):
            made = compiled(program, feeds[:4], machine, options.precision, True)
            slow = compiled(program, feeds[:4], machine, options.precision, False).report["plan"]["cycles"]
            plan, host = made.report["plan"], len(made.report["placement"]["reasons"])
            print(
                f"| {name} | {machine} | {plan['cycles']:,} | {plan['cycles_over_lbgeo']:.2f} | {plan['dram_bytes'] / plan['dram_bound_bytes']:.2f} | "
                f"{plan['mac_utilisation']:.1%} | {host} | {snr(made, feeds[4], wanted):.1f} | {slow:,} | {slow / plan['cycles']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
