// SPDX-License-Identifier: Apache-2.0
// conv, conv_transpose, linear, matmul.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "dot.hpp"
#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

// How sums are formed. kFloat: any order. kHalf: canonical order in f32. kNarrow: i8, exact in 32 bits. kWide: exact in 64 bits.
enum class Mode { kFloat, kHalf, kNarrow, kWide };

Mode mode_of(const Call& call) {
  const TensorInfo& x = call.input(0);
  if (x.dtype == GADL_DTYPE_F16 || x.dtype == GADL_DTYPE_BF16) return Mode::kHalf;
  if (x.is_float()) return Mode::kFloat;
  require(call.attrs.requant("requant") != nullptr, call, "integers need a requantisation");
  return x.dtype == GADL_DTYPE_I8 && call.input(1).dtype == GADL_DTYPE_I8 ? Mode::kNarrow : Mode::kWide;
}

// From sums to results: bias, residual, requantisation, clamp.
class Finish {
 public:
  Finish(const Call& call, int64_t channels) : result_(call.result()), bounds_(bounds_of(call)) {
    const TensorInfo* bias = call.optional(2);
    if (bias != nullptr) {
      require(bias->elements() == channels, call, "the bias does not fit");
      bias_type_ = bias->dtype;
      bias_bytes_ = bias->element_bytes();
      has_bias_ = true;
    }
    const TensorInfo* residual = call.optional(3);
    if (residual != nullptr) {
      require(residual->dims == call.result().dims, call, "the residual does not fit");
      residual_type_ = residual->dtype;
      residual_bytes_ = residual->element_bytes();
      residual_zero_ = residual->zero_point;
      has_residual_ = true;
    }
    if (const Requant* r = call.attrs.requant("requant")) {
      requant_ = *r;
      require(r->multiplier.size() == 1 || r->multiplier.size() == static_cast<std::size_t>(channels), call, "multipliers do not fit the channels");
    }
    if (const Requant* r = call.attrs.requant("residual_requant")) residual_requant_ = *r;
    require(!has_residual_ || call.input(0).is_float() || residual_requant_.multiplier.size() == 1, call, "the residual needs a requantisation");
  }

  // Result element `at` (in elements) of channel c from its sum.
  void real(Inputs in, Outputs out, int64_t at, int64_t c, float sum) const {
    if (has_bias_) sum = sum + load_real(in[2] + c * bias_bytes_, bias_type_);
    if (has_residual_) sum = sum + load_real(in[3] + at * residual_bytes_, residual_type_);
    store_real(out[0] + at * result_bytes_, result_.dtype, std::min(std::max(sum, bounds_.low), bounds_.high));
  }
  void whole(Inputs in, Outputs out, int64_t at, int64_t c, int64_t sum) const {
    if (has_bias_) sum += load_whole(in[2] + c * bias_bytes_, bias_type_);
    const std::size_t k = requant_.multiplier.size() > 1 ? c : 0;
    int64_t value = npu::requantize(sum, requant_.multiplier[k], requant_.shift[k], requant_.rounding);
    if (has_residual_) {
      const int64_t r = load_whole(in[3] + at * residual_bytes_, residual_type_) - residual_zero_;
      value += npu::requantize(r, residual_requant_.multiplier[0], residual_requant_.shift[0], residual_requant_.rounding);
    }
    store_whole(out[0] + at * result_bytes_, result_.dtype, npu::clamp64(value + result_.zero_point, bounds_.integer_low, bounds_.integer_high));
  }

 private:
  TensorInfo result_;
  Bounds bounds_;
  int64_t result_bytes_ = result_.element_bytes();
  bool has_bias_ = false, has_residual_ = false;
  gadl_dtype bias_type_ = GADL_DTYPE_F32, residual_type_ = GADL_DTYPE_F32;
  int64_t bias_bytes_ = 0, residual_bytes_ = 0, residual_zero_ = 0;
  Requant requant_, residual_requant_;
};

struct Geometry {
  int64_t n, c, ih, iw, o, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl, groups;
};

Geometry geometry(const Call& call, bool transposed) {
  const TensorInfo &x = call.input(0), &w = call.input(1), &y = call.result();
  const int rank = x.rank() - 2;
  require((rank == 1 || rank == 2) && w.rank() == x.rank() && y.rank() == x.rank(), call, "one or two spatial dimensions are expected");
  const auto strides = call.attrs.ints("strides"), pads = call.attrs.ints("pads"), dilations = call.attrs.ints("dilations");
  require(static_cast<int>(strides.size()) == rank && static_cast<int>(dilations.size()) == rank && static_cast<int>(pads.size()) == 2 * rank, call, "window attributes do not fit");
  Geometry g{};
  const bool two = rank == 2;
  g.n = x.dims[0]; g.c = x.dims[1]; g.ih = x.dims[2]; g.iw = two ? x.dims[3] : 1;
  g.o = y.dims[1]; g.oh = y.dims[2]; g.ow = two ? y.dims[3] : 1;
  g.kh = w.dims[2]; g.kw = two ? w.dims[3] : 1;
  g.sh = strides[0]; g.sw = two ? strides[1] : 1; g.dh = dilations[0]; g.dw = two ? dilations[1] : 1;
  g.pt = pads[0]; g.pl = two ? pads[1] : 0;
  g.groups = call.attrs.integer("groups", 1);
  require(g.groups >= 1 && g.c % g.groups == 0 && g.o % g.groups == 0 && y.dims[0] == g.n, call, "groups do not fit");
  const bool fits = transposed ? w.dims[0] == g.c && w.dims[1] * g.groups == g.o : w.dims[0] == g.o && w.dims[1] * g.groups == g.c;
  require(fits, call, "weights do not fit");
  for (int64_t v : {g.sh, g.sw, g.dh, g.dw}) require(v >= 1 && v < (1 << 20), call, "strides and dilations are positive");
  require(g.pt >= 0 && g.pl >= 0 && g.pt < (1 << 20) && g.pl < (1 << 20), call, "pads are not negative");
  return g;
}

int64_t block_pixels(int64_t k) { return std::max<int64_t>(3, std::min<int64_t>(192, (1 << 18) / std::max<int64_t>(k, 1))); }

// Rows [pixel][c, kh, kw] of one group; T holds centred integers or floats.
template <class T, class Load>
void gather_rows(const Geometry& g, int64_t first, int64_t count, int64_t channels, int64_t k, T* rows, Load load) {
  std::memset(rows, 0, sizeof(T) * count * k);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t oy = (first + p) / g.ow, ox = (first + p) % g.ow;
    for (int64_t i = 0; i < g.kh; ++i) {
      const int64_t y = oy * g.sh + i * g.dh - g.pt;
      if (y < 0 || y >= g.ih) continue;
      for (int64_t j = 0; j < g.kw; ++j) {
        const int64_t x = ox * g.sw + j * g.dw - g.pl;
        if (x < 0 || x >= g.iw) continue;
        T* to = rows + p * k + i * g.kw + j;
        const int64_t at = y * g.iw + x;
        for (int64_t c = 0; c < channels; ++c) to[c * g.kh * g.kw] = load(c * g.ih * g.iw + at);
      }
    }
  }
}

// Direct sums for one filter per channel; S accumulates.
template <class S, class LoadX, class LoadW, class Store>
void depthwise(const Geometry& g, LoadX load_x, LoadW load_w, Store store) {
  for (int64_t c = 0; c < g.c; ++c)
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox) {
        S sum = 0;
        for (int64_t i = 0; i < g.kh; ++i) {
          const int64_t y = oy * g.sh + i * g.dh - g.pt;
          if (y < 0 || y >= g.ih) continue;
          for (int64_t j = 0; j < g.kw; ++j) {
            const int64_t x = ox * g.sw + j * g.dw - g.pl;
            if (x >= 0 && x < g.iw) sum = sum + load_x(c, y * g.iw + x) * load_w(c, i * g.kw + j);
          }
        }
        store(c, oy * g.ow + ox, sum);
      }
}

// Sums in the order kh, kw, c (docs/numerics.md section 4), or exact in 64 bits.
template <class S, class LoadX, class LoadW, class Store>
void ordered(const Geometry& g, int64_t group, LoadX load_x, LoadW load_w, Store store) {
  const int64_t cg = g.c / g.groups, og = g.o / g.groups;
  for (int64_t o = 0; o < og; ++o)
    for (int64_t p = 0; p < g.oh * g.ow; ++p) {
      S sum = 0;
      for (int64_t i = 0; i < g.kh; ++i) {
        const int64_t y = (p / g.ow) * g.sh + i * g.dh - g.pt;
        if (y < 0 || y >= g.ih) continue;
        for (int64_t j = 0; j < g.kw; ++j) {
          const int64_t x = (p % g.ow) * g.sw + j * g.dw - g.pl;
          if (x < 0 || x >= g.iw) continue;
          for (int64_t c = 0; c < cg; ++c) {
            sum = sum + load_x(((group * cg + c) * g.ih + y) * g.iw + x) * load_w((((group * og + o) * cg + c) * g.kh + i) * g.kw + j);
          }
        }
      }
      store(group * og + o, p, sum);
    }
}

Prepared conv(const Call& call) {
  const Geometry g = geometry(call, false);
  const Mode mode = mode_of(call);
  const Finish finish(call, g.o);
  const gadl_dtype xt = call.input(0).dtype, wt = call.input(1).dtype;
  const int64_t xe = call.input(0).element_bytes(), we = call.input(1).element_bytes(), zero = call.input(0).zero_point;
  const int64_t cg = g.c / g.groups, og = g.o / g.groups, taps = g.kh * g.kw, k = dot_padded(cg * taps), pixels = g.oh * g.ow, block = block_pixels(k);
  require(mode != Mode::kNarrow || cg * taps <= 65536, call, "the sum is too deep for 32 bits");
  const bool real = mode == Mode::kFloat || mode == Mode::kHalf;
  const auto put = [=](Inputs in, Outputs out, int64_t image, int64_t c, int64_t p, auto sum) {
    const int64_t at = (image * g.o + c) * pixels + p;
    if constexpr (std::is_same_v<decltype(sum), float>) finish.real(in, out, at, c, sum);
    else finish.whole(in, out, at, c, sum);
  };
  if ((cg == 1 && og == 1) || mode == Mode::kHalf || mode == Mode::kWide) {
    return {[=](Inputs in, Outputs out, uint8_t*) {
      for (int64_t image = 0; image < g.n; ++image) {
        const uint8_t* base = in[0] + image * g.c * g.ih * g.iw * xe;
        if (cg == 1 && og == 1 && mode == Mode::kFloat && xt == GADL_DTYPE_F32) {
          const auto* x = reinterpret_cast<const float*>(base);
          const auto* w = reinterpret_cast<const float*>(in[1]);
          depthwise<float>(g, [=](int64_t c, int64_t at) { return x[c * g.ih * g.iw + at]; }, [=](int64_t c, int64_t t) { return w[c * taps + t]; },
                           [&](int64_t c, int64_t p, float s) { put(in, out, image, c, p, s); });
        } else if (cg == 1 && og == 1 && mode == Mode::kNarrow) {
          const auto* x = reinterpret_cast<const int8_t*>(base);
          const auto* w = reinterpret_cast<const int8_t*>(in[1]);
          depthwise<int32_t>(g, [=](int64_t c, int64_t at) { return static_cast<int32_t>(x[c * g.ih * g.iw + at] - zero); },
                             [=](int64_t c, int64_t t) { return static_cast<int32_t>(w[c * taps + t]); },
                             [&](int64_t c, int64_t p, int32_t s) { put(in, out, image, c, p, static_cast<int64_t>(s)); });
        } else if (real) {
          for (int64_t group = 0; group < g.groups; ++group)
            ordered<float>(g, group, [=](int64_t at) { return load_real(base + at * xe, xt); }, [=](int64_t at) { return load_real(in[1] + at * we, wt); },
                           [&](int64_t c, int64_t p, float s) { put(in, out, image, c, p, s); });
        } else {
          for (int64_t group = 0; group < g.groups; ++group)
            ordered<int64_t>(g, group, [=](int64_t at) { return load_whole(base + at * xe, xt) - zero; }, [=](int64_t at) { return load_whole(in[1] + at * we, wt); },
                             [&](int64_t c, int64_t p, int64_t s) { put(in, out, image, c, p, s); });
        }
      }
    }};
  }
  // Rows of a block of pixels against all filters. Scratch: rows, filters, sums.
  const int64_t element = real ? 4 : 2;
  const int64_t rows_bytes = (block * k * element + 63) / 64 * 64, filters_bytes = (og * k * element + 63) / 64 * 64;
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            uint8_t *rows = scratch, *filters = scratch + rows_bytes, *sums = filters + filters_bytes;
            for (int64_t group = 0; group < g.groups; ++group) {
              std::memset(filters, 0, filters_bytes);
              for (int64_t o = 0; o < og; ++o)
                for (int64_t t = 0; t < cg * taps; ++t) {
                  const uint8_t* from = in[1] + ((group * og + o) * cg * taps + t) * we;
                  if (real) reinterpret_cast<float*>(filters)[o * k + t] = load_real(from, wt);
                  else reinterpret_cast<int16_t*>(filters)[o * k + t] = static_cast<int8_t>(*from);
                }
              for (int64_t image = 0; image < g.n; ++image) {
                const uint8_t* base = in[0] + (image * g.c + group * cg) * g.ih * g.iw * xe;
                for (int64_t first = 0; first < pixels; first += block) {
                  const int64_t count = std::min(block, pixels - first);
                  if (real) {
                    auto* r = reinterpret_cast<float*>(rows);
                    if (xt == GADL_DTYPE_F32) gather_rows(g, first, count, cg, k, r, [x = reinterpret_cast<const float*>(base)](int64_t at) { return x[at]; });
                    else gather_rows(g, first, count, cg, k, r, [=](int64_t at) { return load_real(base + at * xe, xt); });
                    dot_rows_f32(r, count, reinterpret_cast<float*>(filters), og, k, reinterpret_cast<float*>(sums), 1, block);
                  } else {
                    auto* r = reinterpret_cast<int16_t*>(rows);
                    gather_rows(g, first, count, cg, k, r, [=, x = reinterpret_cast<const int8_t*>(base)](int64_t at) { return static_cast<int16_t>(x[at] - zero); });
                    dot_rows_i16(r, count, reinterpret_cast<int16_t*>(filters), og, k, reinterpret_cast<int32_t*>(sums), 1, block);
                  }
                  for (int64_t o = 0; o < og; ++o)
                    for (int64_t p = 0; p < count; ++p) {
                      if (real) put(in, out, image, group * og + o, first + p, reinterpret_cast<float*>(sums)[o * block + p]);
                      else put(in, out, image, group * og + o, first + p, static_cast<int64_t>(reinterpret_cast<int32_t*>(sums)[o * block + p]));
                    }
                }
              }
            }
          },
          static_cast<std::size_t>(rows_bytes + filters_bytes + og * block * 4 + 64)};
}

Prepared conv_transpose(const Call& call) {
  const Geometry g = geometry(call, true);
  const Mode mode = mode_of(call);
  const bool real = mode == Mode::kFloat || mode == Mode::kHalf;
  const Finish finish(call, g.o);
  const gadl_dtype xt = call.input(0).dtype, wt = call.input(1).dtype;
  const int64_t xe = call.input(0).element_bytes(), we = call.input(1).element_bytes(), zero = call.input(0).zero_point;
  const int64_t cg = g.c / g.groups, og = g.o / g.groups, pixels = g.oh * g.ow;
  // Scratch: one output channel of sums.
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* sums = reinterpret_cast<float*>(scratch);
            auto* totals = reinterpret_cast<int64_t*>(scratch);
            for (int64_t image = 0; image < g.n; ++image)
              for (int64_t o = 0; o < g.o; ++o) {
                std::memset(scratch, 0, pixels * 8);
                const int64_t group = o / og;
                for (int64_t c = group * cg; c < (group + 1) * cg; ++c) {
                  const uint8_t* x = in[0] + (image * g.c + c) * g.ih * g.iw * xe;
                  for (int64_t i = 0; i < g.kh; ++i)
                    for (int64_t j = 0; j < g.kw; ++j) {
                      const uint8_t* from = in[1] + (((c * og + o % og) * g.kh + i) * g.kw + j) * we;
                      const float w = real ? load_real(from, wt) : 0;
                      const int64_t v = real ? 0 : load_whole(from, wt);
                      for (int64_t y = 0; y < g.ih; ++y) {
                        const int64_t oy = y * g.sh + i * g.dh - g.pt;
                        if (oy < 0 || oy >= g.oh) continue;
                        for (int64_t q = 0; q < g.iw; ++q) {
                          const int64_t ox = q * g.sw + j * g.dw - g.pl;
                          if (ox < 0 || ox >= g.ow) continue;
                          const uint8_t* p = x + (y * g.iw + q) * xe;
                          if (real) sums[oy * g.ow + ox] += load_real(p, xt) * w;
                          else totals[oy * g.ow + ox] += (load_whole(p, xt) - zero) * v;
                        }
                      }
                    }
                }
                for (int64_t p = 0; p < pixels; ++p) {
                  const int64_t at = (image * g.o + o) * pixels + p;
                  if (real) finish.real(in, out, at, o, sums[p]);
                  else finish.whole(in, out, at, o, totals[p]);
                }
              }
          },
          static_cast<std::size_t>(pixels * 8)};
}

// a[M, K] . b[N, K]: exact or canonical sums element by element, or blocks of rows.
struct Product {
  Mode mode;
  int64_t m, n, k, za, zb;
  gadl_dtype at, bt;
  int64_t ae, be;

  int64_t padded() const { return dot_padded(k); }
  int64_t block() const { return block_pixels(padded()); }
  std::size_t scratch_bytes() const {
    const int64_t e = mode == Mode::kFloat ? 4 : 2;
    return static_cast<std::size_t>(((block() + n) * padded() * e + 63) / 64 * 64 + block() * n * 4 + 128);
  }

  // Element addresses are given by functions of (row, k) and (column, k); `store(i, j, sum)`.
  template <class A, class B, class Store>
  void run(A a, B b, uint8_t* scratch, Store store) const {
    if (mode == Mode::kHalf || mode == Mode::kWide) {
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          float sum = 0;
          int64_t total = 0;
          for (int64_t t = 0; t < k; ++t) {
            if (mode == Mode::kHalf) sum = sum + load_real(a(i, t), at) * load_real(b(j, t), bt);
            else total += (load_whole(a(i, t), at) - za) * (load_whole(b(j, t), bt) - zb);
          }
          if (mode == Mode::kHalf) store(i, j, sum);
          else store(i, j, total);
        }
      return;
    }
    const int64_t kp = padded(), rows = block();
    if (mode == Mode::kFloat) {
      auto *pa = reinterpret_cast<float*>(scratch), *pb = pa + rows * kp, *sums = pb + n * kp;
      std::memset(pa, 0, (rows + n) * kp * 4);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t t = 0; t < k; ++t) pb[j * kp + t] = load_real(b(j, t), bt);
      for (int64_t first = 0; first < m; first += rows) {
        const int64_t count = std::min(rows, m - first);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t t = 0; t < k; ++t) pa[i * kp + t] = load_real(a(first + i, t), at);
        dot_rows_f32(pa, count, pb, n, kp, sums, n, 1);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t j = 0; j < n; ++j) store(first + i, j, sums[i * n + j]);
      }
      return;
    }
    auto *pa = reinterpret_cast<int16_t*>(scratch), *pb = pa + rows * kp;
    auto* sums = reinterpret_cast<int32_t*>(scratch + ((rows + n) * kp * 2 + 63) / 64 * 64);
    std::memset(pa, 0, (rows + n) * kp * 2);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t t = 0; t < k; ++t) pb[j * kp + t] = static_cast<int16_t>(load_whole(b(j, t), bt) - zb);
    for (int64_t first = 0; first < m; first += rows) {
      const int64_t count = std::min(rows, m - first);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t t = 0; t < k; ++t) pa[i * kp + t] = static_cast<int16_t>(load_whole(a(first + i, t), at) - za);
      dot_rows_i16(pa, count, pb, n, kp, sums, n, 1);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < n; ++j) store(first + i, j, static_cast<int64_t>(sums[i * n + j]));
    }
  }
};

template <class S>
void finish_sum(const Finish& finish, Inputs in, Outputs out, int64_t at, int64_t c, S sum) {
  if constexpr (std::is_same_v<S, float>) finish.real(in, out, at, c, sum);
  else finish.whole(in, out, at, c, sum);
}

Prepared linear(const Call& call) {
  const TensorInfo &x = call.input(0), &w = call.input(1), &y = call.result();
  require(x.rank() >= 1 && w.rank() == 2 && x.dims.back() == w.dims[1] && y.rank() == x.rank() && y.dims.back() == w.dims[0], call, "shapes do not fit");
  Product p{mode_of(call), 1, w.dims[0], w.dims[1], x.zero_point, 0, x.dtype, w.dtype, x.element_bytes(), w.element_bytes()};
  p.m = p.k == 0 ? 0 : x.elements() / p.k;
  require(p.m * p.n == y.elements() && (p.mode != Mode::kNarrow || p.k <= 65536), call, "shapes do not fit");
  const Finish finish(call, p.n);
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            p.run([=](int64_t i, int64_t t) { return in[0] + (i * p.k + t) * p.ae; }, [=](int64_t j, int64_t t) { return in[1] + (j * p.k + t) * p.be; }, scratch,
                  [&](int64_t i, int64_t j, auto sum) { finish_sum(finish, in, out, i * p.n + j, j, sum); });
          },
          p.scratch_bytes()};
}

Prepared matmul(const Call& call) {
  const TensorInfo &a = call.input(0), &b = call.input(1), &y = call.result();
  require(a.rank() >= 2 && b.rank() >= 2 && y.rank() >= 2, call, "matrices are expected");
  Product p{mode_of(call), a.dims[a.rank() - 2], b.dims.back(), a.dims.back(), a.zero_point, b.zero_point, a.dtype, b.dtype, a.element_bytes(), b.element_bytes()};
  require(b.dims[b.rank() - 2] == p.k && y.dims[y.rank() - 2] == p.m && y.dims.back() == p.n, call, "shapes do not fit");
  if (p.mode == Mode::kNarrow && p.k > 16384) p.mode = Mode::kWide;
  const std::vector<int64_t> lead(y.dims.begin(), y.dims.end() - 2), la(a.dims.begin(), a.dims.end() - 2), lb(b.dims.begin(), b.dims.end() - 2);
  std::vector<int64_t> dims = lead.empty() ? std::vector<int64_t>{1} : lead;
  const std::array<std::vector<int64_t>, 2> strides = {broadcast_strides(la, dims), broadcast_strides(lb, dims)};
  const Finish finish(Call{call.op, call.attrs, {call.in[0], call.in[1]}, call.out}, p.n);
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            int64_t item = 0;
            for_rows(dims, strides, [&](const int64_t* at) {
              for (int64_t s = 0; s < dims.back(); ++s, ++item) {
                const uint8_t* pa = in[0] + (at[0] + s * strides[0].back()) * p.m * p.k * p.ae;
                const uint8_t* pb = in[1] + (at[1] + s * strides[1].back()) * p.k * p.n * p.be;
                p.run([=](int64_t i, int64_t t) { return pa + (i * p.k + t) * p.ae; }, [=](int64_t j, int64_t t) { return pb + (t * p.n + j) * p.be; }, scratch,
                      [&](int64_t i, int64_t j, auto sum) { finish_sum(finish, in, out, (item * p.m + i) * p.n + j, 0, sum); });
              }
            });
          },
          p.scratch_bytes()};
}

}  // namespace

const KernelTable& product_kernels() {
  static const KernelTable table = {{"conv", conv}, {"conv_transpose", conv_transpose}, {"linear", linear}, {"matmul", matmul}};
  return table;
}

}  // namespace gadl
