// SPDX-License-Identifier: Apache-2.0
// MMA: convolution, depthwise convolution, matrix product.
#include <cstring>
#include <string>
#include <vector>

#include "core.hpp"
#include "error.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define GADL_X86 1
#endif

namespace gadl::npu {
namespace {

// dot(a, b) of i16 vectors whose length is a multiple of 16 (zero padded); the caller bounds the sum to i32.
int32_t dot_portable(const int16_t* a, const int16_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

#ifdef GADL_X86
// Two pixels against four filters at a time.
__attribute__((target("avx2"))) void block_avx2(const int16_t* const* a, const int16_t* const* b, int64_t n, int32_t out[2][4]) {
  __m256i sum[2][4];
  for (auto& row : sum)
    for (auto& cell : row) cell = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 16) {
    const __m256i a0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a[0] + i));
    const __m256i a1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a[1] + i));
    for (int j = 0; j < 4; ++j) {
      const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b[j] + i));
      sum[0][j] = _mm256_add_epi32(sum[0][j], _mm256_madd_epi16(a0, w));
      sum[1][j] = _mm256_add_epi32(sum[1][j], _mm256_madd_epi16(a1, w));
    }
  }
  for (int p = 0; p < 2; ++p) {
    for (int j = 0; j < 4; ++j) {
      alignas(32) int32_t lanes[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum[p][j]);
      out[p][j] = lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
    }
  }
}

bool has_avx2() {
  static const bool found = __builtin_cpu_supports("avx2") != 0;
  return found;
}
#endif

void block(const int16_t* const* a, const int16_t* const* b, int64_t n, int32_t out[2][4]) {
#ifdef GADL_X86
  if (has_avx2()) return block_avx2(a, b, n, out);
#endif
  for (int p = 0; p < 2; ++p)
    for (int j = 0; j < 4; ++j) out[p][j] = dot_portable(a[p], b[j], n);
}

void write_cell(uint8_t* cell, int64_t sum, bool accumulate, int64_t x_type, const Instr& instr) {
  if (static_cast<Type>(x_type) == Type::I16) {
    int64_t before = 0;
    if (accumulate) std::memcpy(&before, cell, 8);
    const int64_t total = before + sum;
    if (total >= (int64_t{1} << 47) || total < -(int64_t{1} << 47)) {
      throw SimError("a 48-bit accumulator overflows (debug " + std::to_string(instr.debug) + ")");
    }
    std::memcpy(cell, &total, 8);
    return;
  }
  int32_t before = 0;
  if (accumulate) std::memcpy(&before, cell, 4);
  const int64_t total = before + sum;
  if (total > INT32_MAX || total < INT32_MIN) {
    throw SimError("a 32-bit accumulator overflows (debug " + std::to_string(instr.debug) + ")");
  }
  const auto narrow = static_cast<int32_t>(total);
  std::memcpy(cell, &narrow, 4);
}

// The taps of one output pixel as one vector [kh][kw][ic], centred, taps outside the image zero.
template <class T>
void gather(const Core& core, const Instr& instr, int64_t p, int64_t q, T* out) {
  namespace F = mma_conv;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t ic = f(F::ic), type = f(F::x_type), e = type_bytes(type), zp = f(F::x_zp);
  for (int64_t i = 0; i < f(F::kh); ++i) {
    const int64_t y = p * f(F::stride_h) + i * f(F::dil_h) - f(F::pad_top);
    for (int64_t j = 0; j < f(F::kw); ++j, out += ic) {
      const int64_t x = q * f(F::stride_w) + j * f(F::dil_w) - f(F::pad_left);
      if (y < 0 || y >= f(F::ih) || x < 0 || x >= f(F::iw)) {
        std::memset(out, 0, sizeof(T) * ic);
        continue;
      }
      const uint8_t* from = core.sram(f(F::x_addr) + y * f(F::x_row_stride) + x * f(F::x_pix_stride));
      if (type == static_cast<int64_t>(Type::I8)) {
        const auto* row = reinterpret_cast<const int8_t*>(from);
        for (int64_t c = 0; c < ic; ++c) out[c] = static_cast<T>(row[c] - zp);
      } else if (is_float(type)) {
        for (int64_t c = 0; c < ic; ++c) out[c] = static_cast<T>(load_float(from + c * e, type));
      } else {
        for (int64_t c = 0; c < ic; ++c) out[c] = static_cast<T>(load_integer(from + c * e, type) - zp);
      }
    }
  }
}

// Rows of `length` weights `stride` bytes apart, as whole elements.
struct Rows {
  const uint8_t* data;
  int64_t stride, type;
};

// i4 rows are widened to i8, so that one kernel serves both.
Rows widen_i4(const Rows& rows, int64_t count, int64_t length, std::vector<uint8_t>& wide) {
  if (static_cast<Type>(rows.type) != Type::I4) return rows;
  wide.resize(count * length);
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row = rows.data + r * rows.stride;
    for (int64_t i = 0; i < length; ++i) wide[r * length + i] = static_cast<uint8_t>((((row[i / 2] >> (i % 2 * 4)) & 15) ^ 8) - 8);
  }
  return {wide.data(), length, static_cast<int64_t>(Type::I8)};
}

// Rows that are widened to i16 at a time: bounds the memory of any program and keeps the operands in cache.
constexpr int64_t kBlockRows = 256;

// i8 x i8: rows of i16 through the blocked kernel. Results lie `pitch` cells apart per row of `a`.
void products_i8(const std::vector<int16_t>& a, const std::vector<int16_t>& b, int64_t m, int64_t n, int64_t k, uint8_t* acc,
                 int64_t pitch, bool accumulate, const Instr& instr) {
  for (int64_t i = 0; i < m; i += 2) {
    const int16_t* pa[2] = {a.data() + i * k, a.data() + std::min(i + 1, m - 1) * k};
    for (int64_t j = 0; j < n; j += 4) {
      const int16_t* pb[4];
      for (int t = 0; t < 4; ++t) pb[t] = b.data() + std::min(j + t, n - 1) * k;
      int32_t out[2][4];
      block(pa, pb, k, out);
      for (int s = 0; s < 2 && i + s < m; ++s)
        for (int t = 0; t < 4 && j + t < n; ++t)
          write_cell(acc + ((i + s) * pitch + j + t) * 4, out[s][t], accumulate, 0, instr);
    }
  }
}

// One output row of float products: k ascending, each product added in f32. b is [k][n].
void float_row(const float* a, const std::vector<float>& b, int64_t n, int64_t k, uint8_t* acc, bool accumulate, std::vector<float>& sums) {
  sums.assign(n, 0.0f);
  if (accumulate) std::memcpy(sums.data(), acc, n * 4);
  for (int64_t i = 0; i < k; ++i) {
    const float x = a[i];
    const float* row = b.data() + i * n;
    for (int64_t j = 0; j < n; ++j) sums[j] = sums[j] + x * row[j];
  }
  std::memcpy(acc, sums.data(), n * 4);
}

int64_t padded(int64_t k) { return (k + 15) / 16 * 16; }

void check_depth(int64_t k, const Instr& instr) {
  // 255 * 128 * 65536 stays below 2^31.
  if (k > 65536) throw SimError("a product is deeper than 65536 (debug " + std::to_string(instr.debug) + ")");
}

// i8 zero points keep differences within 255; where both sides have one, half the depth keeps sums below 2^31.
void check_zero_points(int64_t x_zp, int64_t w_zp, int64_t k, const Instr& instr) {
  const auto fits = [](int64_t zp) { return zp >= -128 && zp <= 127; };
  if (!fits(x_zp) || !fits(w_zp)) throw SimError("the zero point of an i8 operand is no i8 (debug " + std::to_string(instr.debug) + ")");
  if (w_zp != 0 && k > 32768) throw SimError("a product with a weight zero point is deeper than 32768 (debug " + std::to_string(instr.debug) + ")");
}

void convolution(Core& core, const Instr& instr) {
  namespace F = mma_conv;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t oh = f(F::oh), ow = f(F::ow), oc = f(F::oc), k = f(F::kh) * f(F::kw) * f(F::ic), type = f(F::x_type);
  const int64_t m = oh * ow, cell = cell_bytes(type);
  if (m * oc == 0) return;
  uint8_t* acc = core.acc(f(F::acc_addr));
  std::vector<uint8_t> wide;
  const Rows rows_of_w = widen_i4({core.sram(f(F::w_addr)), packed_bytes(k, f(F::w_type)), f(F::w_type)}, oc, k, wide);
  const uint8_t* w = rows_of_w.data;
  const bool accumulate = f(F::accumulate) != 0;
  check_depth(k, instr);
  if (static_cast<Type>(type) == Type::I8) {
    const int64_t row = padded(k);
    check_zero_points(f(F::x_zp), f(F::w_zp), k, instr);
    std::vector<int16_t> a(std::min(m, kBlockRows) * row), b(oc * row);
    for (int64_t o = 0; o < oc; ++o)
      for (int64_t i = 0; i < k; ++i) b[o * row + i] = static_cast<int16_t>(static_cast<int8_t>(w[o * k + i]) - f(F::w_zp));
    for (int64_t first = 0; first < m; first += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, m - first);
      for (int64_t i = 0; i < rows; ++i) gather(core, instr, (first + i) / ow, (first + i) % ow, a.data() + i * row);
      products_i8(a, b, rows, oc, row, acc + first * oc * 4, oc, accumulate, instr);
    }
  } else if (is_float(type)) {
    const int64_t we = type_bytes(f(F::w_type));
    std::vector<float> b(k * oc), a(k), sums;
    for (int64_t o = 0; o < oc; ++o)
      for (int64_t i = 0; i < k; ++i) b[i * oc + o] = load_float(w + (o * k + i) * we, f(F::w_type));
    for (int64_t i = 0; i < m; ++i) {
      gather(core, instr, i / ow, i % ow, a.data());
      float_row(a.data(), b, oc, k, acc + i * oc * cell, accumulate, sums);
    }
  } else {
    std::vector<int32_t> a(k);
    for (int64_t i = 0; i < m; ++i) {
      gather(core, instr, i / ow, i % ow, a.data());
      for (int64_t o = 0; o < oc; ++o) {
        int64_t sum = 0;
        for (int64_t t = 0; t < k; ++t) sum += int64_t{a[t]} * (static_cast<int8_t>(w[o * k + t]) - f(F::w_zp));
        write_cell(acc + (i * oc + o) * cell, sum, accumulate, type, instr);
      }
    }
  }
}

void depthwise(Core& core, const Instr& instr) {
  namespace F = mma_dw;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t oh = f(F::oh), ow = f(F::ow), c = f(F::ic), taps = f(F::kh) * f(F::kw), type = f(F::x_type);
  const int64_t cell = cell_bytes(type);
  if (oh * ow * c * taps == 0) return;
  std::vector<uint8_t> wide;
  const Rows filters = widen_i4({core.sram(f(F::w_addr)), f(F::w_tap_stride), f(F::w_type)}, taps, c, wide);
  const int64_t wt = filters.type, we = type_bytes(wt);
  uint8_t* acc = core.acc(f(F::acc_addr));
  const bool accumulate = f(F::accumulate) != 0;
  if (is_float(type)) {
    std::vector<float> x(taps * c), w(taps * c), sums(c);
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < c; ++i) w[t * c + i] = load_float(filters.data + t * filters.stride + i * we, wt);
    for (int64_t m = 0; m < oh * ow; ++m) {
      gather(core, instr, m / ow, m % ow, x.data());
      std::fill(sums.begin(), sums.end(), 0.0f);
      if (accumulate) std::memcpy(sums.data(), acc + m * c * 4, c * 4);
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < c; ++i) sums[i] = sums[i] + x[t * c + i] * w[t * c + i];
      std::memcpy(acc + m * c * 4, sums.data(), c * 4);
    }
    return;
  }
  std::vector<int32_t> x(taps * c), w(taps * c);
  std::vector<int64_t> sums(c);
  std::vector<int32_t> narrow(c);
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t i = 0; i < c; ++i) w[t * c + i] = static_cast<int32_t>(load_integer(filters.data + t * filters.stride + i * we, wt));
  const bool small = static_cast<Type>(type) == Type::I8 && taps <= 4096;
  for (int64_t m = 0; m < oh * ow; ++m) {
    gather(core, instr, m / ow, m % ow, x.data());
    if (small) {
      std::fill(narrow.begin(), narrow.end(), 0);
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < c; ++i) narrow[i] += x[t * c + i] * w[t * c + i];
      for (int64_t i = 0; i < c; ++i) write_cell(acc + (m * c + i) * cell, narrow[i], accumulate, type, instr);
      continue;
    }
    std::fill(sums.begin(), sums.end(), 0);
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < c; ++i) sums[i] += int64_t{x[t * c + i]} * w[t * c + i];
    for (int64_t i = 0; i < c; ++i) write_cell(acc + (m * c + i) * cell, sums[i], accumulate, type, instr);
  }
}

void matrix_product(Core& core, const Instr& instr) {
  namespace F = mma_matmul;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t m = f(F::m), n = f(F::n), k = f(F::k), batch = std::max<int64_t>(1, f(F::batch));
  const int64_t xt = f(F::x_type), xe = type_bytes(xt), cell = cell_bytes(xt);
  if (m * n * k == 0) return;
  check_depth(k, instr);
  const bool accumulate = f(F::accumulate) != 0, kn = f(F::b_kn) != 0;
  std::vector<uint8_t> wide;
  for (int64_t s = 0; s < batch; ++s) {
    const int64_t a_at = f(F::a_addr) + s * f(F::a_batch_stride);
    const Rows packed{core.sram(f(F::b_addr) + s * f(F::b_batch_stride)), f(F::b_stride), f(F::w_type)};
    const Rows right = widen_i4(packed, kn ? k : n, kn ? n : k, wide);
    const int64_t wt = right.type, we = type_bytes(wt);
    uint8_t* acc = core.acc(f(F::acc_addr)) + s * m * n * cell;
    const auto a_of = [&](int64_t i, int64_t t) { return core.sram(a_at + i * f(F::a_stride) + t * xe); };
    const auto b_of = [&](int64_t t, int64_t j) { return right.data + (kn ? t : j) * right.stride + (kn ? j : t) * we; };
    if (is_float(xt)) {
      if (k * n > int64_t{1} << 26) throw SimError("the second operand of a product is larger than any SRAM");
      std::vector<float> a(k), b(k * n), sums;
      for (int64_t t = 0; t < k; ++t)
        for (int64_t j = 0; j < n; ++j) b[t * n + j] = load_float(b_of(t, j), wt);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t t = 0; t < k; ++t) a[t] = load_float(a_of(i, t), xt);
        float_row(a.data(), b, n, k, acc + i * n * cell, accumulate, sums);
      }
    } else if (static_cast<Type>(xt) == Type::I8) {
      const int64_t row = padded(k);
      check_zero_points(f(F::a_zp), f(F::b_zp), k, instr);
      std::vector<int16_t> a(std::min(m, kBlockRows) * row), b(std::min(n, kBlockRows) * row);
      for (int64_t left = 0; left < n; left += kBlockRows) {
        const int64_t columns = std::min(kBlockRows, n - left);
        for (int64_t j = 0; j < columns; ++j)
          for (int64_t t = 0; t < k; ++t) b[j * row + t] = static_cast<int16_t>(load_integer(b_of(t, left + j), wt) - f(F::b_zp));
        for (int64_t first = 0; first < m; first += kBlockRows) {
          const int64_t rows = std::min(kBlockRows, m - first);
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t t = 0; t < k; ++t) a[i * row + t] = static_cast<int16_t>(load_integer(a_of(first + i, t), xt) - f(F::a_zp));
          products_i8(a, b, rows, columns, row, acc + (first * n + left) * 4, n, accumulate, instr);
        }
      }
    } else {
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          int64_t sum = 0;
          for (int64_t t = 0; t < k; ++t) sum += (load_integer(a_of(i, t), xt) - f(F::a_zp)) * (load_integer(b_of(t, j), wt) - f(F::b_zp));
          write_cell(acc + (i * n + j) * cell, sum, accumulate, xt, instr);
        }
    }
  }
}

}  // namespace

void execute_product(Core& core, const Instr& instr) {
  if (instr.op == Op::MMA_CONV) return convolution(core, instr);
  if (instr.op == Op::MMA_DW) return depthwise(core, instr);
  matrix_product(core, instr);
}

}  // namespace gadl::npu
