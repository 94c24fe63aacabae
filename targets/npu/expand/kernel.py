# SPDX-License-Identifier: Apache-2.0
"""What computes rows of one layer between bands."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gadl.passes.plan.plan import LayerPlan
from gadl.passes.plan.spans import Span

from ..layers import Layer
from .bands import Band
from .context import Expansion


class Kernel(ABC):
    """Computes rows of one layer between bands; what it keeps on chip (weights, tables) is loaded once."""

    def __init__(self, context: Expansion, layer: Layer, plan: LayerPlan) -> None:
        self.context, self.layer, self.plan = context, layer, plan

    @abstractmethod
    def rows(self, rows: Span, sources: dict[int, Band], target: Band) -> None:
        """Emit the steps of some result rows. `sources` are the operands' bands by `id(value)`."""
