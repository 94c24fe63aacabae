// SPDX-License-Identifier: Apache-2.0
// Normalisation and softmax: statistics in f64, results rounded once. Integers have kernels of their own.
#include <algorithm>
#include <cmath>

#include "integer_norm.hpp"

namespace gadl {
namespace {

// A real tensor seen as f64 values.
struct Reader {
  gadl_dtype type;
  int64_t bytes;

  explicit Reader(const TensorInfo& t) : type(t.dtype), bytes(t.element_bytes()) {}
  double operator()(const uint8_t* base, int64_t at) const { return static_cast<double>(load_real(base + at * bytes, type)); }
  void store(uint8_t* base, int64_t at, double value) const { store_real(base + at * bytes, type, static_cast<float>(value)); }
};

void check(const Call& call) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.is_float() && x.dtype == y.dtype && x.dims == y.dims, call, "a real tensor of one shape and type is expected");
}

// Optional factor and term of a normalised value.
struct Affine {
  bool has_scale = false, has_bias = false;
  Reader scale, bias;

  // Both must have one value per channel.
  Affine(const Call& call, int64_t channels) : scale(reader(call, 1)), bias(reader(call, 2)) {
    for (int i : {1, 2}) {
      const TensorInfo* t = call.optional(i);
      if (t == nullptr) continue;
      require(t->is_float() && t->elements() == channels, call, "scale or bias does not fit");
      (i == 1 ? has_scale : has_bias) = true;
    }
  }

  double operator()(Inputs in, double value, int64_t channel) const {
    if (has_scale) value *= scale(in[1], channel);
    return has_bias ? value + bias(in[2], channel) : value;
  }

 private:
  static Reader reader(const Call& call, std::size_t i) { return Reader(call.optional(i) != nullptr ? *call.optional(i) : call.input(0)); }
};

Prepared batch_norm(const Call& call) {
  check(call);
  const TensorInfo& x = call.input(0);
  require(x.rank() >= 2, call, "a channel axis is expected");
  const int64_t channels = x.dims[1];
  std::vector<Reader> readers;
  for (std::size_t i = 1; i <= 4; ++i) {
    require(call.input(i).is_float() && call.input(i).elements() == channels, call, "the statistics do not fit the channels");
    readers.emplace_back(call.input(i));
  }
  int64_t pixels = 1;
  for (int i = 2; i < x.rank(); ++i) pixels *= x.dims[i];
  const double epsilon = call.attrs.real("epsilon", 1e-5);
  const int64_t batch = x.dims[0];
  const Reader r(x);
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t c = 0; c < channels; ++c) {
        const double factor = readers[0](in[1], c) / std::sqrt(readers[3](in[4], c) + epsilon);
        const double term = readers[1](in[2], c) - readers[2](in[3], c) * factor;
        const int64_t base = (n * channels + c) * pixels;
        for (int64_t p = base; p < base + pixels; ++p) r.store(out[0], p, r(in[0], p) * factor + term);
      }
  }};
}

// Normalises `groups` stretches of `size` consecutive elements; `channel(group, element)` picks scale and bias.
template <class Channel>
Prepared normalise(const Call& call, int64_t groups, int64_t size, bool centre, const Affine& affine, Channel channel) {
  const double epsilon = call.attrs.real("epsilon", 1e-5);
  const Reader r(call.input(0));
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t base = g * size;
      double sum = 0, squares = 0;
      if (centre) {
        for (int64_t i = 0; i < size; ++i) sum += r(in[0], base + i);
      }
      const double mean = sum / static_cast<double>(size);
      for (int64_t i = 0; i < size; ++i) {
        const double d = r(in[0], base + i) - mean;
        squares += d * d;
      }
      const double deviation = std::sqrt(squares / static_cast<double>(size) + epsilon);
      for (int64_t i = 0; i < size; ++i) r.store(out[0], base + i, affine(in, (r(in[0], base + i) - mean) / deviation, channel(g, i)));
    }
  }};
}

Prepared over_last_axes(const Call& call, bool centre) {
  check(call);
  const TensorInfo& x = call.input(0);
  const int axis = axis_of(call, call.attrs.integer("axis", -1), x.rank());
  int64_t groups = 1, size = 1;
  for (int i = 0; i < x.rank(); ++i) (i < axis ? groups : size) *= x.dims[i];
  return normalise(call, groups, size, centre, Affine(call, size), [](int64_t, int64_t i) { return i; });
}

Prepared layer_norm(const Call& call) { return call.input(0).is_float() ? over_last_axes(call, true) : integer_normalise(call, true); }
Prepared rms_norm(const Call& call) { return call.input(0).is_float() ? over_last_axes(call, false) : integer_normalise(call, false); }

Prepared over_channels(const Call& call, int64_t groups) {
  check(call);
  const TensorInfo& x = call.input(0);
  require(x.rank() >= 2 && groups >= 1 && x.dims[1] % groups == 0, call, "the channels do not fill the groups");
  int64_t pixels = 1;
  for (int i = 2; i < x.rank(); ++i) pixels *= x.dims[i];
  const int64_t channels = x.dims[1], together = channels / groups;
  return normalise(call, x.dims[0] * groups, together * pixels, true, Affine(call, channels),
                   [=](int64_t g, int64_t i) { return g % groups * together + i / pixels; });
}

Prepared instance_norm(const Call& call) {
  require(call.input(0).rank() >= 2, call, "a channel axis is expected");
  return over_channels(call, std::max<int64_t>(1, call.input(0).dims[1]));
}
Prepared group_norm(const Call& call) { return over_channels(call, call.attrs.integer("groups", 1)); }

Prepared softmax_like(const Call& call, bool logarithm) {
  check(call);
  const TensorInfo& x = call.input(0);
  const int axis = axis_of(call, call.attrs.integer("axis", -1), x.rank());
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < axis; ++i) outer *= x.dims[i];
  for (int i = axis + 1; i < x.rank(); ++i) inner *= x.dims[i];
  const int64_t extent = x.dims[axis];
  const Reader r(x);
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* powers = reinterpret_cast<double*>(scratch);
            for (int64_t o = 0; o < outer; ++o)
              for (int64_t i = 0; i < inner; ++i) {
                const int64_t base = o * extent * inner + i;
                double most = -INFINITY, sum = 0;
                for (int64_t k = 0; k < extent; ++k) {
                  const double v = r(in[0], base + k * inner);
                  most = v > most || std::isnan(v) ? v : most;
                }
                for (int64_t k = 0; k < extent; ++k) sum += powers[k] = std::exp(r(in[0], base + k * inner) - most);
                const double log_sum = std::log(sum);
                for (int64_t k = 0; k < extent; ++k) {
                  const int64_t at = base + k * inner;
                  r.store(out[0], at, logarithm ? r(in[0], at) - most - log_sum : powers[k] / sum);
                }
              }
          },
          static_cast<std::size_t>(extent) * sizeof(double)};
}

Prepared softmax(const Call& call) { return call.input(0).is_float() ? softmax_like(call, false) : integer_softmax(call); }
Prepared log_softmax(const Call& call) { return softmax_like(call, true); }

}  // namespace

const KernelTable& normalization_kernels() {
  static const KernelTable table = {
      {"batch_norm", batch_norm}, {"layer_norm", layer_norm}, {"rms_norm", rms_norm}, {"instance_norm", instance_norm},
      {"group_norm", group_norm}, {"softmax", softmax}, {"log_softmax", log_softmax}, {"attention", integer_attention},
  };
  return table;
}

}  // namespace gadl
