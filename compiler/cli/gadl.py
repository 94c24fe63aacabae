# SPDX-License-Identifier: Apache-2.0
"""`gadl`: run, measure, inspect and compare artefacts; list targets; check the installation; explain codes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.diag import ExitCode, GadlError
from gadl.compiler.diag.catalog import entries, entry

from . import cvimodel
from .common import command, load_arrays, on_device, save_arrays, say
from .profile import profile
from .targets import device_states, targets

#: Width of the columns of `inspect --plan` beside the layers' names.
OTHER_COLUMNS = 108


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="opengadl")
def main() -> None:
    """Work with compiled models. / 处理编译后的模型。"""


main.add_command(targets)
main.add_command(profile)


@main.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help=".npz with one array per input")
@click.option("--output", "target", type=click.Path(path_type=Path), help=".npz to write")
@click.option("--raw", is_flag=True, help="Integers instead of floats")
@on_device
@command
def run(artifact: Path, source: Path, target: Path | None, raw: bool, device: str | None, timeout: float) -> int:
    """Run ARTIFACT once. / 运行一次。"""
    from gadl.compiler.session import open_session

    session = open_session(artifact, device, timeout_s=timeout)
    results = session.run(load_arrays(source), raw=raw)
    if target is not None:
        save_arrays(target, results)
    for name, array in results.items():
        click.echo(f"{name}: {array.dtype}{list(array.shape)} min {array.min():.6g} max {array.max():.6g}")
    return ExitCode.OK


@main.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--input", "source", type=click.Path(path_type=Path), help=".npz; noise by default")
@click.option("--runs", default=10, show_default=True)
@click.option("--warmup", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@on_device
@command
def bench(artifact: Path, source: Path | None, runs: int, warmup: int, as_json: bool, device: str | None, timeout: float) -> int:
    """Time ARTIFACT: wall clock of this machine, cycles of a simulated device. / 测量时延。"""
    from gadl.compiler.session import open_session

    session = open_session(artifact, device, check=False, timeout_s=timeout)
    rng = np.random.default_rng(0)
    feeds = load_arrays(source) if source else {s.name: rng.standard_normal(s.shape).astype(s.numpy) for s in session.inputs}
    for _ in range(warmup):
        session.run(feeds)
    times = []
    for _ in range(max(1, runs)):
        start = time.perf_counter()
        session.run(feeds)
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    p90, p99 = (times[min(len(times) - 1, int(len(times) * q))] for q in (0.9, 0.99))
    result: dict[str, Any] = {
        "runs": len(times), "p50_ms": statistics.median(times), "p90_ms": p90, "p99_ms": p99,
        "device": device or session.manifest.get("driver"), **session.counters,
    }  # fmt: skip
    clock = session.manifest.get("clock_mhz")
    if clock and result["cycles"]:
        result["device_latency_us"] = result["cycles"] / clock
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        for key, value in result.items():
            click.echo(f"{key:<18} {value:.3f}" if isinstance(value, float) else f"{key:<18} {value}")
    return ExitCode.OK


@main.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--plan", is_flag=True, help="Groups and layers: cycles, what limits them, bytes")
@click.option("--asm", is_flag=True, help="The device programs as assembler text")
@click.option("--json", "as_json", is_flag=True, help="As JSON: with --plan, or of a .cvimodel")
@command
def inspect(artifact: Path, plan: bool, asm: bool, as_json: bool) -> int:
    """Show what ARTIFACT holds, a .gadl or any .cvimodel. / 查看 .gadl 或任意 .cvimodel 的内容。"""
    if cvimodel.is_cvimodel(artifact):
        if plan:
            raise GadlError.of("GADL-U001", detail=f"--plan: {artifact} is a .cvimodel, which holds no plan")
        return cvimodel.inspect(artifact, asm, as_json)
    file = ArtifactFile.open(artifact)
    if plan:
        return _inspect_plan(file, as_json)
    if asm:
        from gadl.compiler.registry import target

        name = str(file.manifest.get("target", ""))
        disassemble = target(name).disassemble if file.programs else None
        if disassemble is None:
            raise GadlError.of("GADL-U001", detail=f"--asm: target '{name}' has no assembler text for {artifact}")
        for code in file.programs:
            click.echo(disassemble(code), nl=False)
        return ExitCode.OK
    click.echo(json.dumps(file.manifest, ensure_ascii=False, indent=1))
    for (name, index), (at, size) in file.sections.items():
        click.echo(f"{name:<10} {index:>3}  offset {at:>10}  {size:>10} B")
    return ExitCode.OK


def _inspect_plan(file: ArtifactFile, as_json: bool) -> int:
    """The table of a simulated target; the plans' own text of any other."""
    from gadl.compiler.report import observe
    from gadl.compiler.report.labels import labels
    from gadl.compiler.report.terminal import plan_table

    performance, _ = observe(file)
    plans = [file.section("plan", index).decode() for index in range(len(file.programs))]
    if as_json:
        numbers = None if performance is None else performance.to_json()
        click.echo(json.dumps({"plans": [json.loads(p) for p in plans], "performance": numbers}, ensure_ascii=False, indent=1))
    elif performance is None:
        for text in plans or [labels()["no_device"]]:
            click.echo(text)
    else:
        # Names are cut to the terminal's width, never in a file.
        terminal = Console(highlight=False)
        room = max(16, terminal.width - OTHER_COLUMNS) if terminal.is_terminal else 0
        console = terminal if room else Console(highlight=False, width=1 << 12)
        console.print(plan_table(performance, room))
    return ExitCode.OK


@main.command()
@command
def doctor() -> int:
    """Check this installation. / 检查安装。"""
    healthy = True
    click.echo(f"python     {platform.python_version()} on {platform.machine()} {platform.system()}")
    for name in ("opengadl", "numpy", "ml_dtypes", "onnx", "onnx-ir", "onnxsim", "onnxruntime", "torch"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        click.echo(f"{name:<10} {version}")
    for module in ("gadl.runtime._core", "gadl.targets.npu._sim"):
        try:
            importlib.import_module(module)
            state = "ok"
        except (ImportError, GadlError) as error:
            state, healthy = f"missing: {error}", False
        click.echo(f"{module:<22} {state}")
    for name, state in device_states():
        click.echo(f"{name:<22} {state}")
    return ExitCode.OK if healthy else ExitCode.GATE_FAILED


@main.command()
@click.argument("code", required=False)
@command
def explain(code: str | None) -> int:
    """Explain a message code, or list all. / 解释消息代码。"""
    if code is None:
        for item in entries():
            click.echo(f"{item.code}  {say(item.what)}")
        return ExitCode.OK
    try:
        found = entry(code.upper())
    except KeyError:
        raise GadlError.of("GADL-U003", name=code) from None
    for label, text in (("", found.what), ("why: ", found.why), ("now: ", found.now), ("fix: ", found.fix), ("", found.explain)):
        if text is not None:
            click.echo(f"{label}{say(text)}")
    return ExitCode.OK


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help=".npz with one array per input")
@click.option("--json", "as_json", is_flag=True)
@on_device
@command
def compare(model: Path, artifact: Path, source: Path, as_json: bool, device: str | None, timeout: float) -> int:
    """Compare MODEL in float with ARTIFACT, layer by layer. / 逐层比较浮点模型与产物。

    ARTIFACT must be compiled with --keep-tensors. Every tensor of integer type is also recomputed by the interpreter from
    the artefact's own inputs of that op: the difference must be 0 bits.
    """
    from gadl.compiler.compare import compare_layers

    rows, differing = compare_layers(model, artifact, load_arrays(source), device, timeout)
    if as_json:
        click.echo(json.dumps({"layers": [r.__dict__ for r in rows], "differing_elements": differing}, indent=1))
    else:
        click.echo(f"{'tensor':<44} {'SQNR dB':>8} {'cosine':>8} {'max abs':>10}")
        for row in rows:
            click.echo(f"{row.name[:44]:<44} {row.sqnr_db:>8.1f} {row.cosine:>8.5f} {row.max_abs:>10.4g}")
        click.echo(f"device against interpreter: {differing} elements differ")
    return ExitCode.OK if differing == 0 else ExitCode.GATE_FAILED


if __name__ == "__main__":
    main()
