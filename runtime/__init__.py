# SPDX-License-Identifier: Apache-2.0
"""Runs artefacts. Loads neither onnx nor torch."""

from __future__ import annotations

from .session import Session, load

__all__ = ["Session", "load"]
