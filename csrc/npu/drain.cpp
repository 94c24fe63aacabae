// SPDX-License-Identifier: Apache-2.0
// EPI: from accumulators to results.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core.hpp"
#include "error.hpp"
#include "requant.hpp"

namespace gadl::npu {
namespace {

namespace F = epi;

struct Scale {
  int32_t multiplier = 0;
  int shift = 1;
};

// One scale for the product of two whose multipliers have `bits` bits.
Scale joined(Scale a, Scale b, int bits, Round rounding) {
  if (rounding == Round::F32) {
    const float product = bits_to_float(a.multiplier) * bits_to_float(b.multiplier);
    Scale both;
    std::memcpy(&both.multiplier, &product, 4);
    return both;
  }
  const int64_t product = static_cast<int64_t>(a.multiplier) * b.multiplier;
  const auto divided = [&](int by) { return (product + (int64_t{1} << (by - 1))) >> by; };
  const bool small = divided(bits) < int64_t{1} << (bits - 1);
  const int64_t multiplier = divided(small ? bits - 1 : bits);
  const int shift = a.shift + b.shift - (small ? bits - 1 : bits);
  if (shift < 1 || shift > 62) throw SimError("EPI: the shifts of a row and a channel together leave 1..62");
  return {static_cast<int32_t>(multiplier), shift};
}

struct Drain {
  Core& core;
  const Instr& instr;
  int64_t f(int i) const { return instr.f[i]; }

  // The scale of channel c in matrix row `row`.
  Scale scale(int64_t row, int64_t c) const {
    const bool per_channel = f(F::per_channel) != 0, per_row = f(F::per_row) != 0;
    if (!per_channel && !per_row) return {static_cast<int32_t>(f(F::multiplier)), std::max(static_cast<int>(f(F::shift)), 1)};
    const Scale channel = per_channel ? entry(F::multiplier_addr, F::shift_addr, c) : Scale{};
    const Scale rows = per_row ? entry(F::row_multiplier_addr, F::row_shift_addr, row) : Scale{};
    return !per_row ? channel : !per_channel ? rows : joined(rows, channel, cell_bytes(f(F::x_type)) == 8 ? 15 : 31, static_cast<Round>(f(F::rounding)));
  }

  Scale entry(int multipliers, int shifts, int64_t index) const {
    Scale found;
    std::memcpy(&found.multiplier, core.sram(f(multipliers) + index * 4), 4);
    found.shift = std::max(*core.sram(f(shifts) + index) & 63, 1);
    return found;
  }

  // One row of results [oc] for pixel (p, q), as stored values (floats in `real`).
  void integers(int64_t p, int64_t q, std::vector<int64_t>& out) const {
    const int64_t oc = f(F::oc), cell = cell_bytes(f(F::x_type));
    const uint8_t* acc = core.acc(f(F::acc_addr) + (p * f(F::ow) + q) * oc * cell);
    const auto rounding = static_cast<Round>(f(F::rounding));
    const bool leaky = static_cast<Activation>(f(F::activation)) == Activation::LEAKY, residual = f(F::residual) != 0, requant = f(F::requant) != 0;
    const int64_t res_e = residual ? type_bytes(f(F::res_type)) : 0;
    const uint8_t* res = residual ? core.sram(f(F::res_addr) + p * f(F::res_row_stride) + q * f(F::res_pix_stride)) : nullptr;
    const uint8_t* table = static_cast<Activation>(f(F::activation)) == Activation::LUT ? core.sram(f(F::lut_addr)) : nullptr;
    for (int64_t c = 0; c < oc; ++c) {
      int64_t value = load_integer(acc + c * cell, static_cast<int64_t>(cell == 8 ? Type::I64 : Type::I32));
      if (f(F::bias)) value += load_integer(core.sram(f(F::bias_addr)) + c * cell, static_cast<int64_t>(cell == 8 ? Type::I64 : Type::I32));
      if (requant) {
        const Scale by = scale(p * f(F::ow) + q, c);
        value = requantize(value, by.multiplier, by.shift, rounding);
      }
      if (leaky && value < 0) value = requantize(value, static_cast<int32_t>(f(F::slope)), std::max(static_cast<int>(f(F::slope_shift)), 1), rounding);
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
