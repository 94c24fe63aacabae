// SPDX-License-Identifier: Apache-2.0
// CRC-32 (IEEE 802.3, as zlib's), eight bytes at a time.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>

namespace gadl {

inline uint32_t crc32(const uint8_t* data, uint64_t size) {
  static const auto table = [] {
    std::array<std::array<uint32_t, 256>, 8> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; ++i)
      for (int k = 1; k < 8; ++k) t[k][i] = t[0][t[k - 1][i] & 0xFF] ^ (t[k - 1][i] >> 8);
    return t;
  }();
  uint32_t c = 0xFFFFFFFFu;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= c;
    c = 0;
    for (int k = 0; k < 8; ++k) c ^= table[7 - k][(word >> (8 * k)) & 0xFF];
  }
  while (size-- > 0) c = table[0][(c ^ *data++) & 0xFF] ^ (c >> 8);
  return c ^ 0xFFFFFFFFu;
}

}  // namespace gadl
