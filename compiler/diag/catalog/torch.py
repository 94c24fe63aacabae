# SPDX-License-Identifier: Apache-2.0
"""GADL-F01x: reading programs of torch.export."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry(
        "GADL-F010",
        Text("reading a torch program needs PyTorch: {detail}", "读取 torch 程序需要 PyTorch：{detail}"),
        fix=Text("pip install 'opengadl[torch]'", "pip install 'opengadl[torch]'"),
        exit_code=2,
    ),
    Entry(
        "GADL-F011",
        Text("{path} holds {what}", "{path} 中含有 {what}"),
        why=Text("loading it could run code from the file", "加载它可能执行文件中的代码"),
        fix=Text(
            "save it again with torch.export.save; weights must be plain tensors, inputs and results tuples, lists or dicts",
            "用 torch.export.save 重新保存；权重须为普通张量，输入输出须为元组、列表或字典",
        ),
    ),
    Entry(
        "GADL-F012",
        Text("{op} is not supported", "不支持算子 {op}"),
        why=Text("{detail}", "{detail}"),
        fix=Text(
            "rewrite that line of the model with supported ops (`gadl targets --ops`)",
            "用已支持的算子改写模型中的这一行（`gadl targets --ops`）",
        ),
    ),
    Entry(
        "GADL-F013",
        Text("the program is not a pure function of its inputs: {detail}", "该程序不是输入的纯函数：{detail}"),
        fix=Text(
            "call model.eval() and return new tensors instead of writing into buffers or inputs, then export again",
            "先调用 model.eval()，返回新张量而不要改写缓冲区或输入，然后重新导出",
        ),
    ),
    Entry(
        "GADL-F014",
        Text(
            "torch could not lower the program to core ATen ops: {detail}",
            "torch 无法把该程序分解为核心 ATen 算子：{detail}",
        ),
        fix=Text("export it again with the installed torch version", "用当前安装的 torch 版本重新导出"),
    ),
    Entry(
        "GADL-F015",
        Text(
            "{value} is not an input or output that a compiled model can have: {detail}",
            "{value} 不能作为编译后模型的输入或输出：{detail}",
        ),
        fix=Text(
            "pass and return tensors only; make other arguments constants of the model",
            "只传入和返回张量；其余参数请写成模型内的常量",
        ),
    ),
)
