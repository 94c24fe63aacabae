# SPDX-License-Identifier: Apache-2.0
"""Devices beside those of the drivers: a driver in a process of its own, with the environment that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gadl.compiler.diag import Diagnostic
from gadl.compiler.diag.catalog import Text

from . import cv18xx


@dataclass(frozen=True)
class Device:
    """A driver and the software that its device needs, which is fetched on demand and may crash or hang.

    `missing` says why it cannot be used here and now (None: it can), `setup` fetches it into `folder`, `environment` gives the
    variables of the process for the bytes of a device program.
    """

    name: str
    driver: str
    #: What `gadl targets setup` calls it, and the targets whose artefacts it runs.
    family: str
    targets: tuple[str, ...]
    summary: Text
    folder: Callable[[], Path]
    missing: Callable[[], Diagnostic | None]
    setup: Callable[[], Path]
    environment: Callable[[bytes], dict[str, str]]


DEVICES = {
    device.name: device
    for device in (
        Device(
            cv18xx.DEVICE, "cvi", cv18xx.FAMILY, ("cv180x", "cv181x"),
            Text("the vendor's functional model of the CV18xx", "厂商的 CV18xx 功能模型"),
            cv18xx.folder, cv18xx.missing, cv18xx.fetch, cv18xx.environment,
        ),
    )
}  # fmt: skip


def device_of_driver(driver: str) -> Device | None:
    """The device that runs a driver's programs in a process of its own."""
    return next((d for d in DEVICES.values() if d.driver == driver), None)


def device_of_target(name: str) -> Device | None:
    """The device of a target, or of a family of targets."""
    return next((d for d in DEVICES.values() if name == d.family or name in d.targets), None)
