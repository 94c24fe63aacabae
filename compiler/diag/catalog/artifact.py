# SPDX-License-Identifier: Apache-2.0
"""GADL-A: artefacts. GADL-R: the runtime. GADL-U: usage."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry(
        "GADL-A001",
        Text("the artefact cannot be read: {detail}", "无法读取编译产物：{detail}"),
        fix=Text("compile the model again with gadlc", "请用 gadlc 重新编译模型"),
    ),
    Entry(
        "GADL-A002",
        Text("the artefact has ABI {file}, this runtime reads up to {runtime}", "编译产物的 ABI 为 {file}，当前运行时最高支持 {runtime}"),
        fix=Text("update the runtime (pip install -U opengadl), or compile with the older gadlc",
                 "升级运行时（pip install -U opengadl），或用旧版 gadlc 编译"),
    ),
    Entry(
        "GADL-A003",
        Text("the artefact needs features {features} that this version does not know", "编译产物需要当前版本不支持的特性 {features}"),
        fix=Text("update the runtime (pip install -U opengadl)", "升级运行时（pip install -U opengadl）"),
    ),
    Entry(
        "GADL-A010",
        Text("the .cvimodel cannot be read: {detail}", "无法读取 .cvimodel：{detail}"),
        fix=Text("compile the model again, or copy the file again", "请重新编译模型，或重新复制该文件"),
    ),
    Entry(
        "GADL-A011",
        Text("the commands of section '{section}' cannot be read: {detail}", "无法读取段 '{section}' 中的命令：{detail}"),
    ),
    Entry(
        "GADL-A012",
        Text("the PMU dump cannot be read: {detail}", "无法读取 PMU 转储：{detail}"),
        fix=Text("give the file NAME_des.csv that the runtime writes with TPU_PMUBUF_OUTPUT_FILE=NAME (docs/board-cv18xx.md)",
                 "请给出运行时按 TPU_PMUBUF_OUTPUT_FILE=NAME 写出的 NAME_des.csv（docs/board-cv18xx.zh-CN.md）"),
    ),
    Entry(
        "GADL-A013",
        Text("the PMU dump is not of this model: {detail}", "PMU 转储不属于该模型：{detail}"),
        fix=Text("give the model that ran on the board", "请给出在开发板上运行的那个模型"),
    ),
    Entry(
        "GADL-A014",
        Text("not all of the model is on the device, so it fits no bare {suffix} file: {detail}",
             "模型并非全部在设备上运行，无法写成单独的 {suffix} 文件：{detail}"),
        fix=Text("write a .gadl artefact, which holds the host's part too", "请写出 .gadl 产物，其中也包含主机部分"),
        exit_code=3,
    ),
    Entry(
        "GADL-R001",
        Text("the runtime reports: {detail}", "运行时报告：{detail}"),
        exit_code=4,
    ),
    Entry(
        "GADL-R002",
        Text("device '{device}' is not available; the artefact needs '{driver}'", "设备 '{device}' 不可用；该产物需要 '{driver}'"),
        exit_code=4,
    ),
    Entry("GADL-R003", Text("the extension module is not built", "扩展模块尚未编译"),
          fix=Text("pip install -e . in the checkout", "在源码目录执行 pip install -e ."), exit_code=4),
    Entry("GADL-U001", Text("{detail}", "{detail}"), exit_code=2),
    Entry(
        "GADL-U002",
        Text("{path} is not a usable input file: {detail}", "{path} 不是可用的输入文件：{detail}"),
        fix=Text("give an .npz with one array per input of the model", "请给出 .npz，每个模型输入对应一个数组"),
        exit_code=2,
    ),
    Entry("GADL-U003", Text("there is no code {name}", "没有代码 {name}"), exit_code=2),
    Entry(
        "GADL-U004",
        Text("the tuning log {path} cannot be used: {detail}", "调优日志 {path} 无法使用：{detail}"),
        fix=Text("give --tuning-log a file in a folder that can be written", "为 --tuning-log 指定可写目录中的文件"),
        exit_code=2,
    ),
    Entry(
        "GADL-U070",
        Text("internal error: {detail}", "内部错误：{detail}"),
        fix=Text("run again with --debug and report the output", "加 --debug 重新运行并反馈输出"),
        exit_code=70,
    ),
)
