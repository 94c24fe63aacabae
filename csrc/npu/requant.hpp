// SPDX-License-Identifier: Apache-2.0
// Requantisation, bit for bit as docs/numerics.md section 2 defines it. Shared by the simulator and the host kernels.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "isa_generated.h"

namespace gadl::npu {

inline float bits_to_float(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline int64_t round_shift(int64_t product, int shift, Round rounding) {
  if (rounding == Round::TFL2) {
    // In magnitudes, so that no product overflows: gemmlowp divides the negative ones towards zero after adding 1 - 2^30.
    const uint64_t size = product >= 0 ? static_cast<uint64_t>(product) + (uint64_t{1} << 30) : ~static_cast<uint64_t>(product) + (uint64_t{1} << 30);
    const int64_t high = product >= 0 ? static_cast<int64_t>(size >> 31) : -static_cast<int64_t>(size >> 31);
    const int left = shift - 31;
    if (left <= 0) return high;
    const int64_t mask = (int64_t{1} << left) - 1, rest = high & mask;
    const int64_t threshold = (mask >> 1) + (high < 0 ? 1 : 0);
    return (high >> left) + (rest > threshold ? 1 : 0);
  }
  const int64_t floor = product >> shift;
  const int64_t half = int64_t{1} << (shift - 1), rest = product & (half - 1 + half);
  switch (rounding) {
    case Round::UP: return floor + (rest >= half);
    case Round::EVEN: return floor + (rest > half || (rest == half && (floor & 1)));
    case Round::AWAY: return floor + (product >= 0 ? rest >= half : rest > half);
    case Round::ZERO: return floor + (product < 0 && rest != 0);
    default: return floor;
  }
}

// R(value): no zero point, no clamp.
inline int64_t requantize(int64_t value, int32_t multiplier, int shift, Round rounding) {
  if (rounding == Round::F32) {
    const float rounded = std::nearbyint(static_cast<float>(value) * bits_to_float(multiplier));
    // Limits far outside every integer type's range, so that the conversion is defined; NaN becomes 0.
    return rounded != rounded ? 0 : static_cast<int64_t>(std::min(std::max(rounded, -0x1p62f), 0x1p62f));
  }
  // In contract the product fits 63 bits; out of it, it wraps.
  const uint64_t product = static_cast<uint64_t>(value) * static_cast<uint64_t>(static_cast<int64_t>(multiplier));
  return round_shift(static_cast<int64_t>(product), shift, rounding);
}

inline int64_t clamp64(int64_t value, int64_t low, int64_t high) { return std::min(std::max(value, low), high); }

}  // namespace gadl::npu
