# SPDX-License-Identifier: Apache-2.0
"""Derivatives of a float graph, backwards: what a weighted sum of its outputs changes by, for each element of each tensor.

Reverse accumulation (Griewank and Walther, Evaluating Derivatives, chapter 3). Where an op has no rule here, nothing flows through it.
Functions of one tensor are differentiated by central differences, ops that move elements by moving their indices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from gadl.compiler.ir.graph import Graph, Op, Value
from gadl.compiler.ir.opdef import op_def
from gadl.compiler.ir.ops.pooling import AvgPool
from gadl.compiler.ir.ops.shape import Resize, linear_taps
from gadl.compiler.ir.types import Array

from .tables import table_source

#: Of the argument, at least of 1: the step of central differences.
STEP = 2.0**-8
#: Ops whose result holds elements of their operands, wherever.
_MOVES = frozenset({"reshape", "transpose", "slice", "pad", "concat", "expand", "tile", "gather", "relayout"})
#: Operands, the result and its derivative; gives the derivative of each operand, None where there is none.
Rule = Callable[[Op, Sequence[Array], Array, Array], Sequence[Array | None]]


def derivatives(graph: Graph, values: Mapping[int, Array], seeds: Mapping[int, Array]) -> Iterator[tuple[Value, Array]]:
    """The derivative of `sum(seed * output)` by every tensor that it depends on; f32, of the tensor's shape. Each is held until it is given.

    `values` holds every tensor of the graph that is not constant, `seeds` an array for some of them, by `id`.
    """
    found = {key: np.asarray(seed, np.float32) for key, seed in seeds.items()}
    for op in reversed(graph.ops):
        grad, rule = found.pop(id(op.result), None), _rule(op)
        if grad is None:
            continue
        yield op.result, grad
        if rule is None or not op.result.dtype.is_float:
            continue
        operands = [values[id(v)] if v.data is None else v.data for v in op.inputs]
        with np.errstate(all="ignore"):
            parts = rule(op, operands, values[id(op.result)], _inside(op, values[id(op.result)], grad))
        for value, part in zip(op.inputs, parts, strict=True):
            if part is None or value.is_constant or not value.dtype.is_float:
                continue
            summed = _folded(part, value.shape)
            found[id(value)] = summed if id(value) not in found else found[id(value)] + summed
    yield from ((v, found[id(v)]) for v in graph.inputs if id(v) in found)


def _rule(op: Op) -> Rule | None:
    if op.name in _RULES:
        return _RULES[op.name]
    if op.name in _MOVES:
        return _moved
    return _function if table_source(op) is not None else None


def _inside(op: Op, result: Array, grad: Array) -> Array:
    """The derivative where a fused clamp does not cut."""
    bounds = op.attrs.get("clamp")
    return grad if bounds is None else np.where((result > bounds[0]) & (result < bounds[1]), grad, 0)


def _folded(part: Array, shape: tuple[int, ...]) -> Array:
    """Summed over what was broadcast."""
    extra = part.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and part.shape[i + extra] != 1))
    return np.asarray(part.sum(axes, keepdims=True).reshape(shape) if axes else part, np.float32)


def _with_residual(op: Op, first: Array, grad: Array) -> list[Array | None]:
    """Derivatives of operand 0 and, where there is one, of a residual; weights and bias are constants."""
    present = [i for i, v in enumerate(op.operands) if v is not None]
    return [first if i == 0 else grad if i == 3 else None for i in present]


def _function(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    source = table_source(op)
    at = next(i for i, v in enumerate(op.inputs) if v is source)
    step = STEP * np.maximum(np.abs(operands[at]), 1)
    sides = []
    for sign in (1, -1):
        moved = iter([o if i != at else (o + sign * step).astype(o.dtype) for i, o in enumerate(operands)])
        sides.append(op_def(op.name).evaluate(op, [None if v is None else next(moved) for v in op.operands])[0])
    slope = grad * (sides[0] - sides[1]) / (2 * step)
    return [slope if v is source else None for v in op.inputs]


def _moved(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    """Each element of the result says which element of which operand it is; 0 says none."""
    real = [v.dtype.is_float for v in op.inputs]
    starts = np.cumsum([1, *(o.size if r else 0 for o, r in zip(operands, real))])
    numbered = iter([
        np.arange(start, start + o.size, dtype=np.int64).reshape(o.shape) if r else o for o, r, start in zip(operands, real, starts)
    ])  # fmt: skip
    (index,) = op_def(op.name).evaluate(op, [None if v is None else next(numbered) for v in op.operands])
    total = np.bincount(index.reshape(-1).astype(np.int64), grad.reshape(-1), int(starts[-1]))
    return [total[s : s + o.size].reshape(o.shape) if r else None for o, r, s in zip(operands, real, starts)]


def _windows(op: Op, kernel: Sequence[int], shape: Sequence[int], out: Sequence[int]) -> tuple[list[tuple[slice, ...]], tuple[int, ...], tuple[slice, ...]]:
    """Where each kernel position lies in the padded operand, the padded extents, and where the operand lies in them."""
    rank = len(kernel)
    strides, pads = op.attrs["strides"], op.attrs["pads"][:rank]
    dilations = op.attrs.get("dilations", (1,) * rank)
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, strides, kernel, dilations)]
    padded = tuple(max(r, size + p) for r, size, p in zip(reach, shape, pads))
    cuts = [
        tuple(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilations, out, strides))
        for tap in itertools.product(*(range(k) for k in kernel))
    ]
    return cuts, padded, tuple(slice(p, p + size) for p, size in zip(pads, shape))


def _conv(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    x, weights = operands[0], operands[1]
    groups, space = op.attrs["groups"], grad.shape[2:]
    cuts, padded, inner = _windows(op, weights.shape[2:], x.shape[2:], space)
    table = weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)
    flat = grad.reshape(grad.shape[0], groups, -1, int(np.prod(space)))
    total = np.zeros((*x.shape[:2], *padded), np.float32)
    for number, cut in enumerate(cuts):
        total[(slice(None), slice(None), *cut)] += (table[None, ..., number].swapaxes(2, 3) @ flat).reshape(*x.shape[:2], *space)
    return _with_residual(op, total[(slice(None), slice(None), *inner)], grad)


def _conv_transpose(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    x, weights = operands[0], operands[1]
    groups, space = op.attrs["groups"], x.shape[2:]
    cuts, padded, inner = _windows(op, weights.shape[2:], grad.shape[2:], space)
    wide = np.zeros((*grad.shape[:2], *padded), np.float32)
    wide[(slice(None), slice(None), *inner)] = grad
    table = weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)
    total = np.zeros((x.shape[0], groups, x.shape[1] // groups, int(np.prod(space))), np.float32)
    for number, cut in enumerate(cuts):
        total += table[None, ..., number] @ wide[(slice(None), slice(None), *cut)].reshape(x.shape[0], groups, -1, total.shape[3])
    return _with_residual(op, total.reshape(x.shape), grad)


def _linear(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    return _with_residual(op, grad @ operands[1], grad)


def _matmul(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    a, b = operands
    return [grad @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ grad]


def _max_pool(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    (x,) = operands
    cuts, padded, inner = _windows(op, op.attrs["kernel"], x.shape[2:], grad.shape[2:])
    wide = np.full((*x.shape[:2], *padded), -np.inf, np.float32)
    wide[(slice(None), slice(None), *inner)] = x
    total, left = np.zeros(wide.shape, np.float32), grad.copy()
    for cut in cuts:
        at = (slice(None), slice(None), *cut)
        mine = np.where(wide[at] == result, left, 0)
        total[at] += mine
        left -= mine  # the first of equal elements takes all
    return [total[(slice(None), slice(None), *inner)]]


def _avg_pool(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    (x,) = operands
    cuts, padded, inner = _windows(op, op.attrs["kernel"], x.shape[2:], grad.shape[2:])
    total, share = np.zeros((*x.shape[:2], *padded), np.float32), grad / AvgPool.counts(op)
    for cut in cuts:
        total[(slice(None), slice(None), *cut)] += share
    return [total[(slice(None), slice(None), *inner)]]


def _resize(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> Sequence[Array | None]:
    if op.attrs["mode"] == "nearest":
        return _moved(op, operands, result, grad)
    if op.attrs["mode"] != "linear":
        return [None]
    for axis, position in reversed(Resize.axes(op)):
        extent = operands[0].shape[axis]
        low, high, weight = linear_taps(position, extent)
        matrix = np.zeros((len(low), extent), np.float32)
        np.add.at(matrix, (np.arange(len(low)), low), 1 - weight)
        np.add.at(matrix, (np.arange(len(low)), high), weight)
        grad = np.moveaxis(np.tensordot(grad, matrix, (axis, 0)), -1, axis)
    return [grad]


def _reduced(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    (x,) = operands
    shape = tuple(1 if i in {a % x.ndim for a in op.attrs["axes"]} else n for i, n in enumerate(x.shape))
    grad, result = grad.reshape(shape), result.reshape(shape)
    match op.name:
        case "reduce_mean":
            return [np.broadcast_to(grad * (grad.size / x.size), x.shape)]
        case "reduce_sum":
            return [np.broadcast_to(grad, x.shape)]
        case _:
            return [np.where(x == result, grad, 0)]


def _sum(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    return [grad, grad if op.name == "add" else -grad]


def _mul(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    return [grad * operands[1], grad * operands[0]]


def _div(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    return [grad / operands[1], -grad * result / operands[1]]


def _extreme(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    return [np.where(o == result, grad, 0) for o in operands]


def _where(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    chosen = operands[0].astype(np.bool_)
    return [None, np.where(chosen, grad, 0), np.where(chosen, 0, grad)]


def _softmax(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    product = grad * result
    return [product - result * product.sum(op.attrs["axis"], keepdims=True)]


def _norm(op: Op, operands: Sequence[Array], result: Array, grad: Array) -> list[Array | None]:
    x = operands[0].astype(np.float64)
    axes = tuple(range(op.attrs["axis"] % x.ndim, x.ndim))
    scale = op.operand(1)
    inner = grad if scale is None or scale.data is None else grad * scale.data
    if op.name == "layer_norm":
        x = x - x.mean(axes, keepdims=True)
    spread = np.sqrt((x * x).mean(axes, keepdims=True) + op.attrs["epsilon"])
    unit = x / spread
    total = inner - unit * (inner * unit).mean(axes, keepdims=True)
    if op.name == "layer_norm":
        total = total - inner.mean(axes, keepdims=True)
    return [total / spread, *(None for _ in operands[1:])]


_RULES: dict[str, Rule] = {
    "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear, "matmul": _matmul, "max_pool": _max_pool, "avg_pool": _avg_pool,
    "resize": _resize, "reduce_mean": _reduced, "reduce_sum": _reduced, "reduce_max": _reduced, "reduce_min": _reduced, "add": _sum,
    "sub": _sum, "mul": _mul, "div": _div, "max": _extreme, "min": _extreme, "where": _where, "softmax": _softmax, "layer_norm": _norm,
    "rms_norm": _norm,
}  # fmt: skip
