// SPDX-License-Identifier: Apache-2.0
// Timing formulas of SPEC section 6: the analytic level (planner) and the event simulation call the same functions.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "machine.hpp"

namespace gadl::npu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

enum class Flow { kStream = 0, kWeightStationary = 1, kOutputStationary = 2 };

inline double mma_rate(const Machine& m, Type type) {
  switch (type) {
    case Type::I4: return m[Parameter::mma_rate_i8w4];
    case Type::I16: return m[Parameter::mma_rate_i16w8];
    case Type::F16: return m[Parameter::mma_rate_f16];
    case Type::BF16: return m[Parameter::mma_rate_bf16];
    default: return m[Parameter::mma_rate_i8];
  }
}

// Multiply-accumulates of the array in one cycle, one core, at rate 1.
inline double peak_macs(const Machine& m, bool depthwise) {
  const double depth = std::max(m[Parameter::mma_shape_2], depthwise ? m[Parameter::mma_dw_taps] : 0.0);
  return m[Parameter::mma_shape_0] * m[Parameter::mma_shape_1] * depth;
}

// Systolic, the next stationary tile loads behind the current one.
inline bool is_shadowed(const Machine& m) {
  return m.integer(Parameter::mma_flow) == static_cast<int64_t>(Flow::kWeightStationary) && m[Parameter::mma_shadow] != 0;
}

// Cycles of one fold of `pixels` rows with shadow loading: the array takes a new instruction at best every fourth cycle.
inline double shadowed_fold_cycles(const Machine& m, int64_t pixels, Type type) { return std::max(static_cast<double>(pixels) / mma_rate(m, type), 4.0); }

// The same where the next fold has other weights.
inline double shadowed_fold_reload_cycles(const Machine& m, int64_t pixels, Type type) {
  return std::max(shadowed_fold_cycles(m, pixels, type), m[Parameter::mma_shape_2]);
}

// Occupancy of the array by pixels x oc outputs, each a sum over kh x kw taps of ic channels (6.1).
inline double conv_cycles(const Machine& m, int64_t pixels, int64_t oc, int64_t ic, int64_t kh, int64_t kw, Type type) {
  const int64_t tm = m.integer(Parameter::mma_shape_0), tn = m.integer(Parameter::mma_shape_1), tk = m.integer(Parameter::mma_shape_2);
  const auto flow = static_cast<Flow>(m.integer(Parameter::mma_flow));
  const int64_t depth = kh * kw * ic;
  if (flow == Flow::kOutputStationary) {
    return static_cast<double>(ceil_div(pixels, tk) * ceil_div(oc, tn) * (tk + tn + depth - 2)) / mma_rate(m, type);
  }
  if (flow == Flow::kWeightStationary) {
    const int64_t folds = ceil_div(depth, tk) * ceil_div(oc, tn);
    if (is_shadowed(m)) return static_cast<double>(folds) * shadowed_fold_reload_cycles(m, pixels, type);
    return static_cast<double>(folds * (2 * tk + tn + pixels - 2)) / mma_rate(m, type);
  }
  const int64_t steps = ic >= tk ? kh * kw * ceil_div(ic, tk) : kh * ceil_div(kw * ic, tk);
  return static_cast<double>(ceil_div(pixels, tm) * ceil_div(oc, tn) * steps) / mma_rate(m, type);
}

// Depthwise: Tm pixels x Tn channels x dw_taps taps per cycle; each count rounds up by itself. Every flow does it alike.
inline double depthwise_cycles(const Machine& m, int64_t pixels, int64_t channels, int64_t taps, Type type) {
  const int64_t tm = m.integer(Parameter::mma_shape_0), tn = m.integer(Parameter::mma_shape_1);
  return static_cast<double>(ceil_div(pixels, tm) * ceil_div(channels, tn) * ceil_div(taps, m.integer(Parameter::mma_dw_taps))) / mma_rate(m, type);
}

inline double drain_cycles(const Machine& m, int64_t outputs) {
  return static_cast<double>(ceil_div(outputs, m.integer(Parameter::mma_epi_lanes)));
}

// Elementwise work of `operations` on elements of `bytes`: lanes count bytes.
inline double vector_cycles(const Machine& m, int64_t operations, int64_t bytes) {
  return static_cast<double>(ceil_div(operations * bytes, m.integer(Parameter::vec_lanes)));
}

inline double special_cycles(const Machine& m, int64_t results) {
  return static_cast<double>(ceil_div(results, m.integer(Parameter::vec_sfu_lanes)));
}

// Bytes on the bus: every row is fetched in whole bursts.
inline int64_t burst_bytes(const Machine& m, int64_t rows, int64_t row_bytes, int64_t misalignment) {
  const int64_t burst = m.integer(Parameter::dram_burst);
  return rows * ceil_div(misalignment % burst + row_bytes, burst) * burst;
}

// Bytes per cycle of one channel when `active` channels transfer (6.3).
inline double dma_share(const Machine& m, int active, bool store) {
  const double pins = m[Parameter::dram_bytes_per_cycle] * m[Parameter::dram_eff] / std::max(active, 1);
  const double latency = std::max(1.0, m[store ? Parameter::dram_latency_wr : Parameter::dram_latency_rd]);
  return std::min(pins, m[Parameter::dma_max_outstanding] * m[Parameter::dram_burst] / latency);
}

// Cycles before the first byte moves, and those lost to page misses.
inline double dma_fixed_cycles(const Machine& m, int64_t pages, bool store) {
  return m[Parameter::dma_issue] + m[store ? Parameter::dram_latency_wr : Parameter::dram_latency_rd] + m[Parameter::dram_page_miss] * static_cast<double>(pages);
}

// Page boundaries that rows of `row_bytes` at `stride` cross, entering the first page not counted.
inline int64_t page_crossings(const Machine& m, int64_t start, int64_t rows, int64_t row_bytes, int64_t stride) {
  const int64_t page = m.integer(Parameter::dram_page_bytes);
  const int64_t reach = start + (rows - 1) * std::abs(stride) + row_bytes - 1;
  const int64_t hull = reach / page - start / page;
  if (std::abs(stride) <= page) return hull;
  return std::max<int64_t>(rows - 1, 0) + rows * ((row_bytes - 1) / page);
}

}  // namespace gadl::npu
