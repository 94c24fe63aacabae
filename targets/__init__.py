# SPDX-License-Identifier: Apache-2.0
"""Targets: one folder each, found by walking this package and then the entry points `gadl.targets`."""
