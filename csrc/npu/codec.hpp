// SPDX-License-Identifier: Apache-2.0
// zb1, the weight codec (SPEC section 5): a stream of bits, least significant first, of blocks of 64 bytes.
//
// A block starts with 3 bits. 0: the bytes follow as they are. c in 1..7: a 64-bit mask of the bytes that are not zero,
// then each of those as c + 1 bits, two's complement. The last block may be shorter; the stream is padded to a byte.
#pragma once
#include <cstdint>
#include <vector>

namespace gadl::npu {

// Appends the stream of `size` bytes to `out`; every block takes its smallest form.
void encode_zb1(const uint8_t* data, int64_t size, std::vector<uint8_t>& out);

// Bytes of that stream.
int64_t zb1_bytes(const uint8_t* data, int64_t size);

// Bits below which no choice of streams holds `size` bytes, in this order: they may be cut anywhere, each part a stream or raw.
int64_t least_zb1_bits(const uint8_t* data, int64_t size);

// Expands `size` bytes; throws SimError when the stream is too short or holds a value where no byte is left.
void decode_zb1(const uint8_t* stream, int64_t stream_size, uint8_t* out, int64_t size);

}  // namespace gadl::npu
