# SPDX-License-Identifier: Apache-2.0
"""`gadlc MODEL --target npu`: from a model to an artefact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.calibration import Color, ImageLayout, ImageOptions, load_calibration
from gadl.compiler.diag import ExitCode, GadlError, Language, current_language
from gadl.compiler.driver import Artifact, CompileOptions, compile, import_model
from gadl.compiler.ir.passes import StopAfter
from gadl.compiler.ir.printer import print_graph
from gadl.compiler.registry import target
from gadl.compiler.tune.budget import DEFAULT
from gadl.passes.quant.fit_weights import RoundingKind
from gadl.passes.quant.observers import ObserverKind
from gadl.passes.quant.recipe import Coverage, Effort

from .common import command, parse_shapes, show
from .progress import Work


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", default="npu", show_default=True, help="Target (see `gadl targets`)")
@click.option("--machine", default="", help="Machine class or .toml file")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Artefact to write [default: MODEL.gadl]")
@click.option("--calib", type=click.Path(path_type=Path), help="Calibration data: folder of images, list file or .npz")
@click.option("--calib-limit", type=int, default=64, show_default=True, help="Samples to use")
@click.option("--mean", help="Per channel, in 0..255: 123.7,116.3,103.5")
@click.option("--std", help="Per channel, in 0..255")
@click.option("--layout", type=click.Choice([x.value for x in ImageLayout]), default="auto", help="Axis order of image inputs")
@click.option("--color", type=click.Choice([x.value for x in Color]), default="rgb", help="Channel order of image inputs")
@click.option("--precision", default="", help="int8 | int16 | fp16 | float")
@click.option("--coverage", type=click.Choice([x.value for x in Coverage]), default="full", show_default=True, help="Integer ops: all that can, or products only")
@click.option("--effort", type=click.Choice([x.value for x in Effort]), default="default", show_default=True, help="Recipes of quantisation to try")
@click.option("--observer", type=click.Choice([x.value for x in ObserverKind]), help="Ranges as seen, without fitting them")
@click.option("--percentile", type=float, default=99.99, show_default=True)
@click.option("--fit-ranges/--no-fit-ranges", default=None, help="Ranges that cost the outputs least")
@click.option("--equalize", type=click.FloatRange(0, 1), help="How far channels are brought towards one range")
@click.option("--rounding", type=click.Choice([x.value for x in RoundingKind]), help="How weights are rounded at best")
@click.option("--no-bias-correction", is_flag=True, help="Leave biases as they are")
@click.option("--shape", "shapes", multiple=True, help="Fix a dynamic input: name:1,3,224,224")
@click.option("--strict-placement", is_flag=True, help="Fail when an op would run on the host")
@click.option("--keep-tensors", is_flag=True, help="Keep every tensor readable after a run (for `gadl compare`)")
@click.option("--no-simplify", is_flag=True, help="Do not run onnxsim")
@click.option("--no-self-check", is_flag=True, help="Do not run the artefact once")
@click.option("--no-groups", is_flag=True, help="Plan layer by layer, from memory to memory (to compare)")
@click.option("--dump-ir", type=click.Path(path_type=Path), help="Write the graph after every pass")
@click.option("--stop-after", help="Print the graph after this pass and end")
@click.option("--tune", is_flag=True, help="Search for faster plans before the artefact is built")
@click.option("--budget", help=f"Of --tune: 60s, 5m, or a number of measurements [default: {DEFAULT}]")
@click.option("--seed", type=click.IntRange(0), help="Of --tune: where the search's random choices start [default: 0]")
@click.option("--jobs", type=click.IntRange(0), help="Of --tune: processes that measure [default: one per core]")
@click.option("--tuning-log", type=click.Path(path_type=Path), help="Plans to take, or with --tune to add to [default: MODEL.tuning.jsonl]")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for report.html, report.json and trace.json")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON")
@command
def main(
    model: Path, target: str, machine: str, output: Path | None, calib: Path | None, calib_limit: int, mean: str | None,
    std: str | None, layout: str, color: str, shapes: tuple[str, ...], no_simplify: bool, no_self_check: bool, no_groups: bool,
    report: Path | None, as_json: bool, tune: bool, budget: str | None, seed: int | None, jobs: int | None, no_bias_correction: bool, **options: Any,
) -> int:  # fmt: skip
    """Compile MODEL (.onnx, .pt2 or .gir) for a target. / 将模型编译到目标设备。"""
    fixed = parse_shapes(shapes)
    settings = {**options, "shapes": fixed, "simplify": not no_simplify, "self_check": not no_self_check, "groups": not no_groups}
    settings["correct_bias"] = not no_bias_correction
    settings |= _search(tune, budget, seed, jobs)
    calibration = None
    if calib is not None:
        images = ImageOptions(_floats(mean, 0.0), _floats(std, 1.0), ImageLayout(layout), Color(color))
        inputs = import_model(model, CompileOptions(shapes=fixed, simplify=not no_simplify), lambda item: None).inputs
        calibration = load_calibration(calib, inputs, images, calib_limit)
    try:
        with Work("gadlc") as work:
            artifact = compile(model, target, machine, calibration, warn=show, watch=work.stage, progress=work.search, **settings)
    except StopAfter as stop:
        click.echo(print_graph(stop.graph, elide=True), nl=False)
        return ExitCode.OK
    path = output or Path(model.with_suffix(".gadl").name)
    artifact.save(path)
    if report is not None:
        from gadl.compiler.report import write_report

        write_report(ArtifactFile(artifact.data, str(path)), artifact.report, report)
    if as_json:
        click.echo(json.dumps(artifact.report, ensure_ascii=False, indent=1, default=str))
    else:
        for line in summary(artifact, report):
            click.echo(line)
    return ExitCode.OK


def _search(tune: bool, budget: str | None, seed: int | None, jobs: int | None) -> dict[str, Any]:
    """The options of a search; `GADL-U001` when there is none to give them to."""
    given = {"--budget": budget, "--seed": seed, "--jobs": jobs}
    alone = [name for name, value in given.items() if value is not None]
    if alone and not tune:
        raise GadlError.of("GADL-U001", detail=f"{', '.join(alone)}: only with --tune")
    return {"tune": (budget or DEFAULT) if tune else None, "seed": seed or 0, "jobs": jobs or 0}


def _floats(text: str | None, otherwise: float) -> tuple[float, ...]:
    try:
        return (otherwise,) if text is None else tuple(float(v) for v in text.split(","))
    except ValueError:
        raise GadlError.of("GADL-U001", detail=f"'{text}' is not a list of numbers") from None


def summary(artifact: Artifact, report: Path | None = None) -> Iterator[str]:
    """About a dozen lines for people, in their language. `report`: the folder that was written."""
    r, zh = artifact.report, current_language() is Language.ZH

    def say(en: str, chinese: str) -> str:
        return chinese if zh else en

    def line(label: str, text: str) -> str:
        wide = sum(ord(c) > 0xFF for c in label)
        return f"{label:<{10 - wide}} {text}"

    known = target(r["target"])
    status = say(known.status.en, known.status.zh)
    yield line(say("model", "模型"), f"{r['model']} → {' '.join(filter(None, (r['target'], r['machine'])))} ({status})")
    place, host = r["placement"], say("host", "主机")
    device = f"{r['target']} {place[r['target']]}" if zh else f"{place[r['target']]} {r['target']}"
    shares = [device] if r["plan"] else []
    shares.append(f"{host} {place['host']}" if zh else f"{place['host']} {host}")
    yield line(say("placement", "放置"), say(", ", "，").join(shares))
    for reason in place["reasons"][:4]:
        yield line("", f"{host}: {reason['op']} '{reason['name']}': {reason['reason']}")
    if len(place["reasons"]) > 4:
        more = len(place["reasons"]) - 4
        yield line("", say(f"… {more} more (--json)", f"…… 另有 {more} 个（--json）"))
    quant = r["quant"]
    counts = ""
    if "integer_ops" in quant:
        whole, real = quant["integer_ops"], len(quant["float_ops"])
        counts = say(f", {whole} int / {real} float", f"，{whole} 个整数算子 / {real} 个浮点算子")
    yield line(say("precision", "精度"), f"{quant['precision']}{counts}")
    search = quant.get("search")
    if search is not None:
        count, ratio = search["held_out"], f"{search['sqnr_db']:.1f} dB"
        plain = f"{search['trials'][0]['sqnr_db']:.1f} dB"
        yield line(say("SQNR", "信噪比"), say(f"{ratio} on {count} held-out samples (min-max {plain})", f"{count} 个留出样本上 {ratio}（min-max {plain}）"))
        yield line(say("recipe", "方案"), search["recipe"])
    plan = r["plan"]
    if plan.get("steps"):
        peak = f"{plan['sram_peak_bytes'] / 1024:.0f} KiB"
        yield line(say("plan", "计划"), say(f"SRAM peak {peak}, {plan['steps']} steps", f"SRAM 峰值 {peak}，{plan['steps']} 步"))
    raw, kept = plan.get("weights_raw_bytes", 0), plan.get("weights_compressed_bytes", 0)
    if kept < raw:
        sizes, part = f"{raw / 1024:,.0f} → {kept / 1024:,.0f} KiB", f"{100 * kept / raw:.1f} %"
        yield line(say("weights", "权重"), say(f"{sizes} compressed ({part})", f"压缩 {sizes}（{part}）"))
    if plan.get("cycles"):
        share = f"{100 * plan['lbgeo_cycles'] / plan['cycles']:.1f} %"
        ratio = f"{plan['dram_bytes'] / max(1, plan['dram_bound_bytes']):.2f}"
        used = f"{100 * plan['mac_utilisation']:.1f} %"
        moved = f"{plan['dram_bytes'] / 1e6:.2f} MB"
        yield line("DRAM", say(f"{moved} / inference ({ratio} × least)", f"每次推理 {moved}（下限的 {ratio} 倍）"))
        limit = say(f"({share} of the physical limit), MAC {used}", f"（达到物理极限的 {share}），MAC 利用率 {used}")
        yield line(say("cycles", "周期"), f"{plan['cycles']:,} {limit}")
        yield line(say("latency", "时延"), f"{r['latency_us'] / 1000:.3f} ms ({status})")
    elif plan.get("estimated_cycles"):
        moved = f"{plan['estimated_dram_bytes'] / 1e6:.2f} MB"
        ratio = f"{plan['estimated_dram_bytes'] / max(1, plan['dram_bound_bytes']):.2f}"
        yield line("DRAM", say(f"{moved} / inference ({ratio} × least)", f"每次推理 {moved}（下限的 {ratio} 倍）"))
        share = f"{100 * plan['lbgeo_cycles'] / plan['estimated_cycles']:.1f} %"
        limit = say(f"estimated ({share} of the physical limit)", f"估计值（达到物理极限的 {share}）")
        yield line(say("cycles", "周期"), f"{plan['estimated_cycles']:,} {limit}")
        yield line(say("latency", "时延"), f"{r['latency_us'] / 1000:.3f} ms ({say('estimated', '估计值')})")
    tuned = r.get("tune")
    if tuned and "measured" in tuned:
        before, after = tuned["default_cycles"], tuned["best_cycles"]
        gain = f"{before:,.0f} → {after:,.0f} ({100 * (after / before - 1):+.1f} %)" if before else ""
        count, took = tuned["measured"], f"{tuned['seconds']:.0f} s"
        yield line(say("tuning", "调优"), say(f"{gain}, {count} plans measured in {took}", f"{gain}，{took} 内测量 {count} 个计划"))
    if tuned:
        yield line(say("log", "日志"), tuned["log"])
    check = r.get("self_check")
    if check and check["equal"] is None:
        yield line(say("check", "自检"), say(f"not run: {check['not_run']}", f"未运行：{check['not_run']}"))
    elif check:
        worst = f"{check['max_relative_difference']:.1e}"
        equal = say("device = interpreter, 0 bits differ", "设备与解释器逐位一致")
        yield line(say("check", "自检"), equal if check["equal"] else say(f"max difference {worst}", f"最大相对误差 {worst}"))
    yield line(say("time", "用时"), f"{r['compile_s']:.2f} s")
    yield line(say("wrote", "写出"), f"{r['artifact']['path']} ({r['artifact']['bytes']:,} B)")
    if report is not None:
        yield line("", str(report / "report.html"))


if __name__ == "__main__":
    main()
