// SPDX-License-Identifier: Apache-2.0
// Reductions over axes, argmax, cumsum.
#include <algorithm>
#include <array>
#include <cmath>

#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

using Dims = std::vector<int64_t>;

// The kept axes (in order, then one of extent 1) and the reduced ones, each with the operand's strides.
struct Split {
  Dims kept, reduced;
  std::array<Dims, 1> kept_strides, reduced_strides;
  int64_t count = 1;
};

Split split_axes(const Call& call) {
  const TensorInfo &x = call.input(0), &y = call.result();
  std::vector<bool> goes(x.dims.size(), false);
  for (int64_t axis : call.attrs.ints("axes")) goes[axis_of(call, axis, x.rank())] = true;
  const bool keepdims = call.attrs.integer("keepdims", 1) != 0;
  Split s;
  Dims strides(x.dims.size()), wanted;
  int64_t step = 1;
  for (std::size_t i = x.dims.size(); i-- > 0; step *= x.dims[i]) strides[i] = step;
  for (std::size_t i = 0; i < x.dims.size(); ++i) {
    Dims &dims = goes[i] ? s.reduced : s.kept, &to = goes[i] ? s.reduced_strides[0] : s.kept_strides[0];
    dims.push_back(x.dims[i]);
    to.push_back(strides[i]);
    if (!goes[i]) wanted.push_back(x.dims[i]);
    else if (keepdims) wanted.push_back(1);
    if (goes[i]) s.count *= x.dims[i];
  }
  require(wanted == y.dims, call, "the result's shape does not fit");
  s.kept.push_back(1);
  s.kept_strides[0].push_back(0);
  if (s.reduced.empty()) {
    s.reduced = {1};
    s.reduced_strides[0] = {0};
  }
  return s;
}

// `step(state, element number)` over the elements of each result, then `done(result number, state)`.
template <class State, class Step, class Done>
void reduce(const Split& s, State start, Step step, Done done) {
  int64_t result = 0;
  const int64_t n = s.reduced.back(), along = s.reduced_strides[0].back();
  for_rows(s.kept, s.kept_strides, [&](const int64_t* base) {
    State state = start;
    if (s.count > 0) {
      for_rows(s.reduced, s.reduced_strides, [&](const int64_t* at) {
        for (int64_t i = 0; i < n; ++i) step(state, base[0] + at[0] + i * along);
      });
    }
    done(result++, state);
  });
}

template <class Step, class Done>
Prepared real_reduction(const Call& call, double start, Step step, Done done) {
  const Split s = split_axes(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const int64_t xe = x.element_bytes(), ye = y.element_bytes(), n = y.elements();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    if (n == 0) return;
    const auto store = [&](int64_t at, double state) { store_real(out[0] + at * ye, yt, static_cast<float>(done(state, s.count))); };
    if (xt == GADL_DTYPE_F32) {
      const auto* p = reinterpret_cast<const float*>(in[0]);
      reduce(s, start, [&](double& state, int64_t at) { state = step(state, static_cast<double>(p[at])); }, store);
    } else {
      reduce(s, start, [&](double& state, int64_t at) { state = step(state, static_cast<double>(load_real(in[0] + at * xe, xt))); }, store);
    }
  }};
}

template <class Step, class Done>
Prepared whole_reduction(const Call& call, int64_t start, Step step, Done done) {
  const Split s = split_axes(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const int64_t xe = x.element_bytes(), ye = y.element_bytes(), n = y.elements();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    if (n == 0) return;
    reduce(s, start, [&](int64_t& state, int64_t at) { state = step(state, load_whole(in[0] + at * xe, xt)); },
           [&](int64_t at, int64_t state) { store_whole(out[0] + at * ye, yt, done(state, s.count)); });
  }};
}


// The integer form of sum and mean: the divisor is in the multiplier.
Prepared requantised_sum(const Call& call, const Requant& r) {
  require(r.multiplier.size() == 1 && !call.input(0).is_float() && !call.result().is_float(), call, "one requantisation of integers is expected");
  const Bounds b = bounds_of(call);
  const int64_t zx = call.input(0).zero_point, zy = call.result().zero_point;
  const int32_t multiplier = r.multiplier[0];
  const int shift = r.shift[0];
  const npu::Round rounding = r.rounding;
  return whole_reduction(call, 0, [=](int64_t sum, int64_t x) { return sum + x - zx; }, [=](int64_t sum, int64_t) {
    return npu::clamp64(zy + npu::requantize(sum, multiplier, shift, rounding), b.integer_low, b.integer_high);
  });
}

Prepared reduce_sum(const Call& call) {
  if (const Requant* r = call.attrs.requant("requant")) return requantised_sum(call, *r);
  if (call.input(0).is_float()) return real_reduction(call, 0, [](double a, double b) { return a + b; }, [](double a, int64_t) { return a; });
  return whole_reduction(call, 0, wrapping_add, [](int64_t a, int64_t) { return a; });
}

Prepared reduce_mean(const Call& call) {
  if (const Requant* r = call.attrs.requant("requant")) return requantised_sum(call, *r);
  if (call.input(0).is_float()) {
    return real_reduction(call, 0, [](double a, double b) { return a + b; }, [](double a, int64_t n) { return a / static_cast<double>(n); });
  }
  return whole_reduction(call, 0, wrapping_add, [](int64_t a, int64_t n) { return n == 0 ? 0 : a / n; });
}

Prepared reduce_max(const Call& call) {
  require(call.input(0).dtype == call.result().dtype, call, "element types differ");
  if (call.input(0).is_float()) {
    return real_reduction(call, -INFINITY, [](double a, double b) { return std::isnan(a) || a > b ? a : b; }, [](double a, int64_t) { return a; });
  }
  return whole_reduction(call, INT64_MIN, [](int64_t a, int64_t b) { return std::max(a, b); }, [](int64_t a, int64_t) { return a; });
}

Prepared reduce_min(const Call& call) {
  require(call.input(0).dtype == call.result().dtype, call, "element types differ");
  if (call.input(0).is_float()) {
    return real_reduction(call, INFINITY, [](double a, double b) { return std::isnan(a) || a < b ? a : b; }, [](double a, int64_t) { return a; });
  }
  return whole_reduction(call, INT64_MAX, [](int64_t a, int64_t b) { return std::min(a, b); }, [](int64_t a, int64_t) { return a; });
}

Prepared reduce_prod(const Call& call) {
  if (call.input(0).is_float()) return real_reduction(call, 1, [](double a, double b) { return a * b; }, [](double a, int64_t) { return a; });
  return whole_reduction(call, 1, wrapping_mul,
                         [](int64_t a, int64_t) { return a; });
}

Prepared reduce_l2(const Call& call) {
  return real_reduction(call, 0, [](double a, double b) { return a + b * b; }, [](double a, int64_t) { return std::sqrt(a); });
}

// Extents around one axis.
struct Around {
  int64_t outer = 1, extent = 1, inner = 1;

  Around(const Call& call, const TensorInfo& x) {
    const int axis = axis_of(call, call.attrs.integer("axis", -1), x.rank());
    for (int i = 0; i < axis; ++i) outer *= x.dims[i];
    extent = x.dims[axis];
    for (int i = axis + 1; i < x.rank(); ++i) inner *= x.dims[i];
  }
};

Prepared argmax(const Call& call) {
  const TensorInfo &x = call.input(0), &y = call.result();
  const Around a(call, x);
  require(y.elements() == a.outer * a.inner && !y.is_float() && a.extent > 0, call, "the result does not fit");
  const int64_t xe = x.element_bytes(), ye = y.element_bytes();
  const gadl_dtype xt = x.dtype, yt = y.dtype;
  const bool real = x.is_float();
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t o = 0; o < a.outer; ++o)
      for (int64_t i = 0; i < a.inner; ++i) {
        const uint8_t* base = in[0] + (o * a.extent * a.inner + i) * xe;
        int64_t best = 0;
        for (int64_t k = 1; k < a.extent; ++k) {
          const uint8_t *p = base + k * a.inner * xe, *q = base + best * a.inner * xe;
          // The first NaN wins, as in numpy.
          const bool better = real ? (!(load_real(p, xt) <= load_real(q, xt)) && !std::isnan(load_real(q, xt))) : load_whole(p, xt) > load_whole(q, xt);
          if (better) best = k;
        }
        store_whole(out[0] + (o * a.inner + i) * ye, yt, best);
      }
  }};
}

Prepared cumsum(const Call& call) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.dims == y.dims && x.dtype == y.dtype, call, "operand and result differ");
  const Around a(call, x);
  const int64_t e = x.element_bytes();
  const gadl_dtype t = x.dtype;
  const bool real = x.is_float();
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t o = 0; o < a.outer; ++o)
      for (int64_t i = 0; i < a.inner; ++i) {
        float sum = 0;
        int64_t total = 0;
        for (int64_t k = 0; k < a.extent; ++k) {
          const int64_t at = ((o * a.extent + k) * a.inner + i) * e;
          if (real) {
            store_real(out[0] + at, t, sum + load_real(in[0] + at, t));
            sum = load_real(out[0] + at, t);
          } else {
            total = wrapping_add(total, load_whole(in[0] + at, t));
            store_whole(out[0] + at, t, total);
          }
        }
      }
  }};
}

}  // namespace

const KernelTable& reduction_kernels() {
  static const KernelTable table = {
      {"reduce_sum", reduce_sum}, {"reduce_mean", reduce_mean}, {"reduce_max", reduce_max}, {"reduce_min", reduce_min},
      {"reduce_prod", reduce_prod}, {"reduce_l2", reduce_l2}, {"argmax", argmax}, {"cumsum", cumsum},
  };
  return table;
}

}  // namespace gadl
