// SPDX-License-Identifier: Apache-2.0
#include "dot.hpp"

#include <algorithm>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define GADL_X86 1
#endif

namespace gadl {
namespace {

#ifdef GADL_X86
bool has_avx2() {
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
}

__attribute__((target("avx2,fma"))) float sum8(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

__attribute__((target("avx2,fma"))) void block_f32(const float* const* a, const float* const* b, int64_t k, float out[3][4]) {
  __m256 s[3][4];
  for (auto& row : s)
    for (auto& cell : row) cell = _mm256_setzero_ps();
  for (int64_t i = 0; i < k; i += 8) {
    const __m256 x0 = _mm256_loadu_ps(a[0] + i), x1 = _mm256_loadu_ps(a[1] + i), x2 = _mm256_loadu_ps(a[2] + i);
    for (int j = 0; j < 4; ++j) {
      const __m256 y = _mm256_loadu_ps(b[j] + i);
      s[0][j] = _mm256_fmadd_ps(x0, y, s[0][j]);
      s[1][j] = _mm256_fmadd_ps(x1, y, s[1][j]);
      s[2][j] = _mm256_fmadd_ps(x2, y, s[2][j]);
    }
  }
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) out[i][j] = sum8(s[i][j]);
}

__attribute__((target("avx2"))) void block_i16(const int16_t* const* a, const int16_t* const* b, int64_t k, int32_t out[3][4]) {
  __m256i s[3][4];
  for (auto& row : s)
    for (auto& cell : row) cell = _mm256_setzero_si256();
  for (int64_t i = 0; i < k; i += 16) {
    __m256i x[3];
    for (int r = 0; r < 3; ++r) x[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a[r] + i));
    for (int j = 0; j < 4; ++j) {
      const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b[j] + i));
      for (int r = 0; r < 3; ++r) s[r][j] = _mm256_add_epi32(s[r][j], _mm256_madd_epi16(x[r], y));
    }
  }
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) {
      alignas(32) int32_t lanes[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), s[i][j]);
      out[i][j] = lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
    }
}
#endif

template <class T, class S>
void block_portable(const T* const* a, const T* const* b, int64_t k, S out[3][4]) {
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) {
      S sum = 0;
      for (int64_t t = 0; t < k; ++t) sum += static_cast<S>(a[i][t]) * static_cast<S>(b[j][t]);
      out[i][j] = sum;
    }
}

template <class T, class S, class Block>
void dot_rows(const T* a, int64_t m, const T* b, int64_t n, int64_t k, S* out, int64_t out_i, int64_t out_j, Block block) {
  for (int64_t j = 0; j < n; j += 4) {
    const T* pb[4];
    for (int t = 0; t < 4; ++t) pb[t] = b + std::min(j + t, n - 1) * k;
    for (int64_t i = 0; i < m; i += 3) {
      const T* pa[3];
      for (int t = 0; t < 3; ++t) pa[t] = a + std::min(i + t, m - 1) * k;
      S sums[3][4];
      block(pa, pb, k, sums);
      for (int r = 0; r < 3 && i + r < m; ++r)
        for (int t = 0; t < 4 && j + t < n; ++t) out[(i + r) * out_i + (j + t) * out_j] = sums[r][t];
    }
  }
}

}  // namespace

void dot_rows_f32(const float* a, int64_t m, const float* b, int64_t n, int64_t k, float* out, int64_t out_i, int64_t out_j) {
#ifdef GADL_X86
  if (has_avx2()) return dot_rows(a, m, b, n, k, out, out_i, out_j, block_f32);
#endif
  dot_rows(a, m, b, n, k, out, out_i, out_j, block_portable<float, float>);
}

void dot_rows_i16(const int16_t* a, int64_t m, const int16_t* b, int64_t n, int64_t k, int32_t* out, int64_t out_i, int64_t out_j) {
#ifdef GADL_X86
  if (has_avx2()) return dot_rows(a, m, b, n, k, out, out_i, out_j, block_i16);
#endif
  dot_rows(a, m, b, n, k, out, out_i, out_j, block_portable<int16_t, int32_t>);
}

}  // namespace gadl
