# SPDX-License-Identifier: Apache-2.0
"""`gadl targets`: list the targets, and fetch what a device of theirs needs."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gadl.compiler.diag import ExitCode, GadlError, Language, current_language

from .common import command, say


@click.group(invoke_without_command=True)
@click.option("--ops", is_flag=True, help="The constraints of each target")
@command
def targets(ops: bool) -> int:
    """List the targets, or set one up. / 列出目标设备，或安装其所需软件。"""
    from gadl.compiler.registry import targets as known

    for target in known().values():
        machines = f"  [{', '.join(target.machines)}]" if target.machines else ""
        click.echo(f"{target.name:<8} {say(target.summary)} ({say(target.status)}){machines}")
        if ops:
            for name in sorted(target.device_ops):
                click.echo(f"    {name}")
            for row in target.constraints.rows:
                click.echo(f"    not on the device: {', '.join(row.ops) or 'any op'}: {say(row.reason)}")
    for name, state in device_states():
        click.echo(f"{name:<8} {state}")
    return ExitCode.OK


def device_states() -> Iterator[tuple[str, str]]:
    """Each device in a process of its own, and whether it can be used."""
    from gadl.compiler.diag.render import headline
    from gadl.runtime.devices import DEVICES

    for device in DEVICES.values():
        problem = device.missing()
        state = str(device.folder()) if problem is None else headline(problem)
        yield device.name, f"{say(device.summary)}: {state}"


@targets.command()
@click.argument("name")
@command
def setup(name: str) -> int:
    """Fetch what the device of target NAME needs. / 获取目标 NAME 的设备所需软件。"""
    from gadl.runtime.devices import DEVICES, device_of_target

    from .progress import Work

    device = device_of_target(name)
    if device is None:
        raise GadlError.of("GADL-R016", name=name, known=[d.family for d in DEVICES.values()])
    with Work("gadl") as work:
        work.stage(f"{name}: 获取" if current_language() is Language.ZH else f"fetch {name}")
        folder = device.setup()
    click.echo(f"{device.name}: {folder}")
    return ExitCode.OK
