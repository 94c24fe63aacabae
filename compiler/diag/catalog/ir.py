# SPDX-License-Identifier: Apache-2.0
"""GADL-I: the intermediate representation."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry("GADL-I001", Text("the graph is not valid: {detail}", "计算图无效：{detail}"), exit_code=70),
    Entry(
        "GADL-I002",
        Text("{path} is not valid .gir text: {detail}", "{path} 不是有效的 .gir 文本：{detail}"),
        fix=Text("see docs/ir.md for the grammar; .gir files come from --dump-ir", "语法见 docs/ir.md；.gir 文件由 --dump-ir 产生"),
    ),
    Entry(
        "GADL-I010",
        Text("input '{name}': {detail}", "输入 '{name}'：{detail}"),
        fix=Text("feed every input once, with its own name and shape", "每个输入给一次，名称和形状与模型一致"),
        exit_code=2,
    ),
    Entry(
        "GADL-I070",
        Text("pass '{name}' failed: {detail}", "编译步骤 '{name}' 失败：{detail}"),
        now=Text("the graph before the pass was written to {reproducer}", "该步骤之前的计算图已写入 {reproducer}"),
        fix=Text("report it with that file", "请附上该文件进行反馈"),
        exit_code=70,
    ),
)
