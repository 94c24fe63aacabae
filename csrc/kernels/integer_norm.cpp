// SPDX-License-Identifier: Apache-2.0
#include "integer_norm.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "requant.hpp"

namespace gadl {
namespace {

using Table = std::array<int16_t, 513>;

// Entries at 0, 128, ..., 65536, constant before `first`.
template <class Function>
Table make_table(int first, Function function) {
  Table table;
  for (int i = 0; i < 513; ++i) table[i] = static_cast<int16_t>(std::min(std::nearbyint(function(static_cast<double>(std::max(i * 128, first)))), 32767.0));
  return table;
}

const Table& reciprocals() {
  static const Table table = make_table(1 << 15, [](double w) { return 0x1p30 / w; });
  return table;
}

const Table& reciprocal_roots() {
  static const Table table = make_table(1 << 14, [](double w) { return 0x1p21 / std::sqrt(w); });
  return table;
}

// Between entries, at a position of 16 bits.
int64_t interpolate(const Table& table, uint64_t position) {
  const std::size_t index = (position & 0xFFFF) >> 7;
  const int64_t base = table[index], next = table[index + 1];
  return (base * 128 + (next - base) * static_cast<int64_t>(position & 127) + 64) >> 7;
}

int leading_zeros(uint32_t value) { return value == 0 ? 32 : __builtin_clz(value); }

// About 2^(29 + fraction) / v, at most 2^15 - 1.
int64_t reciprocal(int64_t v, int64_t fraction) {
  const int shift = (leading_zeros(static_cast<uint32_t>(v)) - 1) & 31;
  const int64_t wide = interpolate(reciprocals(), (static_cast<uint64_t>(v) << shift) >> 15) << shift;
  return std::min<int64_t>((wide + (1 << (15 - fraction))) >> (16 - fraction), 32767);
}

// About 2^28.5 / sqrt(v).
int64_t reciprocal_root(int64_t v) {
  const int half = (leading_zeros(static_cast<uint32_t>(v)) - 1) / 2;
  return interpolate(reciprocal_roots(), (static_cast<uint64_t>(v) << 2 * half) >> 15) << half;
}

struct Step {
  int32_t multiplier;
  int shift;
  npu::Round rounding;

  explicit Step(const Requant& r) : multiplier(r.multiplier.at(0)), shift(r.shift.at(0)), rounding(r.rounding) {}
  int64_t operator()(int64_t value) const { return npu::requantize(value, multiplier, shift, rounding); }
};

int64_t short_of(int64_t value) { return npu::clamp64(value, -32768, 32767); }

std::vector<Step> steps_of(const Call& call, std::size_t count) {
  const Attribute* found = call.attrs.find("requant");
  require(found != nullptr && found->requants.size() == count, call, "the number of requantisations is wrong");
  std::vector<Step> steps;
  for (const Requant& r : found->requants) {
    require(r.multiplier.size() == 1 && r.shift.size() == 1, call, "one requantisation per step is expected");
    steps.emplace_back(r);
  }
  return steps;
}

void check(const Call& call) {
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.dtype == GADL_DTYPE_I8 && y.dtype == GADL_DTYPE_I8 && x.dims == y.dims && x.rank() >= 1, call, "i8 tensors of one shape are expected");
}

}  // namespace

int32_t normaliser(int32_t v) {
  const auto value = static_cast<uint32_t>(v);
  return static_cast<int32_t>(interpolate(reciprocals(), (static_cast<uint64_t>(value) << (leading_zeros(value) - 1)) >> 15));
}

Prepared integer_softmax(const Call& call) {
  check(call);
  const TensorInfo& x = call.input(0);
  const Attribute* table = call.attrs.find("table");
  require(table != nullptr && table->kind == GADL_ATTR_TENSOR && table->dtype == GADL_DTYPE_I16 && table->bytes.size() == 512, call, "'table' holds 256 i16");
  std::array<int16_t, 256> powers;
  std::memcpy(powers.data(), table->bytes.data(), 512);
  const int axis = axis_of(call, call.attrs.integer("axis", -1), x.rank());
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < axis; ++i) outer *= x.dims[i];
  for (int i = axis + 1; i < x.rank(); ++i) inner *= x.dims[i];
  const int64_t extent = x.dims[axis], zero = call.result().zero_point, fraction = call.attrs.integer("fraction", -1);
  require(fraction >= 0 && fraction <= 15, call, "'fraction' is out of range");
  const Step step = steps_of(call, 1)[0];
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < inner; ++i) {
        const int64_t base = o * extent * inner + i;
        const auto* from = reinterpret_cast<const int8_t*>(in[0]) + base;
        int most = -128;
        for (int64_t k = 0; k < extent; ++k) most = std::max<int>(most, from[k * inner]);
        int64_t sum = 0;
        for (int64_t k = 0; k < extent; ++k) sum += powers[255 + from[k * inner] - most];
        const int64_t factor = reciprocal(sum, fraction);
        for (int64_t k = 0; k < extent; ++k) {
          out[0][base + k * inner] = static_cast<uint8_t>(npu::clamp64(zero + step(powers[255 + from[k * inner] - most] * factor), -128, 127));
        }
      }
  }};
}

Prepared integer_normalise(const Call& call, bool centre) {
  check(call);
  const TensorInfo& x = call.input(0);
  require(axis_of(call, call.attrs.integer("axis", -1), x.rank()) == x.rank() - 1, call, "integers are normalised over the last axis");
  const int64_t size = x.dims.back(), rows = size == 0 ? 0 : x.elements() / size;
  const TensorInfo *gain = call.optional(1), *bias = call.optional(2);
  for (const TensorInfo* t : {gain, bias}) require(t == nullptr || (t->dtype == GADL_DTYPE_I16 && t->elements() == size), call, "scale or bias does not fit");
  require(bias == nullptr || gain != nullptr, call, "a bias needs a scale");
  const int64_t fraction = call.attrs.integer("fraction", 0), offset = call.attrs.integer("offset", 0);
  require(fraction >= 0 && fraction <= 7 && offset >= 0 && offset <= INT32_MAX, call, "'fraction' or 'offset' is out of range");
  const bool has_gain = gain != nullptr, has_bias = bias != nullptr;
  const auto steps = steps_of(call, (centre ? 5 : 2) + has_gain + has_bias);
  const int64_t zx = x.zero_point, zy = call.result().zero_point;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    const auto whole = [](const uint8_t* p, int64_t i) { return load_whole(p + 2 * i, GADL_DTYPE_I16); };
    for (int64_t row = 0; row < rows; ++row) {
      const auto* from = reinterpret_cast<const int8_t*>(in[0]) + row * size;
      const Step* step = steps.data();
      int64_t sum = 0, squares = 0, mean = 0, variance = 0;
      for (int64_t i = 0; i < size; ++i) sum += from[i] - zx;
      const int64_t whole_mean = centre ? step[1](sum) : 0, rest = sum - size * whole_mean;
      for (int64_t i = 0; i < size; ++i) squares = wrapping_add(squares, wrapping_mul(from[i] - zx - whole_mean, from[i] - zx - whole_mean));
      if (centre) {
        mean = step[0](sum);
        variance = wrapping_sub(step[2](squares), step[3](wrapping_mul(rest, rest)));
        step += 4;
      } else {
        variance = (*step++)(squares);
      }
      const auto centred = [&](int64_t i) { return wrapping_sub((from[i] - zx) * (int64_t{1} << fraction), mean); };
      const int64_t factor = reciprocal_root(npu::clamp64(wrapping_add(variance, offset), 1, INT32_MAX));
      for (int64_t i = 0; i < size; ++i) {
        int64_t value = step[0](wrapping_mul(centred(i), factor));
        if (has_gain) value = step[1](short_of(value) * whole(in[1], i));
        if (has_bias) value = step[2](short_of(value) + whole(in[2], i));
        out[0][row * size + i] = static_cast<uint8_t>(npu::clamp64(zy + value, -128, 127));
      }
    }
  }};
}

}  // namespace gadl
