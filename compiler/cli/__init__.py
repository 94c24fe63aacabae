# SPDX-License-Identifier: Apache-2.0
"""The commands: `gadlc` compiles, `gadl` does everything around a compiled model."""
