# SPDX-License-Identifier: Apache-2.0
"""The op set: importing this package registers every declaration."""

from . import attention, elementwise, nn, norm, pooling, quant, reduce, shape

__all__ = ["attention", "elementwise", "nn", "norm", "pooling", "quant", "reduce", "shape"]
