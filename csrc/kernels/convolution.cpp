// SPDX-License-Identifier: Apache-2.0
// conv and conv_transpose.
//
// The operand is first copied into planes with its padding (and, transposed, with zeros between its elements), as floats or
// centred integers. Depthwise filters then run over the planes directly; all others are products of the filters with panels of
// gathered windows. A transposed convolution is a convolution of the spread planes with the mirrored filters.
#include <algorithm>
#include <cstring>

#include "finish.hpp"
#include "gemm.hpp"
#include "kernel.hpp"

namespace gadl {
namespace {

using gemm::kColumns;

struct Spatial {
  int64_t size = 1, out = 1, kernel = 1, stride = 1, dilation = 1;
  int64_t before = 0;  // zeros in front; negative: elements that are cut off
  int64_t spread = 1;  // distance of neighbouring elements in the planes

  int64_t padded() const { return (out - 1) * stride + (kernel - 1) * dilation + 1; }
};

struct Window {
  int64_t batch = 0, channels = 0, filters = 0, groups = 1;
  Spatial rows, columns;
  bool transposed = false;

  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return filters / groups; }
  int64_t taps() const { return rows.kernel * columns.kernel; }
  int64_t depth() const { return group_channels() * taps(); }
  int64_t pixels() const { return rows.out * columns.out; }
  int64_t plane() const { return rows.padded() * columns.padded(); }
  bool depthwise() const { return group_channels() == 1; }
  // The operand itself can serve as planes.
  bool in_place() const {
    return taps() == 1 && rows.stride == 1 && columns.stride == 1 && rows.spread == 1 && columns.spread == 1 && rows.before == 0 &&
           columns.before == 0 && rows.out == rows.size && columns.out == columns.size;
  }
  // Where the weight of a filter, channel of its group and tap lies.
  int64_t weight_index(int64_t filter, int64_t channel, int64_t tap) const {
    if (!transposed) return (filter * group_channels() + channel) * taps() + tap;
    const int64_t group = filter / group_filters();
    return ((group * group_channels() + channel) * group_filters() + filter % group_filters()) * taps() + taps() - 1 - tap;
  }
};

Window window_of(const Call& call, bool transposed) {
  const TensorInfo &x = call.input(0), &w = call.input(1), &y = call.result();
  const int rank = x.rank() - 2;
  require((rank == 1 || rank == 2) && w.rank() == x.rank() && y.rank() == x.rank(), call, "one or two spatial dimensions are expected");
  const auto strides = call.attrs.ints("strides"), pads = call.attrs.ints("pads"), dilations = call.attrs.ints("dilations");
  const auto n = static_cast<std::size_t>(rank);
  require(strides.size() == n && dilations.size() == n && pads.size() == 2 * n, call, "the window's attributes do not fit");
  std::vector<int64_t> extra = transposed ? call.attrs.ints("output_padding") : std::vector<int64_t>(n, 0);
  require(extra.size() == n, call, "the window's attributes do not fit");
  Window g;
  g.transposed = transposed;
  g.batch = x.dims[0];
  g.channels = x.dims[1];
  g.filters = y.dims[1];
  g.groups = call.attrs.integer("groups", 1);
  require(g.groups >= 1 && g.channels >= 1 && g.channels % g.groups == 0 && g.filters % g.groups == 0 && y.dims[0] == g.batch, call, "the groups do not fit");
  const bool fits = transposed ? w.dims[0] == g.channels && w.dims[1] == g.group_filters() : w.dims[0] == g.filters && w.dims[1] == g.group_channels();
  require(fits, call, "the weights do not fit");
  for (int i = 0; i < rank; ++i) {
    constexpr int64_t kMost = int64_t{1} << 20;
    const int64_t size = x.dims[2 + i], out = y.dims[2 + i], kernel = w.dims[2 + i];
    const int64_t stride = strides[i], dilation = dilations[i], before = pads[i], after = pads[rank + i];
    for (int64_t v : {stride, dilation, size, out, kernel}) require(v >= 1 && v < kMost, call, "an extent of the window is out of range");
    for (int64_t v : {before, after, extra[i]}) require(v >= 0 && v < kMost, call, "an extent of the window is out of range");
    const int64_t reach = (kernel - 1) * dilation;
    const int64_t wanted = transposed ? (size - 1) * stride - before - after + reach + 1 + extra[i] : (size + before + after - reach - 1) / stride + 1;
    require(size + before + after > reach || transposed, call, "the window is larger than the padded operand");
    require(out == wanted, call, "the result's shape does not fit");
    Spatial& s = i + 1 == rank ? g.columns : g.rows;
    if (transposed) s = {size, out, kernel, 1, dilation, reach - before, stride};
    else s = {size, out, kernel, stride, dilation, before, 1};
  }
  int64_t elements = 0;
  const bool overflow = __builtin_mul_overflow(g.plane(), g.channels, &elements) || elements > (int64_t{1} << 36);
  require(!overflow, call, "the padded operand is too large");
  return g;
}

// Copies one channel into a plane. With `phases` > 1 the columns of a row are grouped by their remainder, `phase_width` each, so
// that a strided walk is contiguous.
template <class E>
void fill_plane(const Window& g, const uint8_t* from, gadl_dtype type, int64_t bytes, int64_t zero, int64_t phases, int64_t phase_width, E* plane) {
  const Spatial &r = g.rows, &c = g.columns;
  const int64_t width = phases * phase_width;
  std::fill(plane, plane + r.padded() * width, E{0});
  // Operand columns [first, last) land inside the plane.
  const int64_t first = c.before >= 0 ? 0 : (-c.before + c.spread - 1) / c.spread;
  const int64_t room = c.padded() - c.before;
  const int64_t last = std::min(c.size, room <= 0 ? 0 : (room + c.spread - 1) / c.spread);
  for (int64_t h = 0; h < r.size; ++h) {
    const int64_t row = r.before + h * r.spread;
    if (row < 0 || row >= r.padded() || first >= last) continue;
    const uint8_t* source = from + (h * c.size + first) * bytes;
    const int64_t column = c.before + first * c.spread;
    if (phases == 1) {
      gemm::convert(source, type, zero, last - first, 1, plane + row * width + column, c.spread);
      continue;
    }
    for (int64_t p = 0; p < std::min(phases, last - first); ++p) {
      const int64_t at = column + p;
      gemm::convert(source + p * bytes, type, zero, (last - first - p + phases - 1) / phases, phases, plane + row * width + at % phases * phase_width + at / phases, 1);
    }
  }
}

template <class T>
class Convolution {
 public:
  using Element = typename T::Element;
  using Sum = typename T::Sum;

  Convolution(const Call& call, bool transposed) : g_(window_of(call, transposed)), finish_(call, g_.filters, true) {
    const TensorInfo &x = call.input(0), &w = call.input(1);
    require(x.is_float() == w.is_float() && x.is_float() == call.result().is_float(), call, "the element types do not fit");
    x_type_ = x.dtype;
    w_type_ = w.dtype;
    x_bytes_ = x.element_bytes();
    w_bytes_ = w.element_bytes();
    zero_ = x.is_float() ? 0 : x.zero_point;
    const bool floats = std::is_same_v<Element, float> && x.dtype == GADL_DTYPE_F32 && w.dtype == GADL_DTYPE_F32;
    raw_weights_ = floats && !transposed;
    raw_planes_ = floats && g_.in_place();
    depth_ = gemm::padded_depth<T>(g_.depth());
  }

  Prepared prepare() const {
    return {[self = *this](Inputs in, Outputs out, uint8_t* scratch) { self.g_.depthwise() ? self.depthwise(in, out, scratch) : self.product(in, out, scratch); },
            static_cast<std::size_t>(planes_bytes() + weights_bytes() + work_bytes())};
  }

 private:
  static int64_t rounded(int64_t elements, std::size_t size) { return (elements * static_cast<int64_t>(size) + 63) / 64 * 64; }
  // Depthwise: columns are split by the stride's phases.
  int64_t phases() const { return g_.depthwise() && g_.columns.spread == 1 ? g_.columns.stride : 1; }
  int64_t phase_width() const { return (g_.columns.padded() + phases() - 1) / phases(); }
  int64_t planes_bytes() const {
    if (g_.depthwise()) return rounded(g_.rows.padded() * phases() * phase_width(), sizeof(Element));
    return raw_planes_ ? 0 : rounded(g_.channels * g_.plane(), sizeof(Element));
  }
  int64_t weights_bytes() const { return raw_weights_ && !g_.depthwise() ? 0 : rounded(g_.filters * depth_, sizeof(Element)); }
  int64_t work_bytes() const {
    if (g_.depthwise()) return rounded(g_.columns.out, sizeof(Sum));
    return rounded(gemm::panels_at_once<T>(g_.depth(), g_.pixels()) * kColumns * depth_, sizeof(Element));
  }

  // Filters as rows of [tap, channel], padded to the depth.
  const Element* weights(const uint8_t* from, Element* to) const {
    if (raw_weights_) return reinterpret_cast<const Element*>(from);
    const int64_t channels = g_.group_channels(), taps = g_.taps();
    for (int64_t o = 0; o < g_.filters; ++o) {
      Element* row = to + o * depth_;
      row[depth_ - 1] = 0;
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t c = 0; c < channels; ++c) gemm::convert(from + g_.weight_index(o, c, t) * w_bytes_, w_type_, 0, 1, 1, row + t * channels + c, 1);
    }
    return to;
  }

  void depthwise(Inputs in, Outputs out, uint8_t* scratch) const {
    auto* plane = reinterpret_cast<Element*>(scratch);
    const Element* filters = weights(in[1], reinterpret_cast<Element*>(scratch + planes_bytes()));
    auto* sums = reinterpret_cast<Sum*>(scratch + planes_bytes() + weights_bytes());
    const gemm::Accumulate<T> accumulate = gemm::accumulate_function<T>();
    const Spatial &r = g_.rows, &c = g_.columns;
    const int64_t split = phases(), width = phase_width(), each = g_.group_filters(), stride = raw_weights_ ? g_.depth() : depth_;
    for (int64_t image = 0; image < g_.batch; ++image)
      for (int64_t o = 0; o < g_.filters; ++o) {
        if (o % each == 0) fill_plane(g_, in[0] + (image * g_.channels + o / each) * r.size * c.size * x_bytes_, x_type_, x_bytes_, zero_, split, width, plane);
        for (int64_t y = 0; y < r.out; ++y) {
          std::fill(sums, sums + c.out, Sum{0});
          for (int64_t i = 0; i < r.kernel; ++i)
            for (int64_t j = 0; j < c.kernel; ++j) {
              const int64_t row = y * r.stride + i * r.dilation, column = j * c.dilation;
              accumulate(sums, plane + row * split * width + column % split * width + column / split, filters[o * stride + i * c.kernel + j], c.out);
            }
          finish_.row(in, out, o, ((image * g_.filters + o) * r.out + y) * c.out, 1, c.out, sums);
        }
      }
  }

  void product(Inputs in, Outputs out, uint8_t* scratch) const {
    auto* planes = reinterpret_cast<Element*>(scratch);
    const Element* filters = weights(in[1], reinterpret_cast<Element*>(scratch + planes_bytes()));
    auto* panels = reinterpret_cast<Element*>(scratch + planes_bytes() + weights_bytes());
    const int64_t size = g_.rows.size * g_.columns.size, pixels = g_.pixels(), each = g_.group_filters();
    for (int64_t image = 0; image < g_.batch; ++image) {
      const uint8_t* base = in[0] + image * g_.channels * size * x_bytes_;
      const Element* source = planes;
      if (raw_planes_) source = reinterpret_cast<const Element*>(base);
      else
        for (int64_t c = 0; c < g_.channels; ++c) fill_plane(g_, base + c * size * x_bytes_, x_type_, x_bytes_, zero_, 1, g_.columns.padded(), planes + c * g_.plane());
      for (int64_t group = 0; group < g_.groups; ++group) {
        const Element* own = source + group * g_.group_channels() * g_.plane();
        const auto pack = [&](int64_t first, int64_t count, Element* panel) { gather(own, first, count, panel); };
        const auto store = [&](int64_t row, int64_t first, int64_t count, const Sum* sums) {
          const int64_t o = group * each + row;
          finish_.row(in, out, o, (image * g_.filters + o) * pixels + first, 1, count, sums);
        };
        gemm::multiply<T>(filters + group * each * depth_, depth_, each, g_.depth(), pixels, panels, pack, store);
      }
    }
  }

  // One panel: `count` windows from pixel `first` on; columns behind repeat the last one.
  void gather(const Element* planes, int64_t first, int64_t count, Element* panel) const {
    const Spatial &r = g_.rows, &c = g_.columns;
    const int64_t width = c.padded(), channels = g_.group_channels(), plane = g_.plane();
    int64_t offsets[kColumns];
    for (int64_t j = 0; j < kColumns; ++j) {
      const int64_t pixel = first + std::min(j, count - 1);
      offsets[j] = pixel / c.out * r.stride * width + pixel % c.out * c.stride;
    }
    const bool contiguous = T::kStep == 1 && count == kColumns && offsets[kColumns - 1] - offsets[0] == kColumns - 1;
    const auto place = [&](int64_t k, const Element* from) {
      Element* to = gemm::panel_entry<T>(panel, k);
      if (contiguous) std::memcpy(to, from + offsets[0], sizeof(Element) * kColumns);
      else
        for (int64_t j = 0; j < kColumns; ++j) to[j * T::kStep] = from[offsets[j]];
    };
    if (depth_ != g_.depth()) {
      Element* to = gemm::panel_entry<T>(panel, g_.depth());
      for (int64_t j = 0; j < kColumns; ++j) to[j * T::kStep] = 0;
    }
    // Weights in place are ordered by channel first, packed ones by tap first (the canonical order).
    for (int64_t i = 0; i < r.kernel; ++i)
      for (int64_t j = 0; j < c.kernel; ++j) {
        const Element* tap = planes + i * r.dilation * width + j * c.dilation;
        const int64_t t = i * c.kernel + j;
        for (int64_t k = 0; k < channels; ++k) place(raw_weights_ ? k * g_.taps() + t : t * channels + k, tap + k * plane);
      }
  }

  Window g_;
  Finish finish_;
  gadl_dtype x_type_ = GADL_DTYPE_F32, w_type_ = GADL_DTYPE_F32;
  int64_t x_bytes_ = 4, w_bytes_ = 4, zero_ = 0, depth_ = 0;
  bool raw_weights_ = false, raw_planes_ = false;
};

Prepared convolution(const Call& call, bool transposed) {
  switch (gemm::kind_of(call)) {
    case gemm::Kind::kReal: return Convolution<gemm::Real>(call, transposed).prepare();
    case gemm::Kind::kNarrow: return Convolution<gemm::Narrow>(call, transposed).prepare();
    default: return Convolution<gemm::Wide>(call, transposed).prepare();
  }
}

}  // namespace

Prepared prepare_conv(const Call& call) { return convolution(call, false); }
Prepared prepare_conv_transpose(const Call& call) { return convolution(call, true); }

}  // namespace gadl
