# SPDX-License-Identifier: Apache-2.0
"""Front ends: a model file or object becomes a verified float graph."""
