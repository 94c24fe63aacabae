# SPDX-License-Identifier: Apache-2.0
"""Softmax, normalisation and whole transformer blocks on the chip: bits of the device, and how near the integers are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph, Value
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder
from gadl.targets.cv18xx.chip import CHIPS, Chip
from gadl.targets.cv18xx.cvimodel import SectionKind
from gadl.targets.cv18xx.isa import Engine

from .graphs import assert_equal_on_the_model, compiled, float_graph, only_segment, placed
from .hazards import accesses, races
from .vendor import needs_functional_model

TIME, HEADS, WIDTH = 40, 4, 64
CV181X = CHIPS["cv181x"]


def constant(graph: Graph, rng: np.random.Generator, *shape: int) -> Value:
    return graph.constant((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32), "w")


def linear(graph: Graph, b: Builder, rng: np.random.Generator, x: Value, size: int) -> Value:
    return b("linear", x, constant(graph, rng, size, x.shape[-1]), constant(graph, rng, size))


def norm(graph: Graph, b: Builder, rng: np.random.Generator, x: Value, name: str) -> Value:
    vectors = [graph.constant(rng.normal(1, 0.3, x.shape[-1]).astype(np.float32)) for _ in range(2 if name == "layer_norm" else 1)]
    return b(name, x, *vectors, axis=-1)


def block(graph: Graph, b: Builder, rng: np.random.Generator, x: Value, name: str = "layer_norm") -> Value:
    """Attention and a feed-forward part, each behind a norm and beside a residual."""
    _, length, width = x.shape
    sizes = (1, 1, HEADS, length, width // HEADS)
    whole = b("reshape", linear(graph, b, rng, norm(graph, b, rng, x, name), 3 * width), shape=(1, length, 3, HEADS, width // HEADS))
    whole = b("transpose", whole, perm=(2, 0, 3, 1, 4))
    parts = [b("slice", whole, starts=(i, 0, 0, 0, 0), sizes=sizes, steps=(1,) * 5) for i in range(3)]
    q, k, v = (b("reshape", part, shape=sizes[1:]) for part in parts)
    mixed = b("matmul", b("softmax", b("matmul", q, b("transpose", k, perm=(0, 1, 3, 2))), axis=-1), v)
    joined = b("reshape", b("transpose", mixed, perm=(0, 2, 1, 3)), shape=x.shape)
    x = b("add", x, linear(graph, b, rng, joined, width))
    hidden = b("gelu", linear(graph, b, rng, norm(graph, b, rng, x, name), 2 * width))
    return b("add", x, linear(graph, b, rng, hidden, width))


def made(kind: str) -> Graph:
    rng = np.random.default_rng(5)
    shapes = {"softmax": (1, HEADS, TIME, 50), "last layer_norm": (2, TIME, WIDTH)}
    graph, b, (x,) = float_graph(shapes.get(kind, (1, TIME, WIDTH)))
    if kind == "softmax":
        y = b("matmul", b("softmax", x, axis=-1), constant(graph, rng, 50, 30))
    elif kind.startswith("last "):
        y = norm(graph, b, rng, x, kind.removeprefix("last "))
    else:
        y = block(graph, b, rng, x, kind)
    graph.set_outputs([y])
    return graph


KINDS = ("softmax", "last layer_norm", "last rms_norm", "layer_norm", "rms_norm")


def feeds(graph: Graph) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(6)
    return [{v.name: rng.normal(0.2, 2, v.shape).astype(np.float32) for v in graph.inputs} for _ in range(4)]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("kind", ["softmax", "layer_norm"])
def test_engines_wait_for_each_other(kind: str, chip: Chip) -> None:
    graph = made(kind)
    model = compiled(only_segment(placed(graph, feeds(graph), chip)), chip)
    (stream,) = (model.commands(i) for i, s in enumerate(model.model.sections) if s.kind == SectionKind.COMMANDS)
    touched = accesses(chip, stream)
    assert not races(chip, stream, touched)
    assert races(chip, [replace(c, fields=dict(c.fields) | ({"wait_id_tpu": 0} if c.engine is Engine.TDMA else {})) for c in stream], touched)


@needs_functional_model
@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_on_the_functional_model(kind: str, chip: Chip, tmp_path: Path) -> None:
    graph = made(kind)
    samples = feeds(graph)
    assert_equal_on_the_model(placed(graph, samples, chip), samples[-1], chip, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_near_the_float_graph(kind: str) -> None:
    """One program for all of it, whose error is that of a few roundings to 8 bits."""
    graph = made(kind)
    samples = feeds(graph)
    (wanted,) = interpret(graph, samples[-1]).values()
    quantised = placed(made(kind), samples, CV181X)
    only_segment(quantised)
    (found,) = interpret(quantised, samples[-1]).values()
    noise = np.sqrt(np.square(found - wanted).mean() / np.square(wanted - wanted.mean()).mean())
    assert noise < 0.1, noise
