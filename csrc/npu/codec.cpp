// SPDX-License-Identifier: Apache-2.0
#include "codec.hpp"

#include <algorithm>
#include <cstring>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr int64_t kBlock = 64;
constexpr int kCodeBits = 3;

class BitWriter {
 public:
  explicit BitWriter(std::vector<uint8_t>& out) : out_(out) {}
  ~BitWriter() {
    if (used_ > 0) out_.push_back(static_cast<uint8_t>(pending_));
  }
  // At most 8 bits.
  void put(uint32_t value, int bits) {
    pending_ |= value << used_;
    used_ += bits;
    for (; used_ >= 8; used_ -= 8, pending_ >>= 8) out_.push_back(static_cast<uint8_t>(pending_));
  }

 private:
  std::vector<uint8_t>& out_;
  uint32_t pending_ = 0;
  int used_ = 0;
};

class BitReader {
 public:
  BitReader(const uint8_t* data, int64_t size) : data_(data), left_(size * 8) {}
  // At most 8 bits.
  uint32_t take(int bits) {
    if (bits > left_) throw SimError("LD: a compressed stream ends early");
    left_ -= bits;
    uint32_t value = *data_ >> at_;
    if (at_ + bits > 8) value |= static_cast<uint32_t>(data_[1]) << (8 - at_);
    at_ += bits;
    data_ += at_ / 8;
    at_ %= 8;
    return value & ((1u << bits) - 1);
  }

 private:
  const uint8_t* data_;
  int64_t left_;
  int at_ = 0;
};

// Bits of the smallest two's complement that holds `value`, at least 2.
int width_of(int8_t value) {
  int bits = 2;
  while (value < -(1 << (bits - 1)) || value >= 1 << (bits - 1)) ++bits;
  return bits;
}

void encode_block(const uint8_t* block, int64_t size, BitWriter& out) {
  int64_t values = 0;
  int width = 2;
  for (int64_t i = 0; i < size; ++i) {
    if (block[i] == 0) continue;
    ++values;
    width = std::max(width, width_of(static_cast<int8_t>(block[i])));
  }
  if (kBlock + values * width >= size * 8) {
    out.put(0, kCodeBits);
    for (int64_t i = 0; i < size; ++i) out.put(block[i], 8);
    return;
  }
  out.put(static_cast<uint32_t>(width - 1), kCodeBits);
  for (int64_t i = 0; i < kBlock; i += 8) {
    uint32_t mask = 0;
    for (int64_t j = 0; j < 8 && i + j < size; ++j) mask |= static_cast<uint32_t>(block[i + j] != 0) << j;
    out.put(mask, 8);
  }
  for (int64_t i = 0; i < size; ++i)
    if (block[i] != 0) out.put(block[i] & ((1u << width) - 1), width);
}

}  // namespace

void encode_zb1(const uint8_t* data, int64_t size, std::vector<uint8_t>& out) {
  BitWriter writer(out);
  for (int64_t at = 0; at < size; at += kBlock) encode_block(data + at, std::min(kBlock, size - at), writer);
}

void decode_zb1(const uint8_t* stream, int64_t stream_size, uint8_t* out, int64_t size) {
  BitReader reader(stream, stream_size);
  for (int64_t at = 0; at < size; at += kBlock) {
    const int64_t length = std::min(kBlock, size - at);
    const uint32_t code = reader.take(kCodeBits);
    if (code == 0) {
      for (int64_t i = 0; i < length; ++i) out[at + i] = static_cast<uint8_t>(reader.take(8));
      continue;
    }
    const int width = static_cast<int>(code) + 1;
    uint64_t mask = 0;
    for (int i = 0; i < 64; i += 8) mask |= static_cast<uint64_t>(reader.take(8)) << i;
    if (length < kBlock && mask >> length) throw SimError("LD: a compressed stream holds values past its end");
    for (int64_t i = 0; i < length; ++i) {
      if (!((mask >> i) & 1)) {
        out[at + i] = 0;
        continue;
      }
      const uint32_t value = reader.take(width);
      out[at + i] = static_cast<uint8_t>((value ^ (1u << (width - 1))) - (1u << (width - 1)));
    }
  }
}

}  // namespace gadl::npu
