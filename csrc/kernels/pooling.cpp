// SPDX-License-Identifier: Apache-2.0
// max_pool and avg_pool over one or two spatial axes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

// One spatial axis of a window: which operand indices belong to each result index.
struct Axis {
  int64_t size = 1, out = 1, kernel = 1, stride = 1, before = 0, after = 0, dilation = 1;

  int64_t start(int64_t o) const { return o * stride - before; }
  // Kernel positions [first, last) that lie inside the operand.
  int64_t first(int64_t o) const { return start(o) >= 0 ? 0 : std::min(kernel, (-start(o) + dilation - 1) / dilation); }
  int64_t last(int64_t o) const { return start(o) >= size ? 0 : std::min(kernel, (size - start(o) + dilation - 1) / dilation); }
  // Denominator along this axis: what ceil_mode adds behind the padding never counts.
  int64_t counted(int64_t o, bool padding) const {
    const int64_t low = padding ? -before : 0, high = padding ? size + after : size;
    return std::min(start(o) + kernel, high) - std::max(start(o), low);
  }
};

struct Window {
  int64_t planes = 1;
  Axis rows, columns;
};

Window window_of(const Call& call) {
  const TensorInfo &x = call.input(0), &y = call.result();
  const int rank = x.rank() - 2;
  require((rank == 1 || rank == 2) && y.rank() == x.rank() && x.dims[0] == y.dims[0] && x.dims[1] == y.dims[1], call, "one or two spatial dimensions are expected");
  require(x.dtype == y.dtype || call.attrs.requant("requant") != nullptr, call, "element types differ");
  const std::vector<int64_t> kernel = call.attrs.ints("kernel"), strides = call.attrs.ints("strides"), pads = call.attrs.ints("pads");
  std::vector<int64_t> dilations = call.attrs.ints("dilations", false);
  if (dilations.empty()) dilations.assign(rank, 1);
  const auto n = static_cast<std::size_t>(rank);
  require(kernel.size() == n && strides.size() == n && pads.size() == 2 * n && dilations.size() == n, call, "the window's attributes do not fit");
  Window w;
  w.planes = x.dims[0] * x.dims[1];
  for (int i = 0; i < rank; ++i) {
    Axis& a = i + 1 == rank ? w.columns : w.rows;
    a = {x.dims[2 + i], y.dims[2 + i], kernel[i], strides[i], pads[i], pads[rank + i], dilations[i]};
    constexpr int64_t kMost = int64_t{1} << 20;
    require(a.kernel >= 1 && a.stride >= 1 && a.dilation >= 1 && a.before >= 0 && a.after >= 0, call, "the window's attributes are negative");
    require(a.kernel < kMost && a.stride < kMost && a.dilation < kMost && a.before < kMost && a.after < kMost, call, "the window's attributes are too large");
  }
  return w;
}

// `fold(state, element number)` over each window, then `done(result number, state, row, column)`.
template <class State, class Fold, class Done>
void slide(const Window& w, State initial, Fold fold, Done done) {
  const Axis &r = w.rows, &c = w.columns;
  int64_t result = 0;
  for (int64_t plane = 0; plane < w.planes; ++plane) {
    const int64_t base = plane * r.size * c.size;
    for (int64_t oy = 0; oy < r.out; ++oy)
      for (int64_t ox = 0; ox < c.out; ++ox) {
        State state = initial;
        const int64_t j0 = c.first(ox), j1 = c.last(ox);
        for (int64_t i = r.first(oy); i < r.last(oy); ++i) {
          const int64_t at = base + (r.start(oy) + i * r.dilation) * c.size + c.start(ox);
          for (int64_t j = j0; j < j1; ++j) fold(state, at + j * c.dilation);
        }
        done(result++, state, oy, ox);
      }
  }
}

template <class E>
Prepared max_of(const Window& w, E lowest) {
  return {[=](Inputs in, Outputs out, uint8_t*) {
    const auto* x = reinterpret_cast<const E*>(in[0]);
    auto* y = reinterpret_cast<E*>(out[0]);
    slide(w, lowest, [=](E& best, int64_t at) {
      // NaN propagates: the comparison is false for it.
      if (!(x[at] <= best)) best = std::is_floating_point_v<E> && best != best ? best : x[at];
    }, [=](int64_t at, E best, int64_t, int64_t) { y[at] = best; });
  }};
}

Prepared max_pool(const Call& call) {
  const Window w = window_of(call);
  const TensorInfo& x = call.input(0);
  require(x.dtype == call.result().dtype && x.dtype != GADL_DTYPE_BOOL, call, "element types differ");
  switch (x.dtype) {
    case GADL_DTYPE_F32: return max_of<float>(w, -std::numeric_limits<float>::infinity());
    case GADL_DTYPE_F64: return max_of<double>(w, -std::numeric_limits<double>::infinity());
    case GADL_DTYPE_I8: return max_of<int8_t>(w, INT8_MIN);
    case GADL_DTYPE_U8: return max_of<uint8_t>(w, 0);
    case GADL_DTYPE_I16: return max_of<int16_t>(w, INT16_MIN);
    case GADL_DTYPE_I32: return max_of<int32_t>(w, INT32_MIN);
    case GADL_DTYPE_I64: return max_of<int64_t>(w, INT64_MIN);
    default: break;
  }
  const gadl_dtype t = x.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    slide(w, -std::numeric_limits<float>::infinity(), [=](float& best, int64_t at) {
      const float v = load_real(in[0] + at * 2, t);
      if (!(v <= best)) best = std::isnan(best) ? best : v;
    }, [=](int64_t at, float best, int64_t, int64_t) { store_real(out[0] + at * 2, t, best); });
  }};
}

Prepared integer_average(const Call& call, const Window& w, const Requant& r, bool padding) {
  const TensorInfo &x = call.input(0), &y = call.result();
  const int64_t positions = w.rows.kernel * w.columns.kernel;
  require(!x.is_float() && !y.is_float(), call, "integers are expected");
  require(r.multiplier.size() == 1 || static_cast<int64_t>(r.multiplier.size()) == positions, call, "one requantisation, or one per count, is expected");
  const Bounds b = bounds_of(call);
  const int64_t xe = x.element_bytes(), ye = y.element_bytes(), zx = x.zero_point, zy = y.zero_point;
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    slide(w, int64_t{0}, [=](int64_t& sum, int64_t at) { sum += load_whole(in[0] + at * xe, xt) - zx; },
          [&](int64_t at, int64_t sum, int64_t oy, int64_t ox) {
            const int64_t count = std::max<int64_t>(1, w.rows.counted(oy, padding) * w.columns.counted(ox, padding));
            const std::size_t k = r.multiplier.size() == 1 ? 0 : static_cast<std::size_t>(std::min(count, positions) - 1);
            const int64_t value = npu::requantize(sum, r.multiplier[k], r.shift[k], r.rounding);
            store_whole(out[0] + at * ye, yt, npu::clamp64(zy + value, b.integer_low, b.integer_high));
          });
  }};
}

Prepared avg_pool(const Call& call) {
  const Window w = window_of(call);
  require(w.rows.dilation == 1 && w.columns.dilation == 1, call, "an average has no dilation");
  const bool padding = call.attrs.integer("count_include_pad", 0) != 0;
  if (const Requant* r = call.attrs.requant("requant")) return integer_average(call, w, *r, padding);
  const TensorInfo& x = call.input(0);
  require(x.is_float() && call.result().dtype == x.dtype, call, "integers need a requantisation");
  const int64_t e = x.element_bytes();
  const gadl_dtype t = x.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    const auto done = [&](int64_t at, float sum, int64_t oy, int64_t ox) {
      const int64_t count = std::max<int64_t>(1, w.rows.counted(oy, padding) * w.columns.counted(ox, padding));
      store_real(out[0] + at * e, t, sum / static_cast<float>(count));
    };
    if (t == GADL_DTYPE_F32) {
      const auto* p = reinterpret_cast<const float*>(in[0]);
      slide(w, 0.0f, [=](float& sum, int64_t at) { sum += p[at]; }, done);
    } else {
      slide(w, 0.0f, [=](float& sum, int64_t at) { sum += load_real(in[0] + at * e, t); }, done);
    }
  }};
}

}  // namespace

const KernelTable& pooling_kernels() {
  static const KernelTable table = {{"max_pool", max_pool}, {"avg_pool", avg_pool}};
  return table;
}

}  // namespace gadl
