# SPDX-License-Identifier: Apache-2.0
"""Makes `rewriting` importable in every folder below."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("rewriting")
