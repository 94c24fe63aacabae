# SPDX-License-Identifier: Apache-2.0
"""GADL-R01…: devices that run in a process of their own, and the software that they need."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry(
        "GADL-R010",
        Text("the process of device '{device}' ended: {how}", "设备 '{device}' 的进程已终止：{how}"),
        why=Text("its last output: {output}", "其最后输出：{output}"),
        exit_code=4,
    ),
    Entry(
        "GADL-R011",
        Text("device '{device}' gave no answer within {seconds} s", "设备 '{device}' 在 {seconds} 秒内没有响应"),
        why=Text("its last output: {output}", "其最后输出：{output}"),
        fix=Text("a longer limit with --timeout; a program that waits for itself never ends",
                 "用 --timeout 延长时限；互相等待的程序永远不会结束"),
        exit_code=4,
    ),
    Entry(
        "GADL-R012",
        Text("device '{device}' is not set up: no {files} in {folder}", "设备 '{device}' 尚未就绪：{folder} 中没有 {files}"),
        fix=Text("gadl targets setup {family}", "执行 gadl targets setup {family}"),
        exit_code=4,
    ),
    Entry(
        "GADL-R013",
        Text("the vendor's functional model exists for Linux x86_64 only, this is {machine}",
             "厂商的功能模型仅支持 Linux x86_64，当前为 {machine}"),
        fix=Text("compiling needs none of it; run the model on the board, or set up another machine",
                 "编译不需要它；请在开发板上运行，或换一台机器"),
        exit_code=4,
    ),
    Entry(
        "GADL-R014",
        Text("{package} could not be fetched: {detail}", "无法获取 {package}：{detail}"),
        fix=Text("connect to a package index, or let {variable} name a file of that wheel", "请连接软件包索引，或用 {variable} 指定该 wheel 文件"),
        exit_code=4,
    ),
    Entry(
        "GADL-R015",
        Text("the wheel is not the pinned one: sha256 {found}, expected {expected}", "wheel 与固定版本不符：sha256 为 {found}，应为 {expected}"),
        fix=Text("delete the file and fetch it again", "删除该文件后重新获取"),
        exit_code=4,
    ),
    Entry(
        "GADL-R016",
        Text("there is nothing to set up for '{name}'; known: {known}", "'{name}' 无需安装；可选：{known}"),
        exit_code=2,
    ),
    Entry(
        "GADL-R017",
        Text("this runtime has no driver '{driver}'", "当前运行时没有驱动 '{driver}'"),
        fix=Text("build the runtime with that driver (docs/add-a-driver.md)", "请编译包含该驱动的运行时（docs/add-a-driver.md）"),
        exit_code=4,
    ),
)  # fmt: skip
