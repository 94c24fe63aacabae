# SPDX-License-Identifier: Apache-2.0
"""Tensors that depend on no input: constants, known while the program is read."""

from __future__ import annotations

import numpy as np

from gadl.compiler.ir.graph import Value

from .importer import Node, importer


@importer("full", "full_like", "new_full")
def full(node: Node) -> Value:
    """One value everywhere."""
    return node.const(np.full(node.shape, node.arg("fill_value")), node.dtype)


@importer("zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty")
def zeros(node: Node) -> Value:
    """Zeros; uninitialised memory is defined as such."""
    return node.const(np.zeros(node.shape), node.dtype)


@importer("ones", "ones_like", "new_ones")
def ones(node: Node) -> Value:
    """Ones."""
    return node.const(np.ones(node.shape), node.dtype)


@importer("scalar_tensor", "lift")
def scalar_tensor(node: Node) -> Value:
    """A number as a tensor."""
    return node.const(node.arg("s"), node.dtype)


@importer("arange")
def arange(node: Node) -> Value:
    """Evenly spaced numbers, computed in double precision."""
    start, step = node.arg("start") or 0, node.arg("step") or 1
    return node.const(start + step * np.arange(node.shape[0]), node.dtype)


@importer("linspace.default", "linspace")
def linspace(node: Node) -> Value:
    """Evenly spaced numbers between two ends."""
    return node.const(np.linspace(node.arg("start"), node.arg("end"), node.arg("steps")), node.dtype)


@importer("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range", "_functional_assert_async")
def assertion(node: Node) -> None:
    """A check that torch made while tracing: nothing to compute."""
    return None


@importer("eye")
def eye(node: Node) -> Value:
    """Ones on the diagonal."""
    return node.const(np.eye(node.shape[0], node.shape[1]), node.dtype)
