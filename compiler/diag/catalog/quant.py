# SPDX-License-Identifier: Apache-2.0
"""GADL-Q: quantisation and calibration data."""

from __future__ import annotations

from .entry import Entry, Text

ENTRIES = (
    Entry(
        "GADL-Q001",
        Text("int8 and int16 need calibration data", "int8 与 int16 需要校准数据"),
        why=Text("the range of every tensor is measured on sample inputs", "每个张量的取值范围由样本输入测得"),
        fix=Text("give --calib DIR, LIST.txt or FILE.npz, or choose --precision fp16 or float",
                 "用 --calib 给出图片目录、列表文件或 .npz，或选择 --precision fp16 / float"),
        exit_code=2,
    ),
    Entry(
        "GADL-Q002",
        Text("the accumulator of '{layer}' can overflow: {bits} bits needed, {limit} there", "'{layer}' 的累加器可能溢出：需要 {bits} 位，只有 {limit} 位"),
        fix=Text("split the layer, or compile it with --precision fp16", "拆分该层，或用 --precision fp16 编译"),
    ),
    Entry(
        "GADL-Q003",
        Text("{count} tensors have no calibrated range: {names}", "{count} 个张量没有校准范围：{names}"),
        why=Text("scales are chosen from the ranges seen while calibrating", "量化比例由校准时观测的范围决定"),
        fix=Text("calibrate the same graph that is quantised", "请用同一个计算图进行校准"),
    ),
    Entry(
        "GADL-Q010",
        Text("calibration data {source}: {detail}", "校准数据 {source}：{detail}"),
        fix=Text("see docs/quantisation.md for the accepted forms", "可接受的格式见 docs/quantisation.md"),
        exit_code=2,
    ),
)
