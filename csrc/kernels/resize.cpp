// SPDX-License-Identifier: Apache-2.0
// resize: every axis that changes is resampled on its own, first axis first.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

// Fractional bits of linear weights in the integer form (docs/numerics.md section 3).
constexpr int kWeightBits = 11;

// Position in the operand of every result index (ONNX Resize's coordinate modes), in f32.
std::vector<float> source_positions(const Call& call, int64_t extent, int64_t out, double scale, const std::string& mode) {
  std::vector<float> positions(static_cast<std::size_t>(out));
  const float inverse = 1.0f / static_cast<float>(scale);
  const float step = out > 1 ? static_cast<float>(static_cast<double>(extent - 1) / static_cast<double>(out - 1)) : 0;
  const auto adjust = static_cast<float>(static_cast<double>(out) / (scale * static_cast<double>(extent)));
  const float offset = static_cast<float>(static_cast<double>(extent) / 2) * (1 - adjust);
  for (int64_t i = 0; i < out; ++i) {
    const auto index = static_cast<float>(i);
    const float half = (index + 0.5f) * inverse - 0.5f;
    float& p = positions[i];
    if (mode == "half_pixel") p = half;
    else if (mode == "pytorch_half_pixel") p = out > 1 ? half : 0;
    else if (mode == "align_corners") p = index * step;
    else if (mode == "half_pixel_symmetric") p = offset + (index + 0.5f) * inverse - 0.5f;
    else if (mode == "asymmetric") p = index * inverse;
    else fail(call, "the coordinate mode is not known");
  }
  return positions;
}

// One axis: each result index is a weighted sum of up to four operand indices.
struct Taps {
  int64_t outer = 1, extent = 1, out = 1, inner = 1;
  int count = 2;
  std::vector<std::array<int64_t, 4>> index;
  std::vector<std::array<float, 4>> weight;
  std::vector<int64_t> upper;  // linear: weight of the second index, kWeightBits fractional bits
};

int64_t limited(float value, int64_t extent) {
  // NaN and huge positions end at the borders.
  return value >= static_cast<float>(extent - 1) ? extent - 1 : value > 0 ? static_cast<int64_t>(value) : 0;
}

void linear_taps(Taps& t, const std::vector<float>& positions) {
  for (float position : positions) {
    const float clipped = std::min(std::max(position, 0.0f), static_cast<float>(t.extent - 1));
    const int64_t low = limited(clipped, t.extent), high = std::min(low + 1, t.extent - 1);
    // The interpreter subtracts in f64.
    const auto weight = static_cast<float>(static_cast<double>(clipped) - static_cast<double>(low));
    t.index.push_back({low, high, 0, 0});
    t.weight.push_back({1 - weight, weight, 0, 0});
    t.upper.push_back(static_cast<int64_t>(std::nearbyint(weight * static_cast<float>(1 << kWeightBits))));
  }
}

void cubic_taps(Taps& t, const std::vector<float>& positions, double a) {
  t.count = 4;
  for (float position : positions) {
    const double base = std::floor(static_cast<double>(position));
    std::array<int64_t, 4> index{};
    std::array<float, 4> weight{};
    for (int k = 0; k < 4; ++k) {
      const double at = base + k - 1, d = std::fabs(static_cast<double>(position) - at);
      const double near = ((a + 2) * d - (a + 3)) * d * d + 1, far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
      weight[k] = static_cast<float>(d <= 1 ? near : d < 2 ? far : 0);
      index[k] = limited(static_cast<float>(at), t.extent);
    }
    t.index.push_back(index);
    t.weight.push_back(weight);
  }
}

void nearest_taps(Taps& t, const std::vector<float>& positions, const Call& call) {
  const std::string rule = call.attrs.text("nearest", "round_prefer_floor");
  t.count = 1;
  for (float p : positions) {
    float chosen = 0;
    if (rule == "floor") chosen = std::floor(p);
    else if (rule == "ceil") chosen = std::ceil(p);
    else if (rule == "round_prefer_ceil") chosen = std::floor(p + 0.5f);
    else if (rule == "round_prefer_floor") chosen = std::ceil(p - 0.5f);
    else fail(call, "the rounding of positions is not known");
    t.index.push_back({limited(chosen, t.extent), 0, 0, 0});
  }
}

std::vector<Taps> axes_of(const Call& call, const std::string& mode) {
  const TensorInfo &x = call.input(0), &y = call.result();
  const std::vector<int64_t> sizes = call.attrs.ints("sizes");
  const std::vector<double> scales = call.attrs.reals("scales");
  require(sizes == y.dims && scales.size() == sizes.size() && x.rank() == y.rank(), call, "sizes and scales do not fit the shapes");
  const std::string coordinate = call.attrs.text("coordinate", "half_pixel");
  std::vector<Taps> axes;
  std::vector<int64_t> dims = x.dims;
  for (int i = 0; i < x.rank(); ++i) {
    require(x.dims[i] >= 1 && sizes[i] >= 1 && std::isfinite(scales[i]) && scales[i] > 0, call, "sizes and scales must be positive");
    if (sizes[i] == x.dims[i] && scales[i] == 1) continue;
    Taps t;
    for (int k = 0; k < i; ++k) t.outer *= dims[k];
    for (int k = i + 1; k < x.rank(); ++k) t.inner *= dims[k];
    t.extent = x.dims[i];
    t.out = dims[i] = sizes[i];
    const std::vector<float> positions = source_positions(call, t.extent, t.out, scales[i], coordinate);
    if (mode == "linear") linear_taps(t, positions);
    else if (mode == "cubic") cubic_taps(t, positions, call.attrs.real("cubic_a", -0.75));
    else nearest_taps(t, positions, call);
    axes.push_back(std::move(t));
  }
  return axes;
}

void resample(const Taps& t, const float* from, float* to) {
  for (int64_t o = 0; o < t.outer; ++o)
    for (int64_t i = 0; i < t.out; ++i, to += t.inner) {
      const float* base = from + o * t.extent * t.inner;
      for (int64_t k = 0; k < t.inner; ++k) {
        float sum = base[t.index[i][0] * t.inner + k] * t.weight[i][0];
        for (int n = 1; n < t.count; ++n) sum += base[t.index[i][n] * t.inner + k] * t.weight[i][n];
        to[k] = sum;
      }
    }
}

void resample(const Taps& t, const int64_t* from, int64_t* to) {
  for (int64_t o = 0; o < t.outer; ++o)
    for (int64_t i = 0; i < t.out; ++i, to += t.inner) {
      const int64_t* base = from + o * t.extent * t.inner;
      const int64_t *low = base + t.index[i][0] * t.inner, *high = base + t.index[i][1] * t.inner, upper = t.upper[i];
      for (int64_t k = 0; k < t.inner; ++k) to[k] = low[k] * ((1 << kWeightBits) - upper) + high[k] * upper;
    }
}

// Elements of the largest intermediate tensor.
int64_t most_elements(const Call& call, const std::vector<Taps>& axes) {
  int64_t most = call.input(0).elements();
  for (const Taps& t : axes) {
    int64_t n = 0, all = 0;
    const bool overflow = __builtin_mul_overflow(t.outer, t.out, &n) || __builtin_mul_overflow(n, t.inner, &all) || all > (int64_t{1} << 40);
    require(!overflow, call, "an intermediate tensor is too large");
    most = std::max(most, all);
  }
  return most;
}

// Runs all axes between two buffers of the scratch memory; returns the one with the result.
template <class E>
E* resample_all(const std::vector<Taps>& axes, E* from, E* to) {
  for (const Taps& t : axes) {
    resample(t, from, to);
    std::swap(from, to);
  }
  return from;
}

Prepared integer_linear(const Call& call, const std::vector<Taps>& axes, const Requant& r) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(r.multiplier.size() == 1 && !x.is_float() && !y.is_float() && axes.size() <= 2, call, "one requantisation and at most two axes are expected");
  const Bounds b = bounds_of(call);
  const int64_t n = x.elements(), m = y.elements(), most = most_elements(call, axes), xe = x.element_bytes(), ye = y.element_bytes();
  const int64_t zx = x.zero_point, zy = y.zero_point;
  const int missing = kWeightBits * (2 - static_cast<int>(axes.size()));
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* from = reinterpret_cast<int64_t*>(scratch);
            for (int64_t i = 0; i < n; ++i) from[i] = load_whole(in[0] + i * xe, xt) - zx;
            const int64_t* sums = resample_all(axes, from, from + most);
            for (int64_t i = 0; i < m; ++i) {
              const int64_t value = npu::requantize(sums[i] * (int64_t{1} << missing), r.multiplier[0], r.shift[0], r.rounding);
              store_whole(out[0] + i * ye, yt, npu::clamp64(zy + value, b.integer_low, b.integer_high));
            }
          },
          static_cast<std::size_t>(most) * 2 * sizeof(int64_t)};
}

// Selects elements: the offsets along each axis are added up.
Prepared nearest(const Call& call, const std::vector<Taps>& axes) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.dtype == y.dtype, call, "element types differ");
  std::vector<std::vector<int64_t>> offsets(x.dims.size());
  std::size_t next = 0;
  int64_t step = x.elements();
  for (std::size_t i = 0; i < x.dims.size(); ++i) {
    step /= x.dims[i];
    const bool changes = next < axes.size() && (y.dims[i] != x.dims[i] || call.attrs.reals("scales")[i] != 1);
    for (int64_t k = 0; k < y.dims[i]; ++k) offsets[i].push_back(step * (changes ? axes[next].index[k][0] : k));
    next += changes;
  }
  if (offsets.empty()) offsets = {{0}};
  const int64_t e = y.element_bytes();
  return {[=](Inputs in, Outputs out, uint8_t*) {
    const int last = static_cast<int>(offsets.size()) - 1;
    std::size_t index[GADL_MOST_DIMS] = {};
    uint8_t* to = out[0];
    while (true) {
      int64_t base = 0;
      for (int i = 0; i < last; ++i) base += offsets[i][index[i]];
      for (int64_t o : offsets[last]) {
        std::memcpy(to, in[0] + (base + o) * e, e);
        to += e;
      }
      int i = last - 1;
      for (; i >= 0; --i) {
        if (++index[i] < offsets[i].size()) break;
        index[i] = 0;
      }
      if (i < 0) return;
    }
  }};
}

}  // namespace

Prepared prepare_resize(const Call& call) {
  const std::string mode = call.attrs.text("mode", "nearest");
  require(mode == "nearest" || mode == "linear" || mode == "cubic", call, "the mode is not known");
  const std::vector<Taps> axes = axes_of(call, mode);
  const TensorInfo &x = call.input(0), &y = call.result();
  if (mode == "nearest") return nearest(call, axes);
  if (const Requant* r = call.attrs.requant("requant")) {
    require(mode == "linear", call, "only linear resampling has an integer form");
    return integer_linear(call, axes, *r);
  }
  require(x.is_float() && y.is_float(), call, "integers need a requantisation");
  const int64_t n = x.elements(), m = y.elements(), most = most_elements(call, axes), xe = x.element_bytes(), ye = y.element_bytes();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* from = reinterpret_cast<float*>(scratch);
            for (int64_t i = 0; i < n; ++i) from[i] = load_real(in[0] + i * xe, xt);
            const float* sums = resample_all(axes, from, from + most);
            for (int64_t i = 0; i < m; ++i) store_real(out[0] + i * ye, yt, sums[i]);
          },
          static_cast<std::size_t>(most) * 2 * sizeof(float)};
}

}  // namespace gadl
