# SPDX-License-Identifier: Apache-2.0
"""Makes `rewriting` of the folder above importable, whatever folder pytest was started on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
pytest.register_assert_rewrite("rewriting")
