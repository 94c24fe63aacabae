# SPDX-License-Identifier: Apache-2.0
"""Expansion: decisions become steps, whose instructions are those of the two engines."""
