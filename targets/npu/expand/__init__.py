# SPDX-License-Identifier: Apache-2.0
"""Expansion: from a layer's plan to steps, one module per kind of layer."""
