# SPDX-License-Identifier: Apache-2.0
"""Targets by name: found by walking `gadl.targets`, then the entry points `gadl.targets` of other packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache

import gadl.targets
from gadl.compiler.diag import GadlError
from gadl.targets.base import Target


@cache
def targets() -> dict[str, Target]:
    """Every target, by name."""
    found: dict[str, Target] = {}
    for module in pkgutil.iter_modules(gadl.targets.__path__):
        if module.ispkg:
            target = importlib.import_module(f"gadl.targets.{module.name}.target").TARGET
            found[target.name] = target
    for point in importlib.metadata.entry_points(group="gadl.targets"):
        target = point.load()
        found[target.name] = target
    return dict(sorted(found.items()))


def target(name: str) -> Target:
    """The target of that name; `GADL-T001` when there is none."""
    try:
        return targets()[name]
    except KeyError:
        raise GadlError.of("GADL-T001", name=name, known=list(targets())) from None
