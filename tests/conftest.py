# SPDX-License-Identifier: Apache-2.0
"""Every run tries the same examples: a failure that one run finds is there in the next."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")
