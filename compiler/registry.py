# SPDX-License-Identifier: Apache-2.0
"""Targets by name: the folders of `gadl.targets`, then the entry points `gadl.targets` of other packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache

import gadl.targets
from gadl.compiler.diag import GadlError
from gadl.targets.base import Target

GROUP = "gadl.targets"


def targets() -> dict[str, Target]:
    """Every target, by name; `GADL-T003` when a package brings one that cannot be used."""
    found = dict(_own())
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name not in found:
            found[point.name] = _load(point)
    return dict(sorted(found.items()))


def target(name: str) -> Target:
    """The target of that name; `GADL-T001` when there is none. Packages are loaded only when they are asked for."""
    if name in _own():
        return _own()[name]
    points = importlib.metadata.entry_points(group=GROUP)
    for point in points:
        if point.name == name:
            return _load(point)
    raise GadlError.of("GADL-T001", name=name, known=sorted({*_own(), *points.names}))


@cache
def _own() -> dict[str, Target]:
    modules = [m.name for m in pkgutil.iter_modules(gadl.targets.__path__) if m.ispkg]
    found = [importlib.import_module(f"gadl.targets.{name}.target") for name in modules]
    several: list[Target] = [item for module in found for item in (module.TARGETS if hasattr(module, "TARGETS") else (module.TARGET,))]
    return {item.name: item for item in several}


def _load(point: importlib.metadata.EntryPoint) -> Target:
    try:
        found = point.load()
    except Exception as error:
        raise GadlError.of("GADL-T003", name=point.name, detail=f"{type(error).__name__}: {error}") from error
    if not isinstance(found, Target) or found.name != point.name:
        detail = f"'{point.value}' is not a Target of that name"
        raise GadlError.of("GADL-T003", name=point.name, detail=detail)
    return found
