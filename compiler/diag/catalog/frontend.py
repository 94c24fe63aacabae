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
        now=Text("the model is imported as it is", "按原模型继续导入"),
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
)
