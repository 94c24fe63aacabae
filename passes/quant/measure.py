# SPDX-License-Identifier: Apache-2.0
"""How far some tensors are from others."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gadl.compiler.ir.types import Array

#: Signal to noise ratios beyond are as good as exact, in dB.
EXACT_DB = 120.0


def sqnr_db(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Signal to quantisation noise ratio of some tensors in dB: the mean of those of real numbers, each at most `EXACT_DB`."""
    ratios = []
    for name, want in wanted.items():
        if not np.issubdtype(want.dtype, np.floating):
            continue
        signal, noise = want.astype(np.float64), found[name].astype(np.float64) - want
        power, lost = float(np.square(signal).sum()), float(np.square(noise).sum())
        ratio = EXACT_DB if lost == 0 else -EXACT_DB if power == 0 or not math.isfinite(lost) else 10 * math.log10(power / lost)
        ratios.append(min(EXACT_DB, ratio))
    return float(np.mean(ratios)) if ratios else EXACT_DB
