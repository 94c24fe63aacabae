# SPDX-License-Identifier: Apache-2.0
"""Single convolutions: the planner's best tile, simulated, beside the best mapping that ZigZag finds for the same layer.

    python -m venv zz && zz/bin/pip install zigzag-dse==3.9.1 six
    python benchmarks/single_layers.py --zigzag zz/bin/python [--limit 6]

ZigZag runs in an interpreter of its own and is no part of this project. Both get `edge` as far as the two models agree: 4 x 16 x 16
products a cycle, 32 KiB of accumulators, 512 KiB of SRAM without contention, 8 B/cycle of DRAM without latency. ZigZag searches
twice, for latency and for DRAM bytes; "its DRAM" is the bytes of its fastest mapping at the full rate, and the ratio is to the larger
of the two, because some of its latencies are below that. The last column is the layer planned for and simulated on `edge` as it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Name, rows, columns, input channels, output channels, kernel.
LAYERS = [
    ("ResNet-50 3x3", 56, 56, 64, 64, 3),
    ("ResNet-50 1x1", 56, 56, 64, 256, 1),
    ("ResNet-50 1x1", 56, 56, 256, 64, 1),
    ("ResNet-50 3x3", 28, 28, 128, 128, 3),
    ("ResNet-50 1x1", 28, 28, 512, 128, 1),
    ("ResNet-50 3x3", 14, 14, 256, 256, 3),
    ("ResNet-50 1x1", 14, 14, 1024, 256, 1),
    ("ResNet-50 1x1", 14, 14, 256, 1024, 1),
    ("MobileNetV2 1x1", 112, 112, 32, 16, 1),
    ("MobileNetV2 1x1", 28, 28, 32, 192, 1),
    ("MobileNetV2 1x1", 14, 14, 64, 384, 1),
    ("MobileNetV2 1x1", 14, 14, 384, 64, 1),
]
ARRAY, ACC_KIB, SRAM_KIB, RATE = (4, 16, 16), 32, 512, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zigzag", help="an interpreter with zigzag-dse")
    parser.add_argument("--limit", type=int, default=6, help="ZigZag's limit of loops per layer")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        print(json.dumps([[mapped(layer, goal, options.limit) for goal in ("latency", "energy")] for layer in LAYERS]))
        return
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    best: list[Any] = [[None, None]] * len(LAYERS)
    if options.zigzag:
        command = [options.zigzag, __file__, "--search", "--limit", str(options.limit)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        best = json.loads(ran.stdout.splitlines()[-1])
    heads = ["layer", "rows x columns", "channels", "array", "ZigZag's", "DRAM KB", "least of ZigZag", "ratio", "cycles", "ZigZag", "its DRAM",
             "ratio", "on edge"]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for layer, (fast, lean) in zip(LAYERS, best, strict=True):
        ours = planned(layer)
        array, least, traffic, cycles, dram, ratio = ["–"] * 6
        if fast and lean:
            moving = fast["bytes"] / RATE
            array, least, traffic = f"{fast['array']:,.0f}", f"{lean['bytes'] / 1e3:.1f}", f"{ours['bytes'] / lean['bytes']:.2f}"
            cycles, dram, ratio = f"{fast['cycles']:,.0f}", f"{moving:,.0f}", f"{ours['cycles'] / max(fast['cycles'], moving):.3f}"
        cells = [
            layer[0], f"{layer[1]} x {layer[2]}", f"{layer[3]} → {layer[4]}", f"{ours['array']:,.0f}", array, f"{ours['bytes'] / 1e3:.1f}",
            least, traffic, f"{ours['cycles']:,.0f}", cycles, dram, ratio, f"{ours['edge']:,.0f}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)


def planned(layer: tuple[str, int, int, int, int, int]) -> dict[str, float]:
    """The layer by itself: planned for the idealised machine and simulated there, and planned for and simulated on `edge`."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper
    from tests.targets.npu.programs import placed

    from gadl.frontends.onnx import import_onnx
    from gadl.targets.base import segments_of
    from gadl.targets.npu import _sim
    from gadl.targets.npu.backend import DRAFTS, NpuBackend
    from gadl.targets.npu.costs import Costs
    from gadl.targets.npu.layers import layers_of
    from gadl.targets.npu.machine import load_machine, parse_machine
    from gadl.targets.npu.planner import Planner

    _, rows, columns, ic, oc, kernel = layer
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(s, np.float32), n) for n, s in (("w", (oc, ic, kernel, kernel)), ("b", (oc,)))]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, rows, columns]) for n, c in (("x", ic), ("y", oc)))
    model = helper.make_model(helper.make_graph([node], "layer", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    sample = {"x": rng.standard_normal((1, ic, rows, columns), np.float32)}
    made = placed(import_onnx(model, {}, simplify=True, warn=lambda item: None), [sample])
    (conv,) = (op for op in made.ops if op.name == "conv")
    (segment,) = segments_of([conv], [conv.result])
    ideal = parse_machine({
        "machine": {"name": "edge-without-latency", "clock_mhz": 1000},
        "mma": {"shape": list(ARRAY), "issue": 0, "fill": 0, "acc_kib": ACC_KIB, "epi_lanes": 4096},
        "sram": {"kib": SRAM_KIB, "banks": 256, "bank_bytes": 256, "latency": 0},
        "dma": {"issue": 0, "max_outstanding": 1024},
        "dram": {"bytes_per_cycle": RATE, "eff": 1.0, "burst": 1, "latency_rd": 0, "latency_wr": 0, "page_miss": 0},
        "cmd": {"fetch_bytes_per_cycle": 4096.0},
    })  # fmt: skip
    found: dict[str, float] = {}
    for machine in (ideal, load_machine("edge")):
        plan = Planner(Costs(machine), int(machine.sram_bytes * DRAFTS[0][0])).plan(layers_of(segment))
        program = NpuBackend(machine).compile(segment, plan)
        counted = _sim.simulate(program.code, {}, functional=False)
        if machine is ideal:
            found = {"array": program.report["geometric_cycles"], "cycles": counted["cycles"], "bytes": counted["dram_read_bytes"] + counted["dram_write_bytes"]}
        else:
            found["edge"] = counted["cycles"]
    return found


def memory(kib: float, operands: list[str], ports: list[list[str]], width: int, cost: float = 0.0) -> dict[str, Any]:
    """A memory of ZigZag. A port is its kind, then what it serves: fh, tl, fl, th are to and from the level above and below."""
    counts: dict[str, int] = {}
    made = []
    for kind, *served in ports:
        counts[kind] = counts.get(kind, 0) + 1
        short = {"read": "r", "write": "w", "read_write": "rw"}[kind]
        made.append({"name": f"{short}_port_{counts[kind]}", "type": kind, "bandwidth_min": 8, "bandwidth_max": width, "allocation": served})
    return {
        "size": int(kib * 8192), "r_cost": cost, "w_cost": cost, "area": 0, "latency": 1, "operands": operands, "ports": made,
        "served_dimensions": ["D1", "D2", "D3"],
    }  # fmt: skip


def mapped(layer: tuple[str, int, int, int, int, int], goal: str, limit: int) -> dict[str, float] | None:
    """ZigZag's best mapping, or None where it ends in an error. Only DRAM costs energy, one unit a byte: the least is the least traffic."""
    import yaml
    from zigzag.api import get_hardware_performance_zigzag
    from zigzag.opt.loma.engine import NoValidLoopOrderingFoundException

    logging.disable(logging.CRITICAL)
    wide = 1 << 20
    memories = {
        "acc": memory(ACC_KIB, ["O"], [["read", "O, tl"], ["read", "O, th"], ["write", "O, fh"], ["write", "O, fl"]], wide),
        "sram": memory(
            SRAM_KIB, ["I1", "I2", "O"],
            [["read", "I1, tl"], ["read", "I2, tl"], ["read", "O, tl"], ["read", "O, th"],
             ["write", "I1, fh"], ["write", "I2, fh"], ["write", "O, fh"], ["write", "O, fl"]], wide,
        ),
        "dram": memory(
            1 << 20, ["I1", "I2", "O"],
            [["read_write", "I1, fh", "I1, tl", "I2, fh", "I2, tl", "O, fh", "O, tl", "O, fl", "O, th"]], RATE * 8, RATE,
        ),
    }  # fmt: skip
    array = {"input_precision": [8, 8], "unit_energy": 0, "unit_area": 1, "dimensions": ["D1", "D2", "D3"], "sizes": list(ARRAY)}
    unrolled = {"D1": ["OX, 2", "OY, 2"], "D2": [f"K, {ARRAY[1]}"], "D3": [f"C, {ARRAY[2]}"]}
    _, rows, columns, ic, oc, kernel = layer
    workload = {
        "id": 0, "name": "layer", "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
        "loop_dims": ["B", "K", "G", "OX", "OY", "C", "FX", "FY"], "loop_sizes": [1, oc, 1, columns, rows, ic, kernel, kernel],
        "operand_precision": {"W": 8, "I": 8, "O": 32, "O_final": 8}, "operand_source": {"I": 0, "W": 0},
        "pr_loop_dims": ["IX", "IY"], "pr_loop_sizes": [columns, rows], "padding": [[kernel // 2] * 2] * 2,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, data in (
            ("machine", {"name": "edge", "memories": memories, "operational_array": array}),
            ("mapping", [{"name": "default", "spatial_mapping": unrolled, "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"}}]),
        ):
            paths.append(f"{folder}/{name}.yaml")
            Path(paths[-1]).write_text(yaml.safe_dump(data, sort_keys=False))
        try:
            energy, _, found = get_hardware_performance_zigzag(
                [workload], *paths, opt=goal, dump_folder=f"{folder}/out", lpf_limit=limit, loma_show_progress_bar=False
            )
        except (NoValidLoopOrderingFoundException, AssertionError):
            return None
    model = found[0][0]
    assert math.isclose(model.ideal_temporal_cycle * math.prod(ARRAY), math.prod(workload["loop_sizes"]))
    return {"array": model.ideal_temporal_cycle, "cycles": model.latency_total2, "bytes": energy}


if __name__ == "__main__":
    main()
