# SPDX-License-Identifier: Apache-2.0
"""GADL-F: reading models."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry(
        "GADL-F001",
        Text("{path} cannot be read as a model: {detail}", "{path} 不能作为模型读取：{detail}"),
        fix=Text("check that the file is complete, or export the model again", "检查文件是否完整，或重新导出模型"),
    ),
    Entry(
        "GADL-F002",
        Text("{op} (opset {opset}) is not supported", "不支持算子 {op}（opset {opset}）"),
        why=Text("{detail}", "{detail}"),
        fix=Text("re-export without it, or rewrite the node with supported ops (`gadl targets --ops`)",
                 "导出时避开该算子，或改写为已支持的算子（`gadl targets --ops`）"),
    ),
    Entry(
        "GADL-F003",
        Text("input '{name}' has the open dimension '{dim}' in {shape}", "输入 '{name}' 的维度 '{dim}' 未定，形状为 {shape}"),
        why=Text("plans are made for static shapes", "编译计划需要静态形状"),
        fix=Text("fix it with --shape {name}:{example}", "用 --shape {name}:{example} 指定"),
    ),
    Entry(
        "GADL-F004",
        Text("onnxsim could not simplify the model: {detail}", "onnxsim 化简失败：{detail}"),
        now=Text("what the model itself needs is reported", "按原模型报告问题"),
    ),
    Entry(
        "GADL-F005",
        Text("{op} is not valid: {detail}", "算子 {op} 无效：{detail}"),
        fix=Text("check the node with onnx.checker, or export the model again", "用 onnx.checker 检查该节点，或重新导出模型"),
    ),
    Entry(
        "GADL-F006",
        Text("--shape names '{name}', which is not an input (inputs: {inputs})", "--shape 中的 '{name}' 不是模型输入（输入有：{inputs}）"),
        exit_code=2,
    ),
    Entry(
        "GADL-F007",
        Text("input '{name}' cannot be used: {detail}", "输入 '{name}' 无法使用：{detail}"),
        fix=Text("correct --shape, or export the model again with other inputs", "更正 --shape，或以其他输入重新导出模型"),
    ),
    Entry(
        "GADL-F008",
        Text("the model has opset {opset}; {oldest} is the oldest that can be read", "模型的 opset 为 {opset}，最低支持 {oldest}"),
        why=Text("older opsets broadcast by attributes", "更早的 opset 用属性表示广播"),
        fix=Text("export the model again, or convert it with onnx.version_converter", "重新导出模型，或用 onnx.version_converter 转换"),
    ),
)
