# SPDX-License-Identifier: Apache-2.0
"""Makes `integer_reference` importable, whatever folder pytest was started on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("integer_reference")
