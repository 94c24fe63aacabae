// SPDX-License-Identifier: Apache-2.0
// From sums to results: bias, residual, requantisation, clamp (docs/numerics.md sections 3 and 4).
#pragma once
#include <algorithm>
#include <cstring>

#include "kernel.hpp"
#include "requant.hpp"

namespace gadl {

// Everything but the addresses, checked once. Operand 2 is the bias, operand 3 the residual.
class Finish {
 public:
  Finish(const Call& call, int64_t channels, bool takes_bias) : type_(call.result().dtype), bytes_(call.result().element_bytes()), zero_(call.result().zero_point), bounds_(bounds_of(call)) {
    const TensorInfo* bias = takes_bias ? call.optional(2) : nullptr;
    const TensorInfo* residual = takes_bias ? call.optional(3) : nullptr;
    if (bias != nullptr) {
      require(bias->elements() == channels && bias->is_float() == call.result().is_float(), call, "the bias does not fit");
      has_bias_ = true;
      bias_type_ = bias->dtype;
      bias_bytes_ = bias->element_bytes();
    }
    if (residual != nullptr) {
      require(residual->dims == call.result().dims && residual->is_float() == call.result().is_float(), call, "the residual does not fit");
      has_residual_ = true;
      residual_type_ = residual->dtype;
      residual_bytes_ = residual->element_bytes();
      residual_zero_ = residual->zero_point;
    }
    if (call.result().is_float()) return;
    const Requant* own = call.attrs.requant("requant");
    require(own != nullptr, call, "integers need a requantisation");
    require(own->multiplier.size() == 1 || static_cast<int64_t>(own->multiplier.size()) == channels, call, "the multipliers do not fit the channels");
    requant_ = *own;
    if (!has_residual_) return;
    const Requant* other = call.attrs.requant("residual_requant");
    require(other != nullptr && other->multiplier.size() == 1, call, "the residual needs one requantisation");
    residual_requant_ = *other;
  }

  // `count` sums of one channel go to the result elements at, at + step, …
  void row(Inputs in, Outputs out, int64_t channel, int64_t at, int64_t step, int64_t count, const float* sums) const {
    const float bias = has_bias_ ? load_real(in[2] + channel * bias_bytes_, bias_type_) : 0;
    const bool plain = type_ == GADL_DTYPE_F32 && (!has_residual_ || residual_type_ == GADL_DTYPE_F32);
    auto* to = reinterpret_cast<float*>(out[0]);
    const auto* residual = has_residual_ ? reinterpret_cast<const float*>(in[3]) : nullptr;
    for (int64_t i = 0; i < count; ++i, at += step) {
      float value = has_bias_ ? sums[i] + bias : sums[i];
      if (has_residual_) value += plain ? residual[at] : load_real(in[3] + at * residual_bytes_, residual_type_);
      value = std::min(std::max(value, bounds_.low), bounds_.high);
      if (plain) to[at] = value;
      else store_real(out[0] + at * bytes_, type_, value);
    }
  }

  template <class Sum>
  void row(Inputs in, Outputs out, int64_t channel, int64_t at, int64_t step, int64_t count, const Sum* sums) const {
    const int64_t bias = has_bias_ ? load_whole(in[2] + channel * bias_bytes_, bias_type_) : 0;
    const std::size_t k = requant_.multiplier.size() > 1 ? static_cast<std::size_t>(channel) : 0;
    const int32_t multiplier = requant_.multiplier[k];
    const int shift = requant_.shift[k];
    if (requant_.rounding == npu::Round::UP && !has_residual_ && type_ == GADL_DTYPE_I8) {
      const uint64_t half = uint64_t{1} << (shift - 1), factor = static_cast<uint64_t>(static_cast<int64_t>(multiplier));
      for (int64_t i = 0; i < count; ++i, at += step) {
        const int64_t rounded = static_cast<int64_t>(static_cast<uint64_t>(wrapping_add(sums[i], bias)) * factor + half) >> shift;
        out[0][at] = static_cast<uint8_t>(npu::clamp64(zero_ + rounded, bounds_.integer_low, bounds_.integer_high));
      }
      return;
    }
    for (int64_t i = 0; i < count; ++i, at += step) {
      int64_t value = npu::requantize(wrapping_add(sums[i], bias), multiplier, shift, requant_.rounding);
      if (has_residual_) {
        const int64_t r = wrapping_sub(load_whole(in[3] + at * residual_bytes_, residual_type_), residual_zero_);
        value = wrapping_add(value, npu::requantize(r, residual_requant_.multiplier[0], residual_requant_.shift[0], residual_requant_.rounding));
      }
      store_whole(out[0] + at * bytes_, type_, npu::clamp64(wrapping_add(zero_, value), bounds_.integer_low, bounds_.integer_high));
    }
  }

 private:
  gadl_dtype type_;
  int64_t bytes_, zero_;
  Bounds bounds_;
  bool has_bias_ = false, has_residual_ = false;
  gadl_dtype bias_type_ = GADL_DTYPE_F32, residual_type_ = GADL_DTYPE_F32;
  int64_t bias_bytes_ = 0, residual_bytes_ = 0, residual_zero_ = 0;
  Requant requant_, residual_requant_;
};

}  // namespace gadl
