# SPDX-License-Identifier: Apache-2.0
"""The pipeline, top to bottom: model, float graph, quantised graph, placed graph, device programs, artefact, self-check."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gadl.compiler.artifact.format import Feature
from gadl.compiler.diag import Diagnostic, GadlError, Severity, diagnostic
from gadl.compiler.diag.files import write_atomically
from gadl.compiler.ir.graph import Graph, Op, Stage
from gadl.compiler.ir.interpret import check_feeds, interpret_values
from gadl.compiler.ir.parser import load_gir
from gadl.compiler.ir.passes import Pass, PassManager
from gadl.compiler.ir.types import Array
from gadl.passes.layout.choose_layouts import choose_layouts
from gadl.passes.pipeline import FLOAT_PIPELINE, float_pipeline
from gadl.passes.plan.partition import partition
from gadl.passes.plan.recompute import recompute
from gadl.passes.quant.fit_weights import RoundingKind
from gadl.passes.quant.observers import ObserverKind
from gadl.passes.quant.quantize import (
    Precision,
    Quantized,
    has_own_scales,
    quantize_annotated,
    rules_for,
    to_half,
)
from gadl.passes.quant.recipe import Coverage, Effort, Switches
from gadl.passes.quant.search import Search
from gadl.targets.base import REPORTED, DeviceProgram, Machine, Segment, Target, segments_of

from .assemble import Assembler, pack_golden, raw_outputs
from .native import is_native, native_container
from .registry import target as find_target
from .self_check import add_counters, add_estimate, exact_outputs, self_check
from .tune.budget import Budget
from .tune.search import Progress
from .tune.session import TuneOptions, compile_tuned

Feeds = Mapping[str, Array]
SCHEMA_VERSION = 1
#: What `--stop-after` takes, in order.
PASS_NAMES = (*(p.name for p in FLOAT_PIPELINE), "quantize", "partition", "choose_layouts", "recompute")
#: Ops whose placement on the host is expected and not worth a word.
_BOUNDARY = frozenset({"quantize", "dequantize", "relayout", "cast"})


@dataclass(frozen=True)
class CompileOptions:
    """Everything that shapes a compilation besides model, target and calibration data."""

    machine: str = ""
    precision: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: A value of `ObserverKind`; None for the target's choice.
    observer: str | None = None
    percentile: float = 99.99
    #: A value of `Coverage`: which ops become integer.
    coverage: str = "full"
    #: A value of `Effort`: how many recipes of quantisation are tried.
    effort: str = "default"
    #: What is decided for all of them (`gadl.passes.quant.recipe.Switches`); None leaves it to the search.
    fit_ranges: bool | None = None
    equalize: float | None = None
    rounding: str | None = None
    correct_bias: bool = True
    simplify: bool = True
    strict_placement: bool = False
    keep_tensors: bool = False
    self_check: bool = True
    #: False: layer by layer, from memory to memory (for comparison).
    groups: bool = True
    dump_ir: Path | None = None
    stop_after: str | None = None
    #: Search plans for so long: seconds as `60s`, or a number of measurements.
    tune: str | int | None = None
    #: Records of searches; without `tune` the best recorded plans are taken as they are.
    tuning_log: Path | str | None = None
    #: Of the search.
    seed: int = 0
    #: Processes that measure; 0 for one per core.
    jobs: int = 0


@dataclass(frozen=True)
class Artifact:
    """A compiled model: the file's bytes and the report that `gadlc --json` prints.

    `graph` is the placed graph, for tools that compare layer by layer; `segments` and `programs` are its device parts.
    """

    data: bytes
    report: dict[str, Any]
    graph: Graph
    float_graph: Graph
    target: Target
    segments: Sequence[Segment] = ()
    programs: Sequence[DeviceProgram] = ()

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all; the report then names it.

        A path that ends like the target's own containers gets one of these; `GADL-A014` where the device does not do everything.
        """
        data = self.data
        if is_native(Path(path), self.target):
            data = native_container(self.target, self.graph, self.segments, self.programs, self.report["model"])
        write_atomically(Path(path), data)
        self.report["artifact"] |= {"path": str(path), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class _Clock:
    """Seconds per stage."""

    def __init__(self, watch: Callable[[str], None]) -> None:
        self.stages: dict[str, float] = {}
        self._watch = watch

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._watch(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = round(self.stages.get(name, 0.0) + time.perf_counter() - start, 6)


def compile(  # noqa: A001  (the API's name)
    model: Any,
    target: str = "npu",
    machine: str = "",
    calibration: Iterable[Feeds] | None = None,
    *,
    warn: Callable[[Diagnostic], None] = lambda item: None,
    watch: Callable[[str], None] = lambda stage: None,
    progress: Callable[[Progress], None] = lambda now: None,
    **options: Any,
) -> Artifact:
    """Compile a model (path to `.onnx`, `.pt2` or `.gir`, an `onnx.ModelProto`, or a torch `ExportedProgram`).

    `calibration`: feeds by input name, needed for int8 and int16 unless the model brings its own scales. Other options are
    those of `CompileOptions`. `watch` hears of stages, `progress` of a search of plans. Raises `GadlError` with every problem
    found.
    """
    chosen = CompileOptions(machine=machine, **options)
    if chosen.stop_after is not None and chosen.stop_after not in PASS_NAMES:
        raise GadlError.of("GADL-U001", detail=f"--stop-after {chosen.stop_after}: the passes are {', '.join(PASS_NAMES)}")
    for name, kinds in (("observer", ObserverKind), ("coverage", Coverage), ("effort", Effort), ("rounding", RoundingKind)):
        given, known = getattr(chosen, name), [kind.value for kind in kinds]
        if given is not None and given not in known:
            raise GadlError.of("GADL-U001", detail=f"--{name} {given}: there are {', '.join(known)}")
    found = find_target(target)
    description = found.load_machine(chosen.machine or found.default_machine) if found.machines else None
    tuning = _tuning(chosen, model)
    clock = _Clock(watch)
    manager = PassManager(chosen.dump_ir, chosen.stop_after, chosen.dump_ir)
    with clock.stage("import"):
        graph = import_model(model, chosen, warn)
        manager.dump(graph, "import")
    samples = None if calibration is None else [dict(f) for f in calibration]
    float_graph, quant = graph, {"precision": (precision := _precision(found, chosen, graph)).value}
    if graph.stage is Stage.FLOAT:
        with clock.stage("simplify"):
            manager.run(graph, float_pipeline(found.residuals(description), _decomposed(found, description, precision, graph)))
        with clock.stage("quantize"), manager.guarded("quantize", graph):
            graph, details = _quantize(graph, found, description, precision, samples, chosen)
            quant |= details
        manager.run(graph, [Pass("quantize", lambda g: True)])
    with clock.stage("place"):
        if graph.stage is not Stage.PLACED:
            manager.run(graph, [Pass("partition", lambda g: partition(g, found.name, lambda op: _refusal(found, op, description)))])
        manager.run(graph, [Pass("choose_layouts", lambda g: choose_layouts(g, found.channels_last))])
        manager.run(graph, [Pass("recompute", lambda g: chosen.groups and found.streaming is not None and recompute(g, found.streaming(description)))])
        placement = _placement_report(graph, found, chosen)
    with clock.stage("plan" if tuning is None else "tune"), manager.guarded("plan", graph):
        everything = [v for op in graph.ops for v in op.results] if chosen.keep_tensors else graph.outputs
        segments = segments_of(graph.ops, everything)
        programs, tuned = _plan(found, description, segments, chosen.groups, tuning, warn, progress)
    golden = _golden_feeds(graph, samples)
    with clock.stage("interpret"):
        expected = interpret_values(graph, golden)
    with clock.stage("assemble"):
        outputs = {n: expected[v.name] for n, v in zip(graph.output_names, graph.outputs) if v.data is None}
        manifest = _manifest(found, description, graph, precision, placement)
        # With `keep_tensors`, a segment returns every tensor of its own.
        assembler = Assembler(graph, segments, programs, chosen.keep_tensors)
        data = assembler.build(manifest, pack_golden(golden, outputs), found.features if programs else Feature.NONE).to_bytes()
    report = _report(manifest, quant, placement, programs, data)
    if tuned is not None:
        report["tune"] = tuned
    if chosen.self_check:
        with clock.stage("self_check"):
            # A model that is all on the host needs no device.
            driver = found.driver if programs else "host"
            report["self_check"], counters = self_check(data, driver, golden, outputs, precision, exact_outputs(graph))
        add_counters(report, counters, description)
    add_estimate(report, programs, description)
    report["stages_s"] = clock.stages
    report["compile_s"] = round(sum(clock.stages.values()), 6)
    return Artifact(data, report, graph, float_graph, found, segments, programs)


def _tuning(options: CompileOptions, model: Any) -> TuneOptions | None:
    """What was asked of the tuner; its log is by default the model's name in the current folder."""
    if options.tune is None and options.tuning_log is None:
        return None
    if not options.groups:
        raise GadlError.of("GADL-U001", detail="tuned plans have groups: leave out no-groups, or the tuner")
    name = Path(model).stem if isinstance(model, (str, Path)) else "model"
    budget = None if options.tune is None else Budget.parse(options.tune)
    return TuneOptions(Path(options.tuning_log or f"{name}.tuning.jsonl"), budget, options.seed, options.jobs)


def _plan(
    found: Target, machine: Any, segments: list[Segment], groups: bool, tuning: TuneOptions | None,
    warn: Callable[[Diagnostic], None], progress: Callable[[Progress], None],
) -> tuple[list[DeviceProgram], dict[str, Any] | None]:  # fmt: skip
    """The programs of all segments, and the report of the tuner where there was one."""
    if found.backend is None or not segments:
        return [], None
    backend, space = found.backend(machine), found.space
    if tuning is not None and space is not None:
        tuned = compile_tuned(
            backend, lambda segment: space(machine, segment), segments, _version(), found.name, tuning, warn, progress
        )
        return tuned.programs, tuned.report
    if tuning is not None:
        warn(diagnostic("GADL-P013", "", Severity.WARNING, target=found.name))
    return [backend.compile(segment, groups=groups) for segment in segments], None


def import_model(model: Any, options: CompileOptions, warn: Callable[[Diagnostic], None]) -> Graph:
    """The float graph of a model file or object."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not path.is_file():
            raise GadlError.of("GADL-F001", path, path=path, detail="there is no such file")
        if path.suffix == ".gir":
            return load_gir(path)
        if path.suffix in (".pt2", ".pt"):
            from gadl.frontends.torch import import_torch

            return import_torch(path, options.shapes)
    elif type(model).__module__.startswith("torch"):
        from gadl.frontends.torch import import_torch

        return import_torch(model, options.shapes)
    from gadl.frontends.onnx import import_onnx

    return import_onnx(model, options.shapes, simplify=options.simplify, warn=warn)


def _precision(found: Target, options: CompileOptions, graph: Graph) -> Precision:
    """The precision asked for, or the target's first; a model with its own scales is int8."""
    name = options.precision or ("int8" if has_own_scales(graph) else found.precisions[0])
    if name not in found.precisions:
        raise GadlError.of("GADL-T002", target=found.name, precision=name, known=list(found.precisions))
    return Precision(name)


def _decomposed(found: Target, machine: Any, precision: Precision, graph: Graph) -> frozenset[str]:
    """Ops that the target has only in parts, whose ranges calibration will see."""
    if precision is not Precision.INT8 or found.quant_rules is None or has_own_scales(graph):
        return frozenset()
    return found.quant_rules(machine).decomposed


def _quantize(
    graph: Graph, found: Target, machine: Any, precision: Precision, samples: list[dict[str, Array]] | None,
    options: CompileOptions,
) -> tuple[Graph, dict[str, Any]]:  # fmt: skip
    """The graph in the precision's arithmetic, and what was decided."""
    summary: dict[str, Any] = {}
    if precision is Precision.FLOAT or found.quant_rules is None:
        return graph.clone(), summary
    if precision is Precision.FP16:
        return to_half(graph), summary
    rules = rules_for(found.quant_rules(machine), precision, Coverage(options.coverage))
    if has_own_scales(graph):
        made: Quantized = quantize_annotated(graph.clone(), rules)
    else:
        if not samples:
            raise GadlError.of("GADL-Q001")
        feeds = [check_feeds(graph, s) for s in samples]
        switches = Switches(
            None if options.observer is None else ObserverKind(options.observer), options.fit_ranges, options.equalize,
            None if options.rounding is None else RoundingKind(options.rounding), options.correct_bias,
        )  # fmt: skip
        made = Search(graph, rules, feeds, Effort(options.effort), switches, options.percentile).run()
        summary |= {"samples": len(samples)}
    return made.graph, summary | dict(made.report)


def _refusal(found: Target, op: Op, machine: Any) -> str | None:
    from gadl.compiler.diag.render import Language, current_language

    reason = found.refuse(op, machine)
    if reason is None:
        return None
    return reason.zh if current_language() is Language.ZH else reason.en


def _placement_report(graph: Graph, found: Target, options: CompileOptions) -> dict[str, Any]:
    """Counts per device and the reason of every op that stays on the host; `GADL-P002` for each under strict placement."""
    device = [op for op in graph.ops if op.placement is not None and op.placement.segment is not None]
    host = [op for op in graph.ops if op not in device]
    reasons = [
        {"op": op.name, "name": op.result.name, "where": str(op.loc), "reason": op.placement.reason if op.placement else ""}
        for op in host
        if op.name not in _BOUNDARY
    ]
    if options.strict_placement and found.backend is not None:
        GadlError.raise_if(
            diagnostic("GADL-P002", r["where"], op=r["op"], target=found.name, reason=r["reason"]) for r in reasons
        )
    return {found.name: len(device), "host": len(host), "reasons": reasons if found.backend is not None else []}


def _golden_feeds(graph: Graph, samples: list[dict[str, Array]] | None) -> dict[str, Array]:
    """One input: the first calibration sample, or seeded noise."""
    if samples:
        return check_feeds(graph, samples[0])
    rng = np.random.default_rng(0)
    feeds = {}
    for value in graph.inputs:
        data = rng.standard_normal(value.shape) if value.dtype.is_float else rng.integers(0, 2, value.shape)
        feeds[value.name] = np.asarray(data).astype(value.dtype.numpy)
    return feeds


def _manifest(found: Target, machine: Machine | None, graph: Graph, precision: Precision, placement: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of itself."""

    def io(name: str, value: Any) -> dict[str, Any]:
        return {"name": name, "dtype": value.dtype.value, "shape": list(value.shape)}

    return {
        "schema_version": SCHEMA_VERSION,
        "compiler": _version(),
        "model": graph.name,
        "target": found.name,
        "machine": machine.name if machine is not None else "",
        "clock_mhz": machine.clock_mhz if machine is not None else 0,
        "driver": found.driver,
        "status": found.status.en,
        "precision": precision.value,
        "inputs": [io(v.name, v) for v in graph.inputs],
        "outputs": [io(n, v) for n, v in zip(graph.output_names, graph.outputs)],
        "raw_outputs": {name: value.name for name, value in raw_outputs(graph).items()},
        "placement": {k: v for k, v in placement.items() if k != "reasons"},
    }


def _version() -> str:
    import gadl

    return gadl.__version__


def _report(
    manifest: Mapping[str, Any], quant: dict[str, Any], placement: dict[str, Any], programs: list[DeviceProgram], data: bytes
) -> dict[str, Any]:
    """The report without measured numbers."""
    parts = {key: [program.report.get(key, 0) for program in programs] for key in REPORTED} if programs else {}
    total = {key: max(numbers) if key == "sram_peak_bytes" else sum(numbers) for key, numbers in parts.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "model": manifest["model"],
        "target": manifest["target"],
        "machine": manifest["machine"],
        "status": manifest["status"],
        "placement": placement,
        "quant": quant,
        "plan": total,
        "latency_us": None,
        "artifact": {"path": None, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
    }
