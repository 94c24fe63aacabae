# SPDX-License-Identifier: Apache-2.0
"""Sophgo CV18xx: the NPUs of CV180x and CV181x (SG2002)."""
