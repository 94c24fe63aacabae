# SPDX-License-Identifier: Apache-2.0
"""The host CPU: every op runs on the C++ kernels."""
