# SPDX-License-Identifier: Apache-2.0
"""The `.gadl` file: one declaration (`format`), a writer and a reader."""
