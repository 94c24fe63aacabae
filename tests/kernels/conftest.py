# SPDX-License-Identifier: Apache-2.0
"""Lets the tests beside it import `kernel_harness`; pytest's importlib mode leaves `sys.path` alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
