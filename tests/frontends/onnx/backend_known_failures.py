# SPDX-License-Identifier: Apache-2.0
"""ONNX node tests that do not pass, by name pattern, with the reason."""

from __future__ import annotations

KNOWN_FAILURES: dict[str, str] = {}
