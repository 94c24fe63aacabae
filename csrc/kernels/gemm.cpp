// SPDX-License-Identifier: Apache-2.0
#include "gemm.hpp"

#include <cstring>
#include <type_traits>

#if defined(__x86_64__) && defined(__GNUC__)
#define GADL_AVX2 1
#include <immintrin.h>
#define GADL_AVX2_CODE __attribute__((target("avx2,fma")))
#else
#define GADL_AVX2 0
#endif

namespace gadl::gemm {
namespace {

// Signed sums that wrap: the arithmetic of integers out of contract stays defined.
template <class Sum, class Element>
inline __attribute__((always_inline)) Sum add_product(Sum sum, Element a, Element b) {
  if constexpr (std::is_floating_point_v<Sum>) {
    return sum + a * b;
  } else {
    using Unsigned = std::make_unsigned_t<Sum>;
    return static_cast<Sum>(static_cast<Unsigned>(sum) + static_cast<Unsigned>(static_cast<Sum>(a)) * static_cast<Unsigned>(static_cast<Sum>(b)));
  }
}

template <class T>
inline __attribute__((always_inline)) void plain_tile(const typename T::Element* const* rows, const typename T::Element* panel, int64_t steps,
                                                      typename T::Sum* sums) {
  for (int64_t i = 0; i < kRows; ++i) {
    typename T::Sum sum[kColumns] = {};
    const typename T::Element* row = rows[i];
    for (int64_t k = 0; k < steps; ++k) {
      const typename T::Element* entry = panel + k * kColumns * T::kStep;
      for (int64_t j = 0; j < kColumns; ++j) {
        for (int64_t s = 0; s < T::kStep; ++s) sum[j] = add_product(sum[j], row[k * T::kStep + s], entry[j * T::kStep + s]);
      }
    }
    std::memcpy(sums + i * kColumns, sum, sizeof sum);
  }
}

template <class T>
inline __attribute__((always_inline)) void plain_accumulate(typename T::Sum* sums, const typename T::Element* x, typename T::Element weight, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sums[i] = add_product(sums[i], x[i], weight);
}

template <class T>
void portable_tile(const typename T::Element* const* rows, const typename T::Element* panel, int64_t steps, typename T::Sum* sums) {
  plain_tile<T>(rows, panel, steps, sums);
}

template <class T>
void portable_accumulate(typename T::Sum* sums, const typename T::Element* x, typename T::Element weight, int64_t count) {
  plain_accumulate<T>(sums, x, weight, count);
}

#if GADL_AVX2
bool has_avx2() {
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
}

GADL_AVX2_CODE void real_tile(const float* const* rows, const float* panel, int64_t steps, float* sums) {
  __m256 low[kRows], high[kRows];
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_ps();
  for (int64_t k = 0; k < steps; ++k) {
    const __m256 b0 = _mm256_loadu_ps(panel + k * kColumns), b1 = _mm256_loadu_ps(panel + k * kColumns + 8);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const __m256 a = _mm256_broadcast_ss(rows[i] + k);
      low[i] = _mm256_fmadd_ps(a, b0, low[i]);
      high[i] = _mm256_fmadd_ps(a, b1, high[i]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    _mm256_storeu_ps(sums + i * kColumns, low[i]);
    _mm256_storeu_ps(sums + i * kColumns + 8, high[i]);
  }
}

GADL_AVX2_CODE void narrow_tile(const int16_t* const* rows, const int16_t* panel, int64_t steps, int32_t* sums) {
  __m256i low[kRows], high[kRows];
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_si256();
  for (int64_t k = 0; k < steps; ++k) {
    const auto* entry = reinterpret_cast<const __m256i*>(panel + k * kColumns * 2);
    const __m256i b0 = _mm256_loadu_si256(entry), b1 = _mm256_loadu_si256(entry + 1);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      int32_t pair;
      std::memcpy(&pair, rows[i] + 2 * k, 4);
      const __m256i a = _mm256_set1_epi32(pair);
      low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(a, b0));
      high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(a, b1));
    }
  }
  for (int i = 0; i < kRows; ++i) {
    auto* out = reinterpret_cast<__m256i*>(sums + i * kColumns);
    _mm256_storeu_si256(out, low[i]);
    _mm256_storeu_si256(out + 1, high[i]);
  }
}

template <class T>
GADL_AVX2_CODE void wide_registers_accumulate(typename T::Sum* sums, const typename T::Element* x, typename T::Element weight, int64_t count) {
  plain_accumulate<T>(sums, x, weight, count);
}
#endif

template <class E, class S>
void convert_whole(const uint8_t* from, int64_t zero, int64_t count, int64_t from_step, E* to, int64_t to_step) {
  for (int64_t i = 0; i < count; ++i) {
    S value;
    std::memcpy(&value, from + i * from_step * static_cast<int64_t>(sizeof(S)), sizeof(S));
    to[i * to_step] = static_cast<E>(static_cast<int64_t>(value) - zero);
  }
}

}  // namespace

Kind kind_of(const Call& call) {
  const TensorInfo &a = call.input(0), &b = call.input(1);
  require(a.is_float() == b.is_float() && a.is_float() == call.result().is_float(), call, "the element types do not fit");
  if (a.is_float()) return Kind::kReal;
  bool narrow = true;
  for (const TensorInfo* t : {&a, &b}) {
    require(t->dtype != GADL_DTYPE_BOOL && t->element_bytes() <= 2, call, "operands are integers of at most 16 bits");
    require(t->zero_point >= INT16_MIN && t->zero_point <= INT16_MAX, call, "a zero point is out of range");
    narrow = narrow && t->element_bytes() == 1 && t->zero_point >= -255 && t->zero_point <= 255;
  }
  return narrow ? Kind::kNarrow : Kind::kWide;
}

template <class T>
Tile<T> tile_function() {
#if GADL_AVX2
  if constexpr (std::is_same_v<T, Real>) {
    if (has_avx2()) return real_tile;
  } else if constexpr (std::is_same_v<T, Narrow>) {
    if (has_avx2()) return narrow_tile;
  }
#endif
  return portable_tile<T>;
}

template <class T>
Accumulate<T> accumulate_function() {
#if GADL_AVX2
  if (has_avx2()) return wide_registers_accumulate<T>;
#endif
  return portable_accumulate<T>;
}

template <class E>
void convert(const uint8_t* from, gadl_dtype type, int64_t zero, int64_t count, int64_t from_step, E* to, int64_t to_step) {
  if constexpr (std::is_floating_point_v<E>) {
    if (type == GADL_DTYPE_F32 && from_step == 1 && to_step == 1) {
      std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
      return;
    }
    const int64_t bytes = type == GADL_DTYPE_F32 ? 4 : type == GADL_DTYPE_F64 ? 8 : 2;
    for (int64_t i = 0; i < count; ++i) to[i * to_step] = load_real(from + i * from_step * bytes, type);
  } else {
    switch (type) {
      case GADL_DTYPE_I8: convert_whole<E, int8_t>(from, zero, count, from_step, to, to_step); return;
      case GADL_DTYPE_U8: convert_whole<E, uint8_t>(from, zero, count, from_step, to, to_step); return;
      case GADL_DTYPE_I16: convert_whole<E, int16_t>(from, zero, count, from_step, to, to_step); return;
      default: convert_whole<E, int32_t>(from, zero, count, from_step, to, to_step); return;
    }
  }
}

#define GADL_INSTANTIATE(T)               \
  template Tile<T> tile_function<T>();    \
  template Accumulate<T> accumulate_function<T>(); \
  template void convert<T::Element>(const uint8_t*, gadl_dtype, int64_t, int64_t, int64_t, T::Element*, int64_t);
GADL_INSTANTIATE(Real)
GADL_INSTANTIATE(Narrow)
GADL_INSTANTIATE(Wide)
#undef GADL_INSTANTIATE

}  // namespace gadl::gemm
