// SPDX-License-Identifier: Apache-2.0
// Attention of i8, as docs/numerics.md section 4 defines it.
#include <algorithm>
#include <array>
#include <cstring>

#include "integer_norm.hpp"
#include "requant.hpp"

namespace gadl {
namespace {

constexpr int64_t kMostKeys = 32768, kMostShift = 38;

struct Scale {
  int32_t multiplier;
  int shift;
};

// One scale for the product of two whose multipliers lie in [2^30, 2^31).
Scale joined(Scale a, Scale b) {
  const int64_t product = int64_t{a.multiplier} * b.multiplier;
  const auto divided = [&](int by) { return (product + (int64_t{1} << (by - 1))) >> by; };
  const int bits = divided(31) < int64_t{1} << 30 ? 30 : 31;
  return {static_cast<int32_t>(divided(bits)), a.shift + b.shift - bits};
}

std::vector<int64_t> lead_of(const TensorInfo& t) { return {t.dims.begin(), t.dims.end() - 2}; }

}  // namespace

Prepared integer_attention(const Call& call) {
  const TensorInfo &q = call.input(0), &k = call.input(1), &v = call.input(2), &y = call.result();
  const TensorInfo* mask = call.optional(3);
  for (const TensorInfo* t : {&q, &k, &v, &y, mask}) {
    require(t == nullptr || (t->dtype == GADL_DTYPE_I8 && t->rank() >= 2), call, "matrices of i8 are expected");
    require(t == nullptr || (t->zero_point >= -128 && t->zero_point <= 127), call, "a zero point is out of range");
  }
  require(call.attrs.integer("zero", 1 << 8) >= -128 && call.attrs.integer("zero", 1 << 8) <= 127, call, "the zero point of scores is out of range");
  const auto rows_of = [](const TensorInfo& t) { return t.dims[t.dims.size() - 2]; };
  const int64_t rows = rows_of(q), depth = q.dims.back(), keys = rows_of(k), width = v.dims.back();
  require(k.dims.back() == depth && rows_of(v) == keys && rows_of(y) == rows && y.dims.back() == width, call, "the shapes do not fit");
  require(keys >= 1 && keys <= kMostKeys && depth <= kMostKeys, call, "sums do not fit 32 bits");
  require(mask == nullptr || (rows_of(*mask) == rows && mask->dims.back() == keys && mask->elements() == rows * keys), call, "the mask does not fit");
  const Attribute *table = call.attrs.find("table"), *steps = call.attrs.find("requant");
  require(table != nullptr && table->kind == GADL_ATTR_TENSOR && table->dtype == GADL_DTYPE_I8 && table->bytes.size() == 256, call, "'table' holds 256 i8");
  require(steps != nullptr && steps->requants.size() == (mask == nullptr ? 2u : 3u), call, "the number of requantisations is wrong");
  for (const Requant& r : steps->requants) require(r.multiplier.size() == 1 && r.shift.size() == 1, call, "one requantisation per step is expected");
  const Requant &of_scores = steps->requants.front(), &of_mask = steps->requants[mask == nullptr ? 0 : 1], &of_result = steps->requants.back();
  require(of_result.rounding != npu::Round::F32 && of_result.rounding != npu::Round::TFL2, call, "the result's rounding is out of range");
  require(of_result.multiplier[0] >= 1 << 30 && of_result.shift[0] <= kMostShift, call, "the result's scale is out of range");
  std::array<int32_t, 256> powers;
  for (int i = 0; i < 256; ++i) powers[i] = static_cast<int8_t>(table->bytes[i]) + 128;
  require(*std::max_element(powers.begin(), powers.end()) == powers[255] && powers[255] >= 1, call, "the largest power is that of 0");
  std::vector<int64_t> dims = lead_of(y);
  if (dims.empty()) dims = {1};
  const std::array<std::vector<int64_t>, 3> strides = {broadcast_strides(lead_of(q), dims), broadcast_strides(lead_of(k), dims), broadcast_strides(lead_of(v), dims)};
  const int32_t zq = q.zero_point, zk = k.zero_point, zv = v.zero_point;
  const int64_t zm = mask == nullptr ? 0 : mask->zero_point, zy = y.zero_point, zero = call.attrs.integer("zero", 0);
  const Scale score{of_scores.multiplier[0], of_scores.shift[0]}, masked{of_mask.multiplier[0], of_mask.shift[0]}, result{of_result.multiplier[0], of_result.shift[0]};
  const npu::Round score_rounding = of_scores.rounding, mask_rounding = of_mask.rounding, rounding = of_result.rounding;
  const bool has_mask = mask != nullptr;
  const auto scratch_bytes = static_cast<std::size_t>((keys + width) * 4);
  return {[=](Inputs in, Outputs out, uint8_t* scratch) {
            auto* scores = reinterpret_cast<int32_t*>(scratch);
            int32_t* sums = scores + keys;
            const auto row_of = [&](const int8_t* query, const int8_t* key, const int8_t* value, const int8_t* hidden, uint8_t* to) {
              int32_t most = -128;
              for (int64_t j = 0; j < keys; ++j, key += depth) {
                int32_t sum = 0;
                for (int64_t i = 0; i < depth; ++i) sum += (query[i] - zq) * (key[i] - zk);
                int64_t s = zero + npu::requantize(sum, score.multiplier, score.shift, score_rounding);
                if (has_mask) s += npu::requantize(hidden[j] - zm, masked.multiplier, masked.shift, mask_rounding);
                scores[j] = static_cast<int32_t>(npu::clamp64(s, -128, 127));
                most = std::max(most, scores[j]);
              }
              std::fill(sums, sums + width, 0);
              int32_t total = 0;
              for (int64_t j = 0; j < keys; ++j, value += width) {
                const int32_t power = powers[255 + scores[j] - most];
                total += power;
                if (power == 0) continue;
                for (int64_t i = 0; i < width; ++i) sums[i] += power * (value[i] - zv);
              }
              const int zeros = __builtin_clz(static_cast<uint32_t>(total)) - 1;
              const Scale by = joined({static_cast<int32_t>(normaliser(total) << 16), 61 - zeros}, result);
              for (int64_t i = 0; i < width; ++i) to[i] = static_cast<uint8_t>(npu::clamp64(zy + npu::requantize(sums[i], by.multiplier, by.shift, rounding), -128, 127));
            };
            const auto *q0 = reinterpret_cast<const int8_t*>(in[0]), *k0 = reinterpret_cast<const int8_t*>(in[1]), *v0 = reinterpret_cast<const int8_t*>(in[2]);
            const auto* m0 = has_mask ? reinterpret_cast<const int8_t*>(in[3]) : nullptr;
            int64_t item = 0;
            for_rows(dims, strides, [&](const int64_t* at) {
              for (int64_t s = 0; s < dims.back(); ++s, ++item)
                for (int64_t r = 0; r < rows; ++r) {
                  row_of(q0 + ((at[0] + s * strides[0].back()) * rows + r) * depth, k0 + (at[1] + s * strides[1].back()) * keys * depth,
                         v0 + (at[2] + s * strides[2].back()) * keys * width, has_mask ? m0 + r * keys : nullptr, out[0] + (item * rows + r) * width);
                }
            });
          },
          scratch_bytes};
}

}  // namespace gadl
