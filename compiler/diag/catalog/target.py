# SPDX-License-Identifier: Apache-2.0
"""GADL-T: targets and machines. GADL-P: placement and planning."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry(
        "GADL-T001",
        Text("there is no target '{name}'", "没有名为 '{name}' 的目标"),
        fix=Text("choose one of: {known}", "可选目标：{known}"),
        exit_code=2,
    ),
    Entry(
        "GADL-T002",
        Text("target '{target}' has no precision '{precision}'", "目标 '{target}' 不支持精度 '{precision}'"),
        fix=Text("choose one of: {known}", "可选精度：{known}"),
        exit_code=2,
    ),
    Entry(
        "GADL-T003",
        Text("target '{name}' of an installed package cannot be used: {detail}", "已安装的软件包中的目标 '{name}' 无法使用：{detail}"),
        fix=Text("mend that package, or uninstall it", "修复或卸载该软件包"),
        exit_code=2,
    ),
    Entry(
        "GADL-T010",
        Text("there is no machine '{name}'", "没有名为 '{name}' 的机器"),
        fix=Text("choose one of: {known}, or give a .toml file", "可选机器：{known}，或给出 .toml 文件"),
        exit_code=2,
    ),
    Entry("GADL-T011", Text("the machine file cannot be read: {detail}", "机器描述文件无法读取：{detail}"), exit_code=2),
    Entry("GADL-T012", Text("unknown key '{key}' in the machine file", "机器描述文件中有未知的键 '{key}'"), exit_code=2),
    Entry("GADL-T013", Text("the machine file lacks '{key}'", "机器描述文件缺少 '{key}'"), exit_code=2),
    Entry(
        "GADL-T014",
        Text("'{key}' = {value} is not allowed", "'{key}' = {value} 不允许"),
        fix=Text("allowed: {allowed}", "允许：{allowed}"),
        exit_code=2,
    ),
    Entry(
        "GADL-P001",
        Text("layer '{layer}' does not fit into {memory}: {needed} bytes needed, {capacity} there",
             "层 '{layer}' 放不进 {memory}：需要 {needed} 字节，只有 {capacity} 字节"),
        why=Text("its smallest tile is larger than the memory", "最小的分块也大于该存储器"),
        fix=Text("choose a machine with more on-chip memory (--machine), or reduce the layer's width",
                 "选用片上存储更大的机器（--machine），或减小该层宽度"),
    ),
    Entry(
        "GADL-P002",
        Text("{op} cannot run on target '{target}'", "{op} 不能在目标 '{target}' 上运行"),
        why=Text("{reason}", "{reason}"),
        now=Text("it runs on the host", "该算子在主机 CPU 上运行"),
        fix=Text("change the node as the reason says, or drop --strict-placement to accept host ops",
                 "按原因修改该节点，或去掉 --strict-placement 以接受主机算子"),
        exit_code=1,
    ),
    Entry(
        "GADL-P003",
        Text("the simulator and the interpreter differ on '{tensor}': {count} elements", "模拟器与解释器在 '{tensor}' 上不一致：{count} 个元素"),
        why=Text("this is a bug of the compiler, not of the model", "这是编译器的缺陷，不是模型的问题"),
        fix=Text("report it with the files that --dump-ir writes", "请附上 --dump-ir 写出的文件进行反馈"),
        exit_code=70,
    ),
    Entry(
        "GADL-P004",
        Text("the simulated time of {cycles} cycles is below the physical limit of {bound}", "模拟时间 {cycles} 周期低于物理下限 {bound}"),
        why=Text("this is a bug of the simulator", "这是模拟器的缺陷"),
        exit_code=70,
    ),
    Entry(
        "GADL-P005",
        Text("the program needs {count} commands on one engine; a command section holds {most}",
             "程序在一个引擎上需要 {count} 条命令，而一个命令段只能容纳 {most} 条"),
        fix=Text("divide the model, or choose a chip with more lanes", "请拆分模型，或选择 lane 更多的芯片"),
        exit_code=3,
    ),
    Entry(
        "GADL-P010",
        Text("the line is no record of a tuning log: {detail}", "该行不是调优日志的记录：{detail}"),
        now=Text("it is skipped", "该行被跳过"),
        fix=Text("delete the line, or restore the file", "删除该行，或恢复该文件"),
    ),
    Entry(
        "GADL-P011",
        Text("the tuning log has no plan for device segment {segment}", "调优日志中没有设备段 {segment} 的计划"),
        why=Text("no record of target '{target}', this machine, this graph and compiler {compiler}", "没有与目标 '{target}'、该机器、该图及编译器 {compiler} 相符的记录"),
        now=Text("it runs with the default plan", "该段使用默认计划"),
        fix=Text("run with --tune to add records", "用 --tune 运行以添加记录"),
    ),
    Entry(
        "GADL-P012",
        Text("the tuning log's plan {plan} cannot be used for device segment {segment}: {detail}", "调优日志中的计划 {plan} 不能用于设备段 {segment}：{detail}"),
        now=Text("it runs with the next best plan of the log, or the default plan", "该段使用日志中的次优计划或默认计划"),
        fix=Text("run with --tune to replace the record", "用 --tune 运行以更新记录"),
    ),
    Entry(
        "GADL-P013",
        Text("target '{target}' has no plans to tune or replay", "目标 '{target}' 没有可调优或重放的计划"),
        now=Text("the model is compiled as without a tuning log", "按没有调优日志的方式编译"),
    ),
)
