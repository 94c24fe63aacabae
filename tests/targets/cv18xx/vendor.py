# SPDX-License-Identifier: Apache-2.0
"""The vendor's functional model, where it is set up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gadl.compiler.session import open_session
from gadl.runtime import cv18xx
from gadl.targets.cv18xx.cvimodel import CviModel

needs_functional_model = pytest.mark.skipif(
    cv18xx.missing() is not None, reason="the vendor's functional model is not set up (gadl targets setup cv18xx)"
)


def run(model: CviModel, inputs: dict[str, np.ndarray], scratch: Path) -> dict[str, np.ndarray]:
    """The outputs of one inference, as the model stores them."""
    path = scratch / "m.cvimodel"
    path.write_bytes(model.encode())
    return open_session(path, cv18xx.DEVICE, timeout_s=60).run(inputs, raw=True)
