# SPDX-License-Identifier: Apache-2.0
"""The reference NPU: instruction set, machines, lowering, emission."""
