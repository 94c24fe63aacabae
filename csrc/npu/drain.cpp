// SPDX-License-Identifier: Apache-2.0
// EPI: from accumulators to results.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core.hpp"
#include "requant.hpp"

namespace gadl::npu {
namespace {

namespace F = epi;

struct Drain {
  Core& core;
  const Instr& instr;
  int64_t f(int i) const { return instr.f[i]; }

  // One row of results [oc] for pixel (p, q), as stored values (floats in `real`).
  void integers(int64_t p, int64_t q, std::vector<int64_t>& out) const {
    const int64_t oc = f(F::oc), cell = cell_bytes(f(F::x_type));
    const uint8_t* acc = core.acc(f(F::acc_addr) + (p * f(F::ow) + q) * oc * cell);
    const auto rounding = static_cast<Round>(f(F::rounding));
    const bool vector = f(F::per_channel) != 0, residual = f(F::residual) != 0, requant = f(F::requant) != 0;
    const int64_t res_e = residual ? type_bytes(f(F::res_type)) : 0;
    const uint8_t* res = residual ? core.sram(f(F::res_addr) + p * f(F::res_row_stride) + q * f(F::res_pix_stride)) : nullptr;
    const uint8_t* table = static_cast<Activation>(f(F::activation)) == Activation::LUT ? core.sram(f(F::lut_addr)) : nullptr;
    for (int64_t c = 0; c < oc; ++c) {
      int64_t value = load_integer(acc + c * cell, static_cast<int64_t>(cell == 8 ? Type::I64 : Type::I32));
      if (f(F::bias)) value += load_integer(core.sram(f(F::bias_addr)) + c * cell, static_cast<int64_t>(cell == 8 ? Type::I64 : Type::I32));
      if (requant) {
        auto multiplier = static_cast<int32_t>(f(F::multiplier));
        auto shift = static_cast<int>(f(F::shift));
        if (vector) {
          std::memcpy(&multiplier, core.sram(f(F::multiplier_addr) + c * 4), 4);
          shift = *core.sram(f(F::shift_addr) + c) & 63;
        }
        value = requantize(value, multiplier, std::max(shift, 1), rounding);
      }
      if (residual) {
        const int64_t r = load_integer(res + c * res_e, f(F::res_type)) - f(F::res_zp);
        value += requantize(r, static_cast<int32_t>(f(F::res_multiplier)), std::max<int>(static_cast<int>(f(F::res_shift)), 1), rounding);
      }
      value = clamp64(value + f(F::zp), f(F::lo), f(F::hi));
      if (table != nullptr) value = static_cast<int8_t>(table[(value + 128) & 255]);
      out[c] = value;
    }
  }

  void floats(int64_t p, int64_t q, std::vector<float>& out) const {
    const int64_t oc = f(F::oc);
    const uint8_t* acc = core.acc(f(F::acc_addr) + (p * f(F::ow) + q) * oc * 4);
    const float low = bits_to_float(static_cast<int32_t>(f(F::lo))), high = bits_to_float(static_cast<int32_t>(f(F::hi)));
    const float slope = bits_to_float(static_cast<int32_t>(f(F::slope)));
    const bool residual = f(F::residual) != 0, leaky = static_cast<Activation>(f(F::activation)) == Activation::LEAKY;
    const int64_t res_e = residual ? type_bytes(f(F::res_type)) : 0;
    const uint8_t* res = residual ? core.sram(f(F::res_addr) + p * f(F::res_row_stride) + q * f(F::res_pix_stride)) : nullptr;
    for (int64_t c = 0; c < oc; ++c) {
      float value = load_float(acc + c * 4, static_cast<int64_t>(Type::F32));
      if (f(F::bias)) value = value + load_float(core.sram(f(F::bias_addr)) + c * 4, static_cast<int64_t>(Type::F32));
      if (leaky && value < 0) value = value * slope;
      if (residual) value = value + load_float(res + c * res_e, f(F::res_type));
      out[c] = std::min(std::max(value, low), high);
    }
  }

  uint8_t* target(int64_t p, int64_t q) const {
    return core.sram(f(F::out_addr) + p * f(F::out_row_stride) + q * f(F::out_pix_stride));
  }
};

// Sum of four results divided by four, rounded half up for integers.
int64_t average(int64_t sum) { return (sum + 2) >> 2; }

}  // namespace

void execute_drain(Core& core, const Instr& instr) {
  const Drain d{core, instr};
  const int64_t oc = d.f(F::oc), oh = d.f(F::oh), ow = d.f(F::ow), type = d.f(F::out_type), e = type_bytes(type);
  const auto pool = static_cast<Pool>(d.f(F::pool));
  const int64_t step = pool == Pool::NONE ? 1 : 2;
  const bool real = is_float(d.f(F::x_type));
  std::vector<int64_t> row(oc), best(oc);
  std::vector<float> real_row(oc), real_best(oc);
  for (int64_t p = 0; p + step <= oh; p += step) {
    for (int64_t q = 0; q + step <= ow; q += step) {
      for (int64_t i = 0; i < step * step; ++i) {
        if (real) {
          d.floats(p + i / step, q + i % step, real_row);
          for (int64_t c = 0; c < oc; ++c) {
            real_best[c] = i == 0 ? real_row[c] : pool == Pool::MAX ? std::max(real_best[c], real_row[c]) : real_best[c] + real_row[c];
          }
        } else {
          d.integers(p + i / step, q + i % step, row);
          for (int64_t c = 0; c < oc; ++c) best[c] = i == 0 ? row[c] : pool == Pool::MAX ? std::max(best[c], row[c]) : best[c] + row[c];
        }
      }
      uint8_t* out = d.target(p / step, q / step);
      for (int64_t c = 0; c < oc; ++c) {
        if (real) store_float(out + c * e, type, pool == Pool::AVG ? real_best[c] * 0.25f : real_best[c]);
        else store_integer(out + c * e, type, pool == Pool::AVG ? average(best[c]) : best[c]);
      }
    }
  }
}

}  // namespace gadl::npu
