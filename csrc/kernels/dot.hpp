// SPDX-License-Identifier: Apache-2.0
// Products of row blocks: out[i * out_i + j * out_j] = sum over k of a[i * k_padded + k] * b[j * k_padded + k].
#pragma once
#include <cstdint>

namespace gadl {

// Rows are padded with zeros to a multiple of this many elements.
constexpr int64_t kDotAlign = 16;
inline int64_t dot_padded(int64_t k) { return (k + kDotAlign - 1) / kDotAlign * kDotAlign; }

void dot_rows_f32(const float* a, int64_t m, const float* b, int64_t n, int64_t k, float* out, int64_t out_i, int64_t out_j);
// The caller bounds the sums to 32 bits.
void dot_rows_i16(const int16_t* a, int64_t m, const int16_t* b, int64_t n, int64_t k, int32_t* out, int64_t out_i, int64_t out_j);

}  // namespace gadl
