# SPDX-License-Identifier: Apache-2.0
"""The intermediate representation: types, graph, op declarations, text form, verifier, interpreter, passes."""
