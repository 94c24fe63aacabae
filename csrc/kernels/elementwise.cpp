// SPDX-License-Identifier: Apache-2.0
// Elementwise ops with broadcast.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

using npu::Round;
using npu::requantize;

// ---- two operands ----------------------------------------------------------------------------------------------------

template <class F>
Prepared real_binary(const Call& call, F function) {
  const TensorInfo &a = call.input(0), &b = call.input(1), &y = call.result();
  const std::vector<int64_t> dims = y.dims.empty() ? std::vector<int64_t>{1} : y.dims;
  const std::vector<int64_t> sa = broadcast_strides(a.dims, dims), sb = broadcast_strides(b.dims, dims), sy = broadcast_strides(dims, dims);
  const std::array<std::vector<int64_t>, 3> strides = {sa, sb, sy};
  const Bounds bounds = bounds_of(call);
  const gadl_dtype at = a.dtype, bt = b.dtype, yt = y.dtype;
  const int64_t ae = a.element_bytes(), be = b.element_bytes(), ye = y.element_bytes(), n = dims.back();
  if (at == GADL_DTYPE_F32 && bt == GADL_DTYPE_F32 && yt == GADL_DTYPE_F32) {
    return {[=](Inputs in, Outputs out, uint8_t*) {
        const auto* pa = reinterpret_cast<const float*>(in[0]);
      const auto* pb = reinterpret_cast<const float*>(in[1]);
      auto* py = reinterpret_cast<float*>(out[0]);
      const int64_t ia = sa.back(), ib = sb.back();
      for_rows(dims, strides, [&](const int64_t* at_) {
        const float *ra = pa + at_[0], *rb = pb + at_[1];
        float* ry = py + at_[2];
        for (int64_t i = 0; i < n; ++i) ry[i] = std::min(std::max(function(ra[i * ia], rb[i * ib]), bounds.low), bounds.high);
      });
    }};
  }
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for_rows(dims, strides, [&](const int64_t* at_) {
      for (int64_t i = 0; i < n; ++i) {
        const float value = function(load_real(in[0] + (at_[0] + i * sa.back()) * ae, at), load_real(in[1] + (at_[1] + i * sb.back()) * be, bt));
        store_real(out[0] + (at_[2] + i) * ye, yt, std::min(std::max(value, bounds.low), bounds.high));
      }
    });
  }};
}

template <class F>
Prepared whole_binary(const Call& call, F function) {
  const TensorInfo &a = call.input(0), &b = call.input(1), &y = call.result();
  const std::vector<int64_t> dims = y.dims.empty() ? std::vector<int64_t>{1} : y.dims;
  const std::vector<int64_t> sa = broadcast_strides(a.dims, dims), sb = broadcast_strides(b.dims, dims), sy = broadcast_strides(dims, dims);
  const std::array<std::vector<int64_t>, 3> strides = {sa, sb, sy};
  const Bounds bounds = bounds_of(call);
  const gadl_dtype at = a.dtype, bt = b.dtype, yt = y.dtype;
  const int64_t ae = a.element_bytes(), be = b.element_bytes(), ye = y.element_bytes(), n = dims.back();
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for_rows(dims, strides, [&](const int64_t* at_) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t value = function(load_whole(in[0] + (at_[0] + i * sa.back()) * ae, at), load_whole(in[1] + (at_[1] + i * sb.back()) * be, bt));
        store_whole(out[0] + (at_[2] + i) * ye, yt, npu::clamp64(value, bounds.integer_low, bounds.integer_high));
      }
    });
  }};
}

// Integer add, sub and mul with requantisation (docs/numerics.md section 3).
template <class F>
Prepared requantised_sum(const Call& call, F function) {
  const Attribute* attr = call.attrs.find("requant");
  require(attr->requants.size() == 3, call, "a requantised sum needs three requantisations");
  for (const Requant& r : attr->requants) require(r.multiplier.size() == 1, call, "a requantised sum is per tensor");
  const Requant ra = attr->requants[0], rb = attr->requants[1], ro = attr->requants[2];
  const int64_t za = call.input(0).zero_point, zb = call.input(1).zero_point, zy = call.result().zero_point;
  return whole_binary(call, [=](int64_t a, int64_t b) {
    const int64_t inner = function(requantize(a - za, ra.multiplier[0], ra.shift[0], ra.rounding), requantize(b - zb, rb.multiplier[0], rb.shift[0], rb.rounding));
    return zy + requantize(inner, ro.multiplier[0], ro.shift[0], ro.rounding);
  });
}

template <class R, class W>
Prepared numeric(const Call& call, R real, W whole) {
  return call.input(0).is_float() ? real_binary(call, real) : whole_binary(call, whole);
}

Prepared add(const Call& call) {
  if (call.attrs.requant("requant")) return requantised_sum(call, wrapping_add);
  return numeric(call, [](float a, float b) { return a + b; }, wrapping_add);
}

Prepared sub(const Call& call) {
  if (call.attrs.requant("requant")) return requantised_sum(call, wrapping_sub);
  return numeric(call, [](float a, float b) { return a - b; }, wrapping_sub);
}

Prepared mul(const Call& call) {
  if (const Requant* found = call.attrs.requant("requant")) {
    require(found->multiplier.size() == 1, call, "a requantised product is per tensor");
    const Requant r = *found;
    const int64_t za = call.input(0).zero_point, zb = call.input(1).zero_point, zy = call.result().zero_point;
    return whole_binary(call, [=](int64_t a, int64_t b) { return zy + requantize(wrapping_mul(a - za, b - zb), r.multiplier[0], r.shift[0], r.rounding); });
  }
  return numeric(call, [](float a, float b) { return a * b; }, wrapping_mul);
}

Prepared divide(const Call& call) {
  return numeric(call, [](float a, float b) { return a / b; }, [](int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? static_cast<int64_t>(-static_cast<uint64_t>(a)) : a / b; });
}

Prepared power(const Call& call) {
  return numeric(call, [](float a, float b) { return std::pow(a, b); }, [](int64_t a, int64_t b) { return to_whole(std::pow(static_cast<double>(a), static_cast<double>(b))); });
}

float float_mod(float a, float b) {
  const float r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

Prepared modulo(const Call& call) {
  return numeric(call, float_mod, [](int64_t a, int64_t b) {
    if (b == 0 || b == -1) return int64_t{0};
    const int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
  });
}

float propagate_min(float a, float b) { return std::isnan(a) ? a : std::isnan(b) ? b : std::min(a, b); }
float propagate_max(float a, float b) { return std::isnan(a) ? a : std::isnan(b) ? b : std::max(a, b); }

Prepared minimum(const Call& call) { return numeric(call, propagate_min, [](int64_t a, int64_t b) { return std::min(a, b); }); }
Prepared maximum(const Call& call) { return numeric(call, propagate_max, [](int64_t a, int64_t b) { return std::max(a, b); }); }

template <class R, class W>
Prepared comparison(const Call& call, R real, W whole) {
  require(call.result().dtype == GADL_DTYPE_BOOL, call, "a comparison gives truth values");
  if (!call.input(0).is_float()) return whole_binary(call, whole);
  const TensorInfo &a = call.input(0), &b = call.input(1);
  const std::vector<int64_t> dims = call.result().dims.empty() ? std::vector<int64_t>{1} : call.result().dims;
  const std::vector<int64_t> sa = broadcast_strides(a.dims, dims), sb = broadcast_strides(b.dims, dims), sy = broadcast_strides(dims, dims);
  const std::array<std::vector<int64_t>, 3> strides = {sa, sb, sy};
  const gadl_dtype at = a.dtype, bt = b.dtype;
  const int64_t ae = a.element_bytes(), be = b.element_bytes(), n = dims.back();
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for_rows(dims, strides, [&](const int64_t* o) {
      for (int64_t i = 0; i < n; ++i) {
        out[0][o[2] + i] = real(load_real(in[0] + (o[0] + i * sa.back()) * ae, at), load_real(in[1] + (o[1] + i * sb.back()) * be, bt));
      }
    });
  }};
}

#define GADL_COMPARISON(name, expression)                                                          \
  Prepared name(const Call& call) {                                                                \
    return comparison(call, [](float a, float b) { return expression; }, [](int64_t a, int64_t b) { return static_cast<int64_t>(expression); }); \
  }
GADL_COMPARISON(equal, a == b)
GADL_COMPARISON(not_equal, a != b)
GADL_COMPARISON(less, a < b)
GADL_COMPARISON(less_equal, a <= b)
GADL_COMPARISON(greater, a > b)
GADL_COMPARISON(greater_equal, a >= b)
GADL_COMPARISON(logical_and, a != 0 && b != 0)
GADL_COMPARISON(logical_or, a != 0 || b != 0)
#undef GADL_COMPARISON

Prepared prelu(const Call& call) {
  return real_binary(call, [](float x, float slope) { return x >= 0 ? x : x * slope; });
}

Prepared where(const Call& call) {
  const TensorInfo &c = call.input(0), &a = call.input(1), &b = call.input(2), &y = call.result();
  require(a.dtype == b.dtype && a.dtype == y.dtype, call, "types differ");
  const std::vector<int64_t> dims = y.dims.empty() ? std::vector<int64_t>{1} : y.dims;
  const std::array<std::vector<int64_t>, 4> strides = {broadcast_strides(c.dims, dims), broadcast_strides(a.dims, dims), broadcast_strides(b.dims, dims), broadcast_strides(dims, dims)};
  const int64_t e = y.element_bytes(), ce = c.element_bytes(), n = dims.back();
  const gadl_dtype ct = c.dtype;
  return {[=, i0 = strides[0].back(), i1 = strides[1].back(), i2 = strides[2].back()](Inputs in, Outputs out, uint8_t*) {
    for_rows(dims, strides, [&](const int64_t* o) {
      for (int64_t i = 0; i < n; ++i) {
        const bool first = load_whole(in[0] + (o[0] + i * i0) * ce, ct) != 0;
        std::memcpy(out[0] + (o[3] + i) * e, first ? in[1] + (o[1] + i * i1) * e : in[2] + (o[2] + i * i2) * e, e);
      }
    });
  }};
}

// ---- one operand -------------------------------------------------------------------------------------------------------

template <class F>
Prepared unary(const Call& call, F function) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.elements() == y.elements(), call, "shapes differ");
  const int64_t n = x.elements(), xe = x.element_bytes(), ye = y.element_bytes();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  if (xt == GADL_DTYPE_F32 && yt == GADL_DTYPE_F32) {
    return {[=](Inputs in, Outputs out, uint8_t*) {
      const auto* p = reinterpret_cast<const float*>(in[0]);
      auto* q = reinterpret_cast<float*>(out[0]);
      for (int64_t i = 0; i < n; ++i) q[i] = function(p[i]);
    }};
  }
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t i = 0; i < n; ++i) store_real(out[0] + i * ye, yt, function(load_real(in[0] + i * xe, xt)));
  }};
}

template <class F>
Prepared whole_unary(const Call& call, F function) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.elements() == y.elements(), call, "shapes differ");
  const int64_t n = x.elements(), xe = x.element_bytes(), ye = y.element_bytes();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t i = 0; i < n; ++i) store_whole(out[0] + i * ye, yt, function(load_whole(in[0] + i * xe, xt)));
  }};
}

float sigmoid(float x) {
  const float small = std::exp(-std::fabs(x));
  return x >= 0 ? 1 / (1 + small) : small / (1 + small);
}
float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }
float hard_sigmoid(float x, float alpha, float beta) { return std::min(std::max(x * alpha + beta, 0.0f), 1.0f); }

Prepared relu(const Call& call) {
  if (call.input(0).is_float()) return unary(call, [](float x) { return x > 0 || std::isnan(x) ? x : 0.0f; });
  const int64_t zero = call.input(0).zero_point;
  return whole_unary(call, [=](int64_t x) { return std::max(x, zero); });
}

Prepared clamp(const Call& call) {
  const double low = call.attrs.real("lo", -INFINITY), high = call.attrs.real("hi", INFINITY);
  if (call.input(0).is_float()) {
    const auto l = static_cast<float>(low), h = static_cast<float>(high);
    return unary(call, [=](float x) { return std::isnan(x) ? x : std::min(std::max(x, l), h); });
  }
  int64_t l, h;
  integer_range(call.input(0).dtype, l, h);
  const int64_t a = low <= static_cast<double>(l) ? l : low >= static_cast<double>(h) ? h : static_cast<int64_t>(low);
  const int64_t b = high >= static_cast<double>(h) ? h : high <= static_cast<double>(l) ? l : static_cast<int64_t>(high);
  return whole_unary(call, [=](int64_t x) { return npu::clamp64(x, a, b); });
}

Prepared leaky_relu(const Call& call) {
  const auto alpha = static_cast<float>(call.attrs.real("alpha", 0.01));
  return unary(call, [=](float x) { return x >= 0 ? x : x * alpha; });
}
Prepared elu(const Call& call) {
  const auto alpha = static_cast<float>(call.attrs.real("alpha", 1.0));
  return unary(call, [=](float x) { return x >= 0 ? x : alpha * std::expm1(x); });
}
Prepared hard_sigmoid_op(const Call& call) {
  const auto alpha = static_cast<float>(call.attrs.real("alpha", 0.2)), beta = static_cast<float>(call.attrs.real("beta", 0.5));
  return unary(call, [=](float x) { return hard_sigmoid(x, alpha, beta); });
}
Prepared gelu(const Call& call) {
  if (call.attrs.text("approximate", "none") == "tanh") {
    return unary(call, [](float x) {
      const double w = x;
      return static_cast<float>(0.5 * w * (1 + std::tanh(0.7978845608028654 * (w + 0.044715 * w * w * w))));
    });
  }
  return unary(call, [](float x) { return static_cast<float>(0.5 * x * (1 + std::erf(x / 1.4142135623730951))); });
}

// neg, abs and sign have an integer form as well.
template <class R, class W>
Prepared both(const Call& call, R real, W whole) {
  return call.input(0).is_float() ? unary(call, real) : whole_unary(call, whole);
}
Prepared negate(const Call& call) {
  return both(call, [](float x) { return -x; }, [](int64_t x) { return static_cast<int64_t>(-static_cast<uint64_t>(x)); });
}
Prepared absolute(const Call& call) {
  return both(call, [](float x) { return std::fabs(x); }, [](int64_t x) { return x < 0 ? static_cast<int64_t>(-static_cast<uint64_t>(x)) : x; });
}
Prepared sign(const Call& call) {
  return both(call, [](float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }, [](int64_t x) { return int64_t{x > 0} - int64_t{x < 0}; });
}
Prepared logical_not(const Call& call) {
  return whole_unary(call, [](int64_t x) { return int64_t{x == 0}; });
}

Prepared cast(const Call& call) {
  const bool from = call.input(0).is_float(), to = call.result().is_float();
  if (from && to) return unary(call, [](float x) { return x; });
  if (!from && !to) return whole_unary(call, [](int64_t x) { return x; });
  const TensorInfo &x = call.input(0), &y = call.result();
  const int64_t n = x.elements(), xe = x.element_bytes(), ye = y.element_bytes();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  require(n == y.elements(), call, "shapes differ");
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t i = 0; i < n; ++i) {
      if (to) store_real(out[0] + i * ye, yt, load_real(in[0] + i * xe, xt));
      else if (yt == GADL_DTYPE_BOOL) out[0][i] = load_real(in[0] + i * xe, xt) != 0;
      else store_whole(out[0] + i * ye, yt, load_whole(in[0] + i * xe, xt));
    }
  }};
}

#define GADL_UNARY(name, expression) \
  Prepared name(const Call& call) { return unary(call, [](float x) { return expression; }); }
GADL_UNARY(sigmoid_op, sigmoid(x))
GADL_UNARY(tanh_op, std::tanh(x))
GADL_UNARY(hard_swish, x * hard_sigmoid(x, 1.0f / 6.0f, 0.5f))
GADL_UNARY(silu, x * sigmoid(x))
GADL_UNARY(mish, x * std::tanh(softplus(x)))
GADL_UNARY(softplus_op, softplus(x))
GADL_UNARY(exp_op, std::exp(x))
GADL_UNARY(log_op, std::log(x))
GADL_UNARY(sqrt_op, std::sqrt(x))
GADL_UNARY(rsqrt, 1 / std::sqrt(x))
GADL_UNARY(reciprocal, 1 / x)
GADL_UNARY(erf_op, static_cast<float>(std::erf(static_cast<double>(x))))
GADL_UNARY(sin_op, std::sin(x))
GADL_UNARY(cos_op, std::cos(x))
GADL_UNARY(floor_op, std::floor(x))
GADL_UNARY(ceil_op, std::ceil(x))
GADL_UNARY(round_op, std::nearbyint(x))
#undef GADL_UNARY

}  // namespace

const KernelTable& elementwise_kernels() {
  static const KernelTable table = {
      {"add", add}, {"sub", sub}, {"mul", mul}, {"div", divide}, {"pow", power}, {"mod", modulo}, {"min", minimum}, {"max", maximum},
      {"equal", equal}, {"not_equal", not_equal}, {"less", less}, {"less_equal", less_equal}, {"greater", greater},
      {"greater_equal", greater_equal}, {"logical_and", logical_and}, {"logical_or", logical_or}, {"where", where}, {"prelu", prelu},
      {"relu", relu}, {"clamp", clamp}, {"leaky_relu", leaky_relu}, {"elu", elu}, {"sigmoid", sigmoid_op}, {"tanh", tanh_op},
      {"hard_sigmoid", hard_sigmoid_op}, {"hard_swish", hard_swish}, {"silu", silu}, {"gelu", gelu}, {"mish", mish}, {"softplus", softplus_op},
      {"exp", exp_op}, {"log", log_op}, {"sqrt", sqrt_op}, {"rsqrt", rsqrt}, {"reciprocal", reciprocal}, {"neg", negate}, {"abs", absolute},
      {"erf", erf_op}, {"sin", sin_op}, {"cos", cos_op}, {"floor", floor_op}, {"ceil", ceil_op}, {"round", round_op}, {"sign", sign},
      {"logical_not", logical_not}, {"cast", cast},
  };
  return table;
}

}  // namespace gadl
