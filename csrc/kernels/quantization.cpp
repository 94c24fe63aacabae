// SPDX-License-Identifier: Apache-2.0
// Conversions between real and integer tensors, and tables.
#include <cmath>
#include <cstring>

#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

void same_shape(const Call& call) { require(call.input(0).dims == call.result().dims, call, "the shapes differ"); }

// Scale of every element: one value, or one per index of an axis.
struct Scales {
  std::vector<float> values;
  int64_t inner = 1;

  Scales(const Call& call, const TensorInfo& t) {
    for (double s : t.scales) values.push_back(static_cast<float>(s));
    require(!values.empty(), call, "the integer tensor has no scale");
    if (values.size() == 1) {
      inner = std::max<int64_t>(t.elements(), 1);
      return;
    }
    require(t.axis >= 0 && t.axis < t.rank() && t.dims[t.axis] == static_cast<int64_t>(values.size()), call, "the scales do not fit the axis");
    for (int i = t.axis + 1; i < t.rank(); ++i) inner *= t.dims[i];
  }
};

// Calls `run(first, count, scale)` for stretches of one scale.
template <class Run>
void for_scales(const Scales& scales, int64_t n, Run run) {
  std::size_t channel = 0;
  for (int64_t i = 0; i < n; i += scales.inner) {
    run(i, std::min(scales.inner, n - i), scales.values[channel]);
    if (++channel == scales.values.size()) channel = 0;
  }
}

Prepared quantize(const Call& call) {
  same_shape(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.is_float() && !y.is_float(), call, "a real operand and an integer result are expected");
  const Scales scales(call, y);
  const int64_t n = x.elements(), xe = x.element_bytes(), ye = y.element_bytes(), zero = y.zero_point;
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  int64_t low, high;
  integer_range(yt, low, high);
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for_scales(scales, n, [&](int64_t first, int64_t count, float scale) {
      for (int64_t i = first; i < first + count; ++i) {
        const double q = std::nearbyint(load_real(in[0] + i * xe, xt) / scale);
        const double total = (std::isnan(q) ? 0 : q) + static_cast<double>(zero);
        const int64_t value = total <= static_cast<double>(low) ? low : total >= static_cast<double>(high) ? high : static_cast<int64_t>(total);
        store_whole(out[0] + i * ye, yt, value);
      }
    });
  }};
}

Prepared dequantize(const Call& call) {
  same_shape(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  require(!x.is_float() && y.is_float(), call, "an integer operand and a real result are expected");
  const Scales scales(call, x);
  const int64_t n = x.elements(), xe = x.element_bytes(), ye = y.element_bytes(), zero = x.zero_point;
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for_scales(scales, n, [&](int64_t first, int64_t count, float scale) {
      for (int64_t i = first; i < first + count; ++i) store_real(out[0] + i * ye, yt, static_cast<float>(wrapping_sub(load_whole(in[0] + i * xe, xt), zero)) * scale);
    });
  }};
}

Prepared requantize(const Call& call) {
  same_shape(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const Requant* found = call.attrs.requant("requant");
  require(found != nullptr && found->multiplier.size() == 1 && found->shift.size() == 1, call, "one requantisation is expected");
  require(!x.is_float() && !y.is_float(), call, "integers are expected");
  const int32_t multiplier = found->multiplier[0];
  const int shift = found->shift[0];
  const npu::Round rounding = found->rounding;
  const Bounds bounds = bounds_of(call);
  const int64_t n = x.elements(), xe = x.element_bytes(), ye = y.element_bytes(), zx = x.zero_point, zy = y.zero_point;
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t value = npu::requantize(load_whole(in[0] + i * xe, xt) - zx, multiplier, shift, rounding);
      store_whole(out[0] + i * ye, yt, npu::clamp64(zy + value, bounds.integer_low, bounds.integer_high));
    }
  }};
}

Prepared lut(const Call& call) {
  same_shape(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const Attribute* table = call.attrs.find("table");
  require(table != nullptr && table->kind == GADL_ATTR_TENSOR && table->dtype == y.dtype, call, "'table' does not fit the result's type");
  const bool bytes = x.dtype == GADL_DTYPE_I8;
  require(bytes || (x.dtype == GADL_DTYPE_I16 && y.dtype == GADL_DTYPE_I16), call, "a table takes i8, or i16 to i16");
  const int64_t n = x.elements(), e = y.element_bytes();
  require(static_cast<int64_t>(table->bytes.size()) == (bytes ? 256 : 513) * e, call, "'table' has a wrong number of entries");
  const std::vector<uint8_t> entries = table->bytes;
  if (bytes) {
    return {[=](Inputs in, Outputs out, uint8_t*) {
      for (int64_t i = 0; i < n; ++i) std::memcpy(out[0] + i * e, entries.data() + (in[0][i] ^ 0x80u) * e, e);
    }};
  }
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t i = 0; i < n; ++i) {
      int16_t value, pair[2];
      std::memcpy(&value, in[0] + 2 * i, 2);
      const int32_t index = value + 32768;
      std::memcpy(pair, entries.data() + (index >> 7) * 2, 4);
      const auto result = static_cast<int16_t>((pair[0] * 128 + (pair[1] - pair[0]) * (index & 127) + 64) >> 7);
      std::memcpy(out[0] + 2 * i, &result, 2);
    }
  }};
}

}  // namespace

const KernelTable& quantization_kernels() {
  static const KernelTable table = {{"quantize", quantize}, {"dequantize", dequantize}, {"requantize", requantize}, {"lut", lut}};
  return table;
}

}  // namespace gadl
