# SPDX-License-Identifier: Apache-2.0
"""The compiler: IR, artefact, pipeline driver, commands."""
