# SPDX-License-Identifier: Apache-2.0
"""Words of page and table, in both languages from one table."""

from __future__ import annotations

from gadl.compiler.diag import Language, current_language
from gadl.compiler.diag.catalog import Text

_TEXTS = {
    "title": Text("Performance report", "性能报告"),
    "cycles": Text("Cycles", "周期"),
    "latency": Text("Latency", "时延"),
    "of_limit": Text("Of the physical limit", "达到物理极限"),
    "limited_by": Text("Limited by", "受限于"),
    "dram": Text("DRAM traffic", "DRAM 流量"),
    "least": Text("least", "下限"),
    "mac": Text("MAC utilisation", "MAC 利用率"),
    "sram_peak": Text("SRAM peak", "SRAM 峰值"),
    "agreement": Text("Prediction L0", "预测 L0"),
    "estimate": Text("Planner's estimate", "规划器估计"),
    "agreement_note": Text("median error, layers", "各层误差中位数"),
    "rank": Text("rank correlation", "秩相关系数"),
    "where": Text("Where the cycles go", "周期去向"),
    "timeline": Text("Timeline", "时间线"),
    "timeline_note": Text(
        "wheel: zoom · drag: move · double click: all · click a block: its layer", "滚轮缩放 · 拖动平移 · 双击复位 · 点击色块定位到层"
    ),
    "bucketed": Text(
        "Blocks too narrow to see are drawn as one, in the colour of the layer with most of it; trace.json has every instruction.",
        "过窄的色块已合并，颜色取其中占时最多的层；trace.json 含全部指令。",
    ),
    "sram": Text("SRAM over time", "SRAM 占用"),
    "groups": Text("Groups and layers", "分组与各层"),
    "expand": Text("Open all", "全部展开"),
    "collapse": Text("Close all", "全部折叠"),
    "filter": Text("filter layers", "筛选层"),
    "in_order": Text("In order", "按顺序"),
    "by_cycles": Text("By cycles", "按周期"),
    "roofline": Text("Roofline", "屋顶线"),
    "intensity": Text("MACs per DRAM byte", "每 DRAM 字节的 MAC 数"),
    "rate": Text("MACs per cycle", "每周期 MAC 数"),
    "host": Text("Operators on the host", "主机上运行的算子"),
    "host_none": Text("None, apart from conversions at the border.", "除边界处的转换外，没有算子在主机上运行。"),
    "no_device": Text("There is no device program to simulate.", "没有可模拟的设备程序。"),
    "reason": Text("Reason", "原因"),
    "op": Text("Op", "算子"),
    "name": Text("Name", "名称"),
    "source": Text("Source", "来源"),
    "group": Text("Group", "组"),
    "layer": Text("Layer", "层"),
    "layers": Text("layers", "层"),
    "groups_only": Text("groups", "组"),
    "median": Text("median error", "误差中位数"),
    "one_layer": Text("layer", "层"),
    "iterations": Text("iterations", "次迭代"),
    "rows": Text("rows", "行"),
    "channels": Text("channels", "通道"),
    "share": Text("Share", "占比"),
    "measured": Text("Measured", "实测"),
    "predicted": Text("Predicted", "预测"),
    "error": Text("Error", "误差"),
    "bound": Text("Of limit", "达极限"),
    "bytes": Text("DRAM", "DRAM"),
    "macs": Text("MAC %", "MAC %"),
    "steps": Text("steps", "步"),
    "total": Text("Total", "合计"),
    "address": Text("Address", "地址"),
    "left_out": Text("steps beyond the first million are not in the trace", "步超出前一百万，未记录"),
    "spent.array": Text("array works", "阵列计算"),
    "spent.banks": Text("slowed by SRAM banks", "SRAM 存储体冲突"),
    "spent.drain": Text("drain", "累加器排空"),
    "spent.vector": Text("vector unit", "向量单元"),
    "spent.dram": Text("waits for DRAM", "等待 DRAM"),
    "spent.waiting": Text("nothing works", "空等"),
    "work.array": Text("array", "阵列"),
    "work.drain": Text("drain", "排空"),
    "work.vector": Text("vector", "向量"),
    "work.dram": Text("DRAM", "DRAM"),
    "limit.mma": Text("array", "阵列"),
    "limit.drain": Text("drain", "排空"),
    "limit.vector": Text("vector", "向量"),
    "limit.dram": Text("DRAM", "DRAM"),
    "limit.sram banks": Text("SRAM banks", "SRAM 存储体"),
    "limit.waiting": Text("waiting", "等待"),
    "limit.hidden": Text("hidden", "已隐藏"),
    "verdict.mma": Text("The product array is at work most of the time.", "乘加阵列大部分时间在工作。"),
    "verdict.drain": Text("Draining accumulators takes most of the time.", "累加器排空占用大部分时间。"),
    "verdict.vector": Text("The vector unit is at work most of the time.", "向量单元大部分时间在工作。"),
    "verdict.dram": Text("DRAM bandwidth limits this model.", "DRAM 带宽是瓶颈。"),
    "verdict.sram banks": Text("Units slow each other down on the banks of SRAM.", "各单元在 SRAM 存储体上互相拖慢。"),
    "verdict.waiting": Text("Latency and waits between queues take most of the time.", "时延与队列间等待占用大部分时间。"),
    "verdict.hidden": Text("The device does nothing.", "设备没有工作。"),
    "heaviest": Text("Heaviest", "最重的部分"),
    "of_cycles": Text("of the cycles, limited by", "的周期，受限于"),
    "notes": Text("How to read this", "说明"),
    "note.measured": Text(
        "Measured (L1): the event simulation. Every cycle belongs to one layer and one cause: the first unit at work among array, "
        "drain and vector unit; a cycle in which none of them works belongs to the layer that computes next, which waits for DRAM if "
        "a transfer is under way. Transfers of a layer that only moves data are its computation. Layers sum to groups, groups to the run.",
        "实测（L1）：事件模拟。每个周期只归于一层和一个原因，按阵列、排空、向量单元的次序取第一个在工作的；三者都不工作的周期归于随后开始计算的层，"
        "若有传输在进行则记为等待 DRAM。只搬运数据的层，其传输即其计算。各层之和为组，各组之和为总周期。",
    ),
    "note.predicted": Text(
        "Predicted (L0): the program's timeline by the analytic model, which evaluates each instruction once with the formulas of the "
        "simulation: queues in order, waits, memory of one rate that serves in the order of starts, no contention for SRAM banks between "
        "units. It is divided among layers as the measured run is. The planner's estimate is made before there is a program, from the plan.",
        "预测（L0）：程序在解析模型下的时间线，每条指令按模拟所用的公式只计算一次：队列顺序执行、等待、按开始次序服务的单一速率内存，不计单元之间的 SRAM "
        "存储体冲突；按与实测相同的规则分摊到各层。规划器估计则只依据规划方案，在生成程序之前作出。",
    ),
    "note.bound": Text(
        "Of limit: LBgeo over measured. LBgeo are cycles that no schedule avoids on this machine: products in whole tiles, vector operations, or the least DRAM "
        "traffic (weights once; a tensor only where it enters or leaves the segment). A layer whose transfers lie behind the work of others can be below its own limit; "
        "the model cannot.",
        "达极限：LBgeo 与实测之比。LBgeo 是此机器上任何调度都无法避免的周期，取整块乘加、向量运算、最少 DRAM 流量（权重一次；张量只在进出段时计）之最大值。"
        "若一层的传输被其他层的计算掩盖，该层可低于自身极限；整个模型则不能。",
    ),
    "note.limit": Text(
        "Limited by: the resource at work for 60 % of the cycles or more; if none is, what most cycles went to. Hidden: done behind the work "
        "of others.",
        "受限于：工作时间占六成以上的资源；若无，则取周期最多的去向。已隐藏：全部在其他层工作时完成。",
    ),
    "note.simulated": Text(
        "Cycles are those of a simulated machine; no silicon stands behind them.", "周期来自模拟的机器，并无对应芯片。"
    ),
}  # fmt: skip


def labels(language: Language | None = None) -> dict[str, str]:
    """Every word in one language, by key; the current one by default."""
    chinese = (language or current_language()) is Language.ZH
    return {key: text.zh if chinese else text.en for key, text in _TEXTS.items()}
