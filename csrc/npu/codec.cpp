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

// Bits of the smallest two's complement that holds each byte, at least 2.
struct Widths {
  uint8_t of[256];
  Widths() {
    for (int i = 0; i < 256; ++i) {
      const int magnitude = i < 128 ? i : 255 - i;
      of[i] = 2;
      while (magnitude >> (of[i] - 1)) ++of[i];
    }
  }
};
const Widths kWidths;

// The smallest form of a block: its code (0: raw), and the bits that it takes with the code.
struct Form {
  int code;
  int64_t bits;
};

Form form_of(const uint8_t* block, int64_t size) {
  int64_t values = 0;
  int width = 2;
  for (int64_t i = 0; i < size; ++i) {
    if (block[i] == 0) continue;
    ++values;
    width = std::max<int>(width, kWidths.of[block[i]]);
  }
  const int64_t masked = kBlock + values * width;
  return masked < size * 8 ? Form{width - 1, kCodeBits + masked} : Form{0, kCodeBits + size * 8};
}

void encode_block(const uint8_t* block, int64_t size, BitWriter& out) {
  const int code = form_of(block, size).code, width = code + 1;
  out.put(static_cast<uint32_t>(code), kCodeBits);
  if (code == 0) {
    for (int64_t i = 0; i < size; ++i) out.put(block[i], 8);
    return;
  }
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

int64_t zb1_bytes(const uint8_t* data, int64_t size) {
  int64_t bits = 0;
  for (int64_t at = 0; at < size; at += kBlock) bits += form_of(data + at, std::min(kBlock, size - at)).bits;
  return (bits + 7) / 8;
}

int64_t least_zb1_bits(const uint8_t* data, int64_t size) {
  // least[i]: bits of the first i bytes, by blocks that begin and end anywhere; a byte of a raw part is a block of its own.
  std::vector<int64_t> least(size + 1, size * 8);
  std::vector<int64_t> values(size + 1, 0);  // how many of the bytes before each are not zero
  for (int64_t i = 0; i < size; ++i) values[i + 1] = values[i] + (data[i] != 0);
  least[0] = 0;
  for (int64_t at = 0; at < size; ++at) {
    const int64_t most = std::min(kBlock, size - at), zeros = most - (values[at + most] - values[at]);
    least[at + 1] = std::min(least[at + 1], least[at] + 8);
    int64_t held = 0, width = 2;
    for (int64_t i = 0; i < most; ++i) {
      if (data[at + i] != 0) {
        ++held;
        width = std::max<int64_t>(width, kWidths.of[data[at + i]]);
        // Too wide for a mask to save as much as it takes, however the block goes on.
        if ((8 - width) * most + width * zeros <= kCodeBits + kBlock) break;
      }
      least[at + i + 1] = std::min(least[at + i + 1], least[at] + kCodeBits + kBlock + held * width);
    }
  }
  return least[size];
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
