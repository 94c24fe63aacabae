# SPDX-License-Identifier: Apache-2.0
"""The host CPU as a target: no device segments, all precisions."""

from __future__ import annotations

from gadl.compiler.diag.catalog import Text
from gadl.targets.base import Target
from gadl.targets.npu.quant_rules import QUANT_RULES

TARGET = Target(
    name="cpu",
    summary=Text("the host CPU: portable C++ kernels", "主机 CPU：可移植的 C++ 算子"),
    status=Text("runs natively", "本机运行"),
    driver="host",
    quant_rules=lambda machine: QUANT_RULES,
    precisions=("float", "int8", "int16", "fp16"),
)
