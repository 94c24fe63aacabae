// SPDX-License-Identifier: Apache-2.0
// The vector unit: VBIN VUN VLUT VRED VPOOL VRSZ VTR.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core.hpp"
#include "error.hpp"
#include "requant.hpp"

namespace gadl::npu {
namespace {

int64_t count(int64_t n) { return n == 0 ? 1 : n; }
int64_t shift_of(int64_t field) { return std::max<int64_t>(field, 1); }

int64_t integer_binary(Binary function, int64_t a, int64_t b) {
  switch (function) {
    case Binary::ADD: return a + b;
    case Binary::SUB: return a - b;
    case Binary::MUL: return a * b;
    case Binary::MIN: return std::min(a, b);
    case Binary::MAX: return std::max(a, b);
    case Binary::EQUAL: return a == b;
    case Binary::GREATER: return a > b;
    case Binary::AND: return a & b;
    case Binary::OR: return a | b;
    case Binary::XOR: return a ^ b;
    case Binary::SHL: return static_cast<int64_t>(static_cast<uint64_t>(a) << (b & 31));
    case Binary::SHR: return a >> (b & 31);
    case Binary::SELECT: break;  // takes three operands
  }
  throw SimError("VBIN has no such function");
}

float float_binary(Binary function, float a, float b) {
  switch (function) {
    case Binary::ADD: return a + b;
    case Binary::SUB: return a - b;
    case Binary::MUL: return a * b;
    case Binary::MIN: return std::min(a, b);
    case Binary::MAX: return std::max(a, b);
    case Binary::EQUAL: return a == b ? 1.0f : 0.0f;
    case Binary::GREATER: return a > b ? 1.0f : 0.0f;
    default: throw SimError("VBIN has no such function on floats");
  }
}

void binary(Core& core, const Instr& instr) {
  namespace F = vbin;
  const auto f = [&](int i) { return instr.f[i]; };
  const auto function = static_cast<Binary>(f(F::function));
  const int64_t at = f(F::a_type), bt = f(F::b_type), ot = f(F::out_type);
  const int64_t ae = type_bytes(at), be = type_bytes(bt), oe = type_bytes(ot);
  const auto rounding = static_cast<Round>(f(F::rounding));
  const bool real = is_float(ot), rescale = f(F::rescale) != 0, product = function == Binary::MUL, select = function == Binary::SELECT;
  const auto am = static_cast<int32_t>(f(F::a_multiplier)), bm = static_cast<int32_t>(f(F::b_multiplier)), om = static_cast<int32_t>(f(F::out_multiplier));
  const auto as = static_cast<int>(shift_of(f(F::a_shift))), bs = static_cast<int>(shift_of(f(F::b_shift))), os = static_cast<int>(shift_of(f(F::out_shift)));
  const float low = bits_to_float(static_cast<int32_t>(f(F::lo))), high = bits_to_float(static_cast<int32_t>(f(F::hi)));
  const int64_t n0 = count(f(F::n0)), n1 = count(f(F::n1)), n2 = count(f(F::n2)), n3 = count(f(F::n3));
  for (int64_t l = 0; l < n3; ++l)
    for (int64_t k = 0; k < n2; ++k)
      for (int64_t j = 0; j < n1; ++j) {
        const uint8_t* a = core.sram(f(F::a_addr) + (l * f(F::a_s3) + k * f(F::a_s2) + j * f(F::a_s1)) * ae);
        const uint8_t* b = core.sram(f(F::b_addr) + (l * f(F::b_s3) + k * f(F::b_s2) + j * f(F::b_s1)) * be);
        const uint8_t* cond = select ? core.sram(f(F::cond_addr) + l * f(F::cond_s3) + k * f(F::cond_s2) + j * f(F::cond_s1)) : nullptr;
        uint8_t* out = core.sram(f(F::out_addr) + (l * f(F::out_s3) + k * f(F::out_s2) + j * f(F::out_s1)) * oe);
        const int64_t a0 = f(F::a_s0) * ae, b0 = f(F::b_s0) * be, o0 = f(F::out_s0) * oe;
        for (int64_t i = 0; i < n0; ++i, a += a0, b += b0, out += o0) {
          if (select) {
            const bool first = cond[i * f(F::cond_s0)] != 0;
            if (real) {
              store_float(out, ot, std::min(std::max(first ? load_float(a, at) : load_float(b, bt), low), high));
              continue;
            }
            int64_t value = first ? load_integer(a, at) : load_integer(b, bt);
            if (rescale) {
              value = first ? requantize(value - f(F::a_zp), am, as, rounding) : requantize(value - f(F::b_zp), bm, bs, rounding);
              value = f(F::out_zp) + requantize(value, om, os, rounding);
            }
            store_integer(out, ot, clamp64(value, f(F::lo), f(F::hi)));
            continue;
          }
          if (real) {
            store_float(out, ot, std::min(std::max(float_binary(function, load_float(a, at), load_float(b, bt)), low), high));
            continue;
          }
          const int64_t x = load_integer(a, at), y = load_integer(b, bt);
          int64_t value;
          if (!rescale) {
            value = integer_binary(function, x, y);
          } else if (product) {
            value = f(F::out_zp) + requantize((x - f(F::a_zp)) * (y - f(F::b_zp)), om, os, rounding);
          } else {
            const int64_t inner = integer_binary(function, requantize(x - f(F::a_zp), am, as, rounding), requantize(y - f(F::b_zp), bm, bs, rounding));
            value = f(F::out_zp) + requantize(inner, om, os, rounding);
          }
          store_integer(out, ot, clamp64(value, f(F::lo), f(F::hi)));
        }
      }
}

double unary_value(Unary function, double x) {
  switch (function) {
    case Unary::CAST: return x;
    case Unary::NEG: return -x;
    case Unary::ABS: return std::fabs(x);
    case Unary::EXP2: return std::exp2(x);
    case Unary::LOG2: return std::log2(x);
    case Unary::RCP: return 1.0 / x;
    case Unary::RSQRT: return 1.0 / std::sqrt(x);
    case Unary::TANH: return std::tanh(x);
    case Unary::SIGMOID: return 1.0 / (1.0 + std::exp(-x));
    case Unary::ERF: return std::erf(x);
    case Unary::SIN: return std::sin(x);
    case Unary::COS: return std::cos(x);
    case Unary::ROUND: return std::nearbyint(x);
    case Unary::FLOOR: return std::floor(x);
    case Unary::CEIL: return std::ceil(x);
    default: throw SimError("VUN has no such function on floats");
  }
}

template <size_t kTerms>
float polynomial(const float (&terms)[kTerms], float x) {
  float sum = terms[kTerms - 1];
  for (size_t i = kTerms - 1; i-- > 0;) sum = std::fma(sum, x, terms[i]);
  return sum;
}

float exp2_f32(float x) {
  if (x != x || x >= 128) return x != x ? x : std::numeric_limits<float>::infinity();
  if (x < -150) return 0;
  const float whole = std::nearbyint(x);
  return std::ldexp(polynomial(kExp2Polynomial, x - whole), static_cast<int>(whole));
}

float rcp_f32(float x) {
  if (x == 0 || !std::isfinite(x)) return 1 / x;
  int exponent;
  const float m = std::frexp(x, &exponent), size = std::fabs(m);
  float y = polynomial(kRcpPolynomial, size);
  for (int i = 0; i < 3; ++i) y = std::fma(y, std::fma(-size, y, 1.0f), y);
  return std::ldexp(std::copysign(y, x), -exponent);
}

float rsqrt_f32(float x) {
  if (x == 0 || !(x > 0) || !std::isfinite(x)) return 1 / std::sqrt(x);
  int exponent;
  float m = std::frexp(x, &exponent);
  if (exponent % 2 != 0) m *= 0.5f, ++exponent;
  float y = polynomial(kRsqrtPolynomial, m);
  for (int i = 0; i < 3; ++i) {
    const float t = m * y, rest = std::fma(m, y, -t);
    y = std::fma(y * 0.5f, std::fma(-rest, y, std::fma(-t, y, 1.0f)), y);
  }
  return std::ldexp(y, -exponent / 2);
}

float unary_f32(Unary function, float x) {
  switch (function) {
    case Unary::EXP2: return exp2_f32(x);
    case Unary::RCP: return rcp_f32(x);
    case Unary::RSQRT: return rsqrt_f32(x);
    default: return static_cast<float>(unary_value(function, x));
  }
}

void unary(Core& core, const Instr& instr) {
  namespace F = vun;
  const auto f = [&](int i) { return instr.f[i]; };
  const auto function = static_cast<Unary>(f(F::function));
  const int64_t at = f(F::a_type), ot = f(F::out_type), ae = type_bytes(at), oe = type_bytes(ot);
  const uint8_t* a = core.sram(f(F::a_addr));
  uint8_t* out = core.sram(f(F::out_addr));
  for (int64_t i = 0; i < f(F::count); ++i, a += ae, out += oe) {
    if (is_float(ot)) {
      const float x = load_float(a, at);
      store_float(out, ot, static_cast<Type>(ot) == Type::F32 ? unary_f32(function, x) : static_cast<float>(unary_value(function, x)));
      continue;
    }
    int64_t value = is_float(at) ? static_cast<int64_t>(std::nearbyint(load_float(a, at))) : load_integer(a, at);
    if (function == Unary::NEG) value = -value;
    else if (function == Unary::ABS) value = std::abs(value);
    else if (function == Unary::CLZ) value = value == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(value));
    else if (function != Unary::CAST) throw SimError("VUN has no such function on integers");
    if (f(F::rescale)) {
      value = f(F::out_zp) + requantize(value - f(F::a_zp), static_cast<int32_t>(f(F::out_multiplier)),
                                        static_cast<int>(shift_of(f(F::out_shift))), static_cast<Round>(f(F::rounding)));
    }
    store_integer(out, ot, clamp64(value, f(F::lo), f(F::hi)));
  }
}

void table(Core& core, const Instr& instr) {
  namespace F = vlut;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t at = f(F::a_type), ot = f(F::out_type), oe = type_bytes(ot), n = f(F::count);
  const uint8_t* entries = core.sram(f(F::table_addr));
  uint8_t* out = core.sram(f(F::out_addr));
  if (static_cast<Type>(at) != Type::I16) {
    const uint8_t* a = core.sram(f(F::a_addr));
    for (int64_t i = 0; i < n; ++i) std::memcpy(out + i * oe, entries + ((static_cast<int8_t>(a[i]) + 128) & 255) * oe, oe);
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t index = load_integer(core.sram(f(F::a_addr) + 2 * i), at) + 32768, fraction = index & 127;
    const int64_t base = load_integer(entries + (index >> 7) * oe, ot), next = load_integer(entries + ((index >> 7) + 1) * oe, ot);
    store_integer(out + i * oe, ot, (base * 128 + (next - base) * fraction + 64) >> 7);
  }
}

void reduce(Core& core, const Instr& instr) {
  namespace F = vred;
  const auto f = [&](int i) { return instr.f[i]; };
  const auto function = static_cast<Reduce>(f(F::function));
  const int64_t type = f(F::type), ot = f(F::out_type), e = type_bytes(type), oe = type_bytes(ot), n = f(F::n);
  for (int64_t j = 0; j < f(F::m); ++j) {
    const uint8_t* x = core.sram(f(F::x_addr) + j * f(F::m_stride) * e);
    uint8_t* out = core.sram(f(F::out_addr) + j * oe);
    int64_t best = 0, at = 0;
    float real = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t* p = x + i * f(F::n_stride) * e;
      if (is_float(type)) {
        const float v = load_float(p, type);
        switch (function) {
          case Reduce::SUM: real = real + v; break;
          case Reduce::SUMSQ: real = real + v * v; break;
          case Reduce::MAX: real = i == 0 ? v : std::max(real, v); break;
          case Reduce::MIN: real = i == 0 ? v : std::min(real, v); break;
          case Reduce::ABSMAX: real = std::max(real, std::fabs(v)); break;
          case Reduce::ARGMAX: if (i == 0 || v > real) { real = v; at = i; } break;
        }
        continue;
      }
      const int64_t v = load_integer(p, type);
      switch (function) {
        case Reduce::SUM: best += v - f(F::x_zp); break;
        case Reduce::SUMSQ: best += (v - f(F::x_zp)) * (v - f(F::x_zp)); break;
        case Reduce::MAX: best = i == 0 ? v : std::max(best, v); break;
        case Reduce::MIN: best = i == 0 ? v : std::min(best, v); break;
        case Reduce::ABSMAX: best = std::max(best, std::abs(v - f(F::x_zp))); break;
        case Reduce::ARGMAX: if (i == 0 || v > best) { best = v; at = i; } break;
      }
    }
    if (function == Reduce::ARGMAX) {
      store_integer(out, ot, at);
    } else if (is_float(ot)) {
      store_float(out, ot, real);
    } else {
      if (f(F::rescale)) {
        best = f(F::out_zp) + requantize(best, static_cast<int32_t>(f(F::multiplier)), static_cast<int>(shift_of(f(F::shift))), static_cast<Round>(f(F::rounding)));
      }
      store_integer(out, ot, clamp64(best, f(F::lo), f(F::hi)));
    }
  }
}

void pool(Core& core, const Instr& instr) {
  namespace F = vpool;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t type = f(F::x_type), e = type_bytes(type), c = f(F::ic), entries = f(F::entries);
  const bool max = static_cast<Pool>(f(F::function)) == Pool::MAX, real = is_float(type);
  const auto rounding = static_cast<Round>(f(F::rounding));
  std::vector<int64_t> sum(c);
  std::vector<float> total(c);
  for (int64_t p = 0; p < f(F::oh); ++p)
    for (int64_t q = 0; q < f(F::ow); ++q) {
      int64_t taps = 0;
      for (int64_t i = 0; i < f(F::kh); ++i)
        for (int64_t j = 0; j < f(F::kw); ++j) {
          const int64_t y = p * f(F::stride_h) + i * f(F::dil_h) - f(F::pad_top), x = q * f(F::stride_w) + j * f(F::dil_w) - f(F::pad_left);
          if (y < 0 || y >= f(F::ih) || x < 0 || x >= f(F::iw)) continue;
          const uint8_t* from = core.sram(f(F::x_addr) + y * f(F::x_row_stride) + x * f(F::x_pix_stride));
          const bool first = taps++ == 0;
          for (int64_t k = 0; k < c; ++k) {
            if (real) {
              const float v = load_float(from + k * e, type);
              total[k] = first ? v : max ? std::max(total[k], v) : total[k] + v;
            } else {
              const int64_t v = load_integer(from + k * e, type);
              if (max) sum[k] = first ? v : std::max(sum[k], v);
              else sum[k] = (first ? 0 : sum[k]) + v - f(F::x_zp);
            }
          }
        }
      uint8_t* out = core.sram(f(F::out_addr) + p * f(F::out_row_stride) + q * f(F::out_pix_stride));
      auto multiplier = static_cast<int32_t>(f(F::multiplier));
      auto shift = static_cast<int>(shift_of(f(F::shift)));
      if (entries > 0) {
        const int64_t index = std::min(std::max<int64_t>(taps, 1), entries) - 1;
        int32_t wide;
        std::memcpy(&multiplier, core.sram(f(F::table_addr) + 4 * index), 4);
        std::memcpy(&wide, core.sram(f(F::table_addr) + 4 * (entries + index)), 4);
        shift = static_cast<int>(clamp64(wide, 1, 62));
      }
      for (int64_t k = 0; k < c; ++k) {
        if (real) {
          store_float(out + k * e, type, taps == 0 ? (max ? -std::numeric_limits<float>::infinity() : 0.0f) : max ? total[k] : total[k] / static_cast<float>(taps));
        } else if (max) {
          store_integer(out + k * e, type, taps == 0 ? f(F::lo) : sum[k]);
        } else {
          store_integer(out + k * e, type, clamp64(f(F::out_zp) + requantize(taps == 0 ? 0 : sum[k], multiplier, shift, rounding), f(F::lo), f(F::hi)));
        }
      }
    }
}

void resize(Core& core, const Instr& instr) {
  namespace F = vrsz;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t type = f(F::type), e = type_bytes(type), c = f(F::c);
  const bool nearest = f(F::nearest) != 0, real = is_float(type);
  struct Tap {
    int16_t low, high, weight, zero;
  };
  const auto tap = [&](int64_t address) {
    Tap t;
    std::memcpy(&t, core.sram(address), 8);
    return t;
  };
  for (int64_t p = 0; p < f(F::oh); ++p) {
    const Tap row = tap(f(F::row_table) + 8 * p);
    const int64_t y[2] = {row.low - f(F::row_base), row.high - f(F::row_base)};
    for (int64_t q = 0; q < f(F::ow); ++q) {
      const Tap column = tap(f(F::col_table) + 8 * q);
      const int64_t x[2] = {column.low, column.high};
      for (int i = 0; i < 2; ++i) {
        if (y[i] < 0 || y[i] >= f(F::ih) || x[i] < 0 || x[i] >= f(F::iw)) throw SimError("VRSZ: a table entry leaves the image");
      }
      const uint8_t* from[2][2];
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) from[i][j] = core.sram(f(F::x_addr) + y[i] * f(F::x_row_stride) + x[j] * f(F::x_pix_stride));
      uint8_t* out = core.sram(f(F::out_addr) + p * f(F::out_row_stride) + q * f(F::out_pix_stride));
      const int64_t wy[2] = {2048 - row.weight, row.weight}, wx[2] = {2048 - column.weight, column.weight};
      for (int64_t k = 0; k < c; ++k) {
        if (nearest) {
          std::memcpy(out + k * e, from[0][0] + k * e, e);
        } else if (real) {
          float sum = 0;
          for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j) sum = sum + load_float(from[i][j] + k * e, type) * static_cast<float>(wy[i] * wx[j]) * (1.0f / 4194304.0f);
          store_float(out + k * e, type, sum);
        } else {
          int64_t sum = 0;
          for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j) sum += (load_integer(from[i][j] + k * e, type) - f(F::x_zp)) * wy[i] * wx[j];
          const int64_t value = f(F::out_zp) + requantize(sum, static_cast<int32_t>(f(F::multiplier)), static_cast<int>(shift_of(f(F::shift))), static_cast<Round>(f(F::rounding)));
          store_integer(out + k * e, type, clamp64(value, f(F::lo), f(F::hi)));
        }
      }
    }
  }
}

void permute(Core& core, const Instr& instr) {
  namespace F = vtr;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t e = f(F::elem_bytes);
  const int64_t n0 = count(f(F::n0)), n1 = count(f(F::n1)), n2 = count(f(F::n2)), n3 = count(f(F::n3));
  for (int64_t l = 0; l < n3; ++l)
    for (int64_t k = 0; k < n2; ++k)
      for (int64_t j = 0; j < n1; ++j) {
        const uint8_t* x = core.sram(f(F::x_addr) + l * f(F::x_s3) + k * f(F::x_s2) + j * f(F::x_s1));
        uint8_t* out = core.sram(f(F::out_addr) + l * f(F::out_s3) + k * f(F::out_s2) + j * f(F::out_s1));
        for (int64_t i = 0; i < n0; ++i) std::memcpy(out + i * f(F::out_s0), x + i * f(F::x_s0), e);
      }
}

}  // namespace

void execute_vector(Core& core, const Instr& instr) {
  switch (instr.op) {
    case Op::VBIN: return binary(core, instr);
    case Op::VUN: return unary(core, instr);
    case Op::VLUT: return table(core, instr);
    case Op::VRED: return reduce(core, instr);
    case Op::VPOOL: return pool(core, instr);
    case Op::VRSZ: return resize(core, instr);
    default: return permute(core, instr);
  }
}

}  // namespace gadl::npu
