# SPDX-License-Identifier: Apache-2.0
"""The reference NPU as a target."""

from __future__ import annotations

from gadl.compiler.artifact.format import Feature
from gadl.compiler.diag.catalog import Text
from gadl.targets.base import Target

from .asm import disassemble
from .backend import NpuBackend
from .bounds import streaming
from .constraints import CONSTRAINTS, DEVICE_OPS
from .container import core_code
from .instruction import decode
from .machine import load_machine, machine_names
from .profile import profile
from .quant_rules import QUANT_RULES
from .space import NpuSpace

TARGET = Target(
    name="npu",
    summary=Text("the reference NPU: documented instruction set, bit-exact simulator", "参考 NPU：公开指令集，逐位精确的模拟器"),
    status=Text("simulated", "仅模拟"),
    driver="sim",
    machines=machine_names(),
    default_machine="edge",
    load_machine=load_machine,
    device_ops=DEVICE_OPS,
    channels_last=frozenset({"conv", "conv_transpose", "max_pool", "avg_pool", "resize"}),
    constraints=CONSTRAINTS,
    quant_rules=lambda machine: QUANT_RULES,
    backend=NpuBackend,
    streaming=streaming,
    space=NpuSpace,
    features=Feature.NPU,
    profile=profile,
    disassemble=lambda program: disassemble(decode(core_code(program))),
    precisions=("int8", "int16", "fp16", "float"),
)
