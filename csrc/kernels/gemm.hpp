// SPDX-License-Identifier: Apache-2.0
// Blocked matrix products for convolutions, linear and matmul.
//
// One tile is kRows x kColumns sums. Its left operand is read row by row in place; its right operand is a panel, depth outermost,
// kColumns columns innermost. Every sum is one chain of additions in ascending depth, which is the canonical order that half
// precision asks for (docs/numerics.md section 5).
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernel.hpp"

namespace gadl::gemm {

constexpr int64_t kRows = 6, kColumns = 16;

// Float operands, f32 sums.
struct Real {
  using Element = float;
  using Sum = float;
  static constexpr int64_t kStep = 1;
};

// Centred bytes: two consecutive depths lie side by side, for the multiply-add of 16-bit pairs. Sums wrap at 32 bits.
struct Narrow {
  using Element = int16_t;
  using Sum = int32_t;
  static constexpr int64_t kStep = 2;
};

// Wider integers, 64-bit sums.
struct Wide {
  using Element = int32_t;
  using Sum = int64_t;
  static constexpr int64_t kStep = 1;
};

enum class Kind { kReal, kNarrow, kWide };

// Which of the three a call needs, with its operand types checked. Out of contract, narrow sums wrap at 32 bits.
Kind kind_of(const Call& call);

template <class T>
using Tile = void (*)(const typename T::Element* const* rows, const typename T::Element* panel, int64_t steps, typename T::Sum* sums);
template <class T>
using Accumulate = void (*)(typename T::Sum* sums, const typename T::Element* x, typename T::Element weight, int64_t count);

// The best tile and `sums += weight * x` for this processor.
template <class T>
Tile<T> tile_function();
template <class T>
Accumulate<T> accumulate_function();

template <class T>
int64_t padded_depth(int64_t depth) {
  return (depth + T::kStep - 1) / T::kStep * T::kStep;
}

// Panels that are packed at a time, so that they stay in a second-level cache.
template <class T>
int64_t panels_at_once(int64_t depth, int64_t columns) {
  const int64_t panel_bytes = padded_depth<T>(depth) * kColumns * static_cast<int64_t>(sizeof(typename T::Element));
  const int64_t fit = (int64_t{192} << 10) / std::max<int64_t>(panel_bytes, 1);
  return std::max<int64_t>(1, std::min(fit, (columns + kColumns - 1) / kColumns));
}

// Where depth `k` of column 0 lies in a panel; columns follow kStep apart.
template <class T>
typename T::Element* panel_entry(typename T::Element* panel, int64_t k) {
  return panel + k / T::kStep * (kColumns * T::kStep) + k % T::kStep;
}

// sums[rows, columns] = left[rows, depth] . right[depth, columns]
//
// `pack(first column, count, panel)` fills one panel (all kColumns columns, and the odd depth with zeros); `store(row, first column,
// count, sums)` takes the sums of one row.
template <class T, class Pack, class Store>
void multiply(const typename T::Element* left, int64_t left_stride, int64_t rows, int64_t depth, int64_t columns,
              typename T::Element* panels, Pack pack, Store store) {
  const Tile<T> tile = tile_function<T>();
  const int64_t steps = padded_depth<T>(depth) / T::kStep, panel_size = padded_depth<T>(depth) * kColumns;
  const int64_t block = panels_at_once<T>(depth, columns) * kColumns;
  typename T::Sum sums[kRows * kColumns];
  for (int64_t start = 0; start < columns; start += block) {
    const int64_t stop = std::min(start + block, columns);
    for (int64_t c = start; c < stop; c += kColumns) pack(c, std::min(kColumns, stop - c), panels + (c - start) / kColumns * panel_size);
    for (int64_t r = 0; r < rows; r += kRows) {
      const typename T::Element* row[kRows];
      for (int64_t i = 0; i < kRows; ++i) row[i] = left + std::min(r + i, rows - 1) * left_stride;
      for (int64_t c = start; c < stop; c += kColumns) {
        tile(row, panels + (c - start) / kColumns * panel_size, steps, sums);
        for (int64_t i = 0; i < std::min(kRows, rows - r); ++i) store(r + i, c, std::min(kColumns, stop - c), sums + i * kColumns);
      }
    }
  }
}

// `count` elements minus `zero`, as panel or plane elements. Steps are in elements.
template <class E>
void convert(const uint8_t* from, gadl_dtype type, int64_t zero, int64_t count, int64_t from_step, E* to, int64_t to_step);

}  // namespace gadl::gemm
