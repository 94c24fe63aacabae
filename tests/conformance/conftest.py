# SPDX-License-Identifier: Apache-2.0
"""A generator of numbers per test."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test's name, so that cases differ and repeat."""
    return np.random.default_rng(list(request.node.name.encode()))
