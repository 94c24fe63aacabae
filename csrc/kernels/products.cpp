// SPDX-License-Identifier: Apache-2.0
// linear and matmul.
#include <algorithm>
#include <array>
#include <cstring>

#include "finish.hpp"
#include "gemm.hpp"
#include "kernel.hpp"

namespace gadl {
namespace {

using gemm::kColumns;

// How an operand is read: elements of a type, minus a zero point.
struct Source {
  gadl_dtype type;
  int64_t bytes, zero;

  explicit Source(const TensorInfo& t) : type(t.dtype), bytes(t.element_bytes()), zero(t.is_float() ? 0 : t.zero_point) {}
};

int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Rows padded to the depth, as the product's elements; f32 rows that need no change stay where they are.
template <class T>
const typename T::Element* left_rows(const uint8_t* from, const Source& source, int64_t rows, int64_t depth, typename T::Element* to) {
  using Element = typename T::Element;
  if (std::is_same_v<Element, float> && source.type == GADL_DTYPE_F32) return reinterpret_cast<const Element*>(from);
  const int64_t padded = gemm::padded_depth<T>(depth);
  for (int64_t r = 0; r < rows; ++r) {
    to[(r + 1) * padded - 1] = 0;
    gemm::convert(from + r * depth * source.bytes, source.type, source.zero, depth, 1, to + r * padded, 1);
  }
  return to;
}

// A panel of columns: element (k, column) lies at k * depth_step + column * column_step.
template <class T>
void pack_columns(const uint8_t* from, const Source& source, int64_t depth_step, int64_t column_step, int64_t depth, int64_t first,
                  int64_t count, typename T::Element* panel) {
  if (count < kColumns || gemm::padded_depth<T>(depth) != depth) std::fill(panel, panel + gemm::padded_depth<T>(depth) * kColumns, typename T::Element{0});
  const uint8_t* base = from + first * column_step * source.bytes;
  if (column_step == 1) {
    for (int64_t k = 0; k < depth; ++k) gemm::convert(base + k * depth_step * source.bytes, source.type, source.zero, count, 1, gemm::panel_entry<T>(panel, k), T::kStep);
    return;
  }
  // Depths with the same remainder are a fixed distance apart in the panel.
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t s = 0; s < std::min(T::kStep, depth); ++s) {
      gemm::convert(base + (j * column_step + s * depth_step) * source.bytes, source.type, source.zero, (depth - s + T::kStep - 1) / T::kStep,
                    depth_step * T::kStep, panel + j * T::kStep + s, kColumns * T::kStep);
    }
  }
}

// Scratch: left rows, then panels.
template <class T>
std::size_t scratch_bytes(int64_t rows, int64_t depth, int64_t columns) {
  const int64_t padded = gemm::padded_depth<T>(depth), size = sizeof(typename T::Element);
  return static_cast<std::size_t>(rounded(rows * padded * size) + rounded(gemm::panels_at_once<T>(depth, columns) * kColumns * padded * size));
}

template <class T>
Prepared linear(const Call& call) {
  using Element = typename T::Element;
  const TensorInfo &x = call.input(0), &w = call.input(1), &y = call.result();
  require(x.rank() >= 1 && w.rank() == 2 && y.rank() == x.rank() && y.dims.back() == w.dims[0] && x.dims.back() == w.dims[1], call, "the shapes do not fit");
  require(std::equal(x.dims.begin(), x.dims.end() - 1, y.dims.begin()), call, "the shapes do not fit");
  const int64_t outputs = w.dims[0], depth = w.dims[1], items = depth == 0 ? 0 : x.elements() / depth;
  require(depth >= 1 || y.elements() == 0, call, "there is nothing to sum");
  const Source sx(x);
  Source sw(w);
  sw.zero = 0;
  const Finish finish(call, outputs, true);
  // The weights are the left operand: one channel's results are a strided row.
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* rows = reinterpret_cast<Element*>(scratch);
            auto* panels = reinterpret_cast<Element*>(scratch + rounded(outputs * gemm::padded_depth<T>(depth) * static_cast<int64_t>(sizeof(Element))));
            const Element* left = left_rows<T>(in[1], sw, outputs, depth, rows);
            gemm::multiply<T>(left, gemm::padded_depth<T>(depth), outputs, depth, items, panels,
                              [&](int64_t first, int64_t count, Element* panel) { pack_columns<T>(in[0], sx, 1, depth, depth, first, count, panel); },
                              [&](int64_t row, int64_t first, int64_t count, const typename T::Sum* sums) { finish.row(in, out, row, first * outputs + row, outputs, count, sums); });
          },
          scratch_bytes<T>(outputs, depth, items)};
}

template <class T>
Prepared matmul(const Call& call) {
  using Element = typename T::Element;
  const TensorInfo &a = call.input(0), &b = call.input(1), &y = call.result();
  require(a.rank() >= 2 && b.rank() >= 2 && y.rank() >= 2, call, "matrices are expected");
  const int64_t m = a.dims[a.rank() - 2], depth = a.dims.back(), n = b.dims.back();
  require(b.dims[b.rank() - 2] == depth && y.dims[y.rank() - 2] == m && y.dims.back() == n, call, "the shapes do not fit");
  const std::vector<int64_t> la(a.dims.begin(), a.dims.end() - 2), lb(b.dims.begin(), b.dims.end() - 2);
  std::vector<int64_t> dims(y.dims.begin(), y.dims.end() - 2);
  if (dims.empty()) dims = {1};
  const std::array<std::vector<int64_t>, 2> strides = {broadcast_strides(la, dims), broadcast_strides(lb, dims)};
  const Source sa(a), sb(b);
  const Finish finish(call, 1, false);
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* rows = reinterpret_cast<Element*>(scratch);
            auto* panels = reinterpret_cast<Element*>(scratch + rounded(m * gemm::padded_depth<T>(depth) * static_cast<int64_t>(sizeof(Element))));
            int64_t item = 0;
            for_rows(dims, strides, [&](const int64_t* at) {
              for (int64_t s = 0; s < dims.back(); ++s, ++item) {
                const uint8_t* pa = in[0] + (at[0] + s * strides[0].back()) * m * depth * sa.bytes;
                const uint8_t* pb = in[1] + (at[1] + s * strides[1].back()) * depth * n * sb.bytes;
                gemm::multiply<T>(left_rows<T>(pa, sa, m, depth, rows), gemm::padded_depth<T>(depth), m, depth, n, panels,
                                  [&](int64_t first, int64_t count, Element* panel) { pack_columns<T>(pb, sb, n, 1, depth, first, count, panel); },
                                  [&](int64_t row, int64_t first, int64_t count, const typename T::Sum* sums) { finish.row(in, out, 0, (item * m + row) * n + first, 1, count, sums); });
              }
            });
          },
          scratch_bytes<T>(m, depth, n)};
}

Prepared prepare_linear(const Call& call) {
  switch (gemm::kind_of(call)) {
    case gemm::Kind::kReal: return linear<gemm::Real>(call);
    case gemm::Kind::kNarrow: return linear<gemm::Narrow>(call);
    default: return linear<gemm::Wide>(call);
  }
}

Prepared prepare_matmul(const Call& call) {
  switch (gemm::kind_of(call)) {
    case gemm::Kind::kReal: return matmul<gemm::Real>(call);
    case gemm::Kind::kNarrow: return matmul<gemm::Narrow>(call);
    default: return matmul<gemm::Wide>(call);
  }
}

}  // namespace

Prepared prepare_conv(const Call& call);
Prepared prepare_conv_transpose(const Call& call);

const KernelTable& product_kernels() {
  static const KernelTable table = {{"conv", prepare_conv}, {"conv_transpose", prepare_conv_transpose}, {"linear", prepare_linear}, {"matmul", prepare_matmul}};
  return table;
}

}  // namespace gadl
