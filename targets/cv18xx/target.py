# SPDX-License-Identifier: Apache-2.0
"""The chips of the CV18xx family as targets."""

from __future__ import annotations

from gadl.compiler.artifact.format import Feature
from gadl.compiler.diag.catalog import Text
from gadl.targets.base import Target

from .backend import CviBackend
from .chip import CHIPS, Chip
from .constraints import CONSTRAINTS, DEVICE_OPS
from .cvimodel import rename
from .listing import disassemble_model
from .profile import profile
from .quant_rules import QUANT_RULES
from .space import CviSpace

STATUS = Text(
    "bit-exact on the vendor's cmodel, not yet run on a board", "在厂商 cmodel 上逐位一致，尚未在开发板上运行"
)


def _target(chip: Chip, board: str) -> Target:
    return Target(
        name=chip.name,
        summary=Text(f"Sophgo {chip.name.upper()} ({board}): the vendor's own container", f"算能 {chip.name.upper()}（{board}）：厂商原生容器"),
        status=STATUS,
        driver="cvi",
        machines=(chip.name,),
        default_machine=chip.name,
        load_machine=lambda name: chip,
        device_ops=DEVICE_OPS,
        constraints=CONSTRAINTS,
        quant_rules=lambda machine: QUANT_RULES,
        backend=CviBackend,
        space=CviSpace,
        features=Feature.NONE,
        precisions=("int8", "float"),
        native_suffix=".cvimodel",
        rename=rename,
        disassemble=disassemble_model,
        profile=profile,
    )


TARGETS = (_target(CHIPS["cv180x"], "Milk-V Duo"), _target(CHIPS["cv181x"], "Milk-V Duo 256M, LicheeRV Nano"))
