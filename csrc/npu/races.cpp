// SPDX-License-Identifier: Apache-2.0
#include "races.hpp"

namespace gadl::npu {
namespace {

constexpr int64_t kMostPages = 1024;
constexpr int kLeastShift = 8;

// True when some byte of the rows of `a` from dimension `dim` on, starting at `base`, lies in [begin, end).
bool touches(const Access& a, size_t dim, int64_t base, int64_t begin, int64_t end) {
  while (dim < a.dims.size() && a.dims[dim].count == 1) ++dim;
  if (dim == a.dims.size()) return base < end && begin < base + a.row;
  int64_t inner = a.row;
  for (size_t d = dim + 1; d < a.dims.size(); ++d) inner += (a.dims[d].count - 1) * a.dims[d].stride;
  const Access::Dim& outer = a.dims[dim];
  // Copies i with base + i * stride + inner > begin and base + i * stride < end.
  const int64_t low = begin - base - inner, high = end - base - 1;
  if (high < 0) return false;
  const int64_t first = low < 0 ? 0 : low / outer.stride + 1, last = std::min(outer.count - 1, high / outer.stride);
  for (int64_t i = first; i <= last; ++i)
    if (touches(a, dim + 1, base + i * outer.stride, begin, end)) return true;
  return false;
}

int64_t rows_of(const Access& a) {
  int64_t rows = 1;
  for (const Access::Dim& dim : a.dims) rows *= dim.count;
  return rows;
}

bool any_row_touches(const Access& rows, size_t dim, int64_t base, const Access& other) {
  while (dim < rows.dims.size() && rows.dims[dim].count == 1) ++dim;
  if (dim == rows.dims.size()) return touches(other, 0, other.begin, base, base + rows.row);
  for (int64_t i = 0; i < rows.dims[dim].count; ++i)
    if (any_row_touches(rows, dim + 1, base + i * rows.dims[dim].stride, other)) return true;
  return false;
}

}  // namespace

bool intersects(const Access& a, const Access& b) {
  if (a.space != b.space || a.region != b.region || a.begin >= b.end || b.begin >= a.end) return false;
  if (a.dense() && b.dense()) return true;
  const Access& fewer = rows_of(a) <= rows_of(b) ? a : b;
  return any_row_touches(fewer, 0, fewer.begin, &fewer == &a ? b : a);
}

History::History(int64_t size) {
  for (shift_ = kLeastShift; (size >> shift_) >= kMostPages; ++shift_) {
  }
  pages_.resize(static_cast<size_t>(size >> shift_) + 1);
}

uint64_t History::shape_of(const Access& access) {
  uint64_t hash = static_cast<uint64_t>(access.row);
  for (const Access::Dim& dim : access.dims) {
    for (const int64_t value : {dim.count, dim.stride}) hash = (hash ^ static_cast<uint64_t>(value)) * 0x9E3779B97F4A7C15u;
  }
  return hash;
}

}  // namespace gadl::npu
